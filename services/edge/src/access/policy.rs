//! Access policies: what a route requires of its callers. There is no default, so that a route cannot be open by oversight.

use quintet_contract::access::{Permission, Permissions};

/// What a caller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// Nothing.
    Public,
    /// A key that may read.
    Read,
    /// A key that may change things.
    Write,
    /// A key that may create and revoke keys.
    Admin,
}

impl Access {
    /// A ticket besides, for browsers, whose event streams and sockets cannot send headers.
    pub(crate) const fn or_ticket(self) -> Policy {
        Policy {
            access: self,
            tickets: Tickets::Accepted,
        }
    }

    /// The permission that it asks for.
    pub(crate) const fn permission(self) -> Option<Permission> {
        match self {
            Self::Public => None,
            Self::Read => Some(Permission::Read),
            Self::Write => Some(Permission::Write),
            Self::Admin => Some(Permission::Admin),
        }
    }

    /// Whether a key with these permissions has it.
    pub(crate) fn is_given_to(self, permissions: Permissions) -> bool {
        self.permission()
            .is_none_or(|permission| permissions.allows(permission))
    }
}

/// Whether a route takes a token in its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tickets {
    /// It does.
    Accepted,
    /// It does not.
    Ignored,
}

/// The policy of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) access: Access,
    pub(crate) tickets: Tickets,
}

impl From<Access> for Policy {
    fn from(access: Access) -> Self {
        Self {
            access,
            tickets: Tickets::Ignored,
        }
    }
}

impl Policy {
    /// Whether the request needs no key.
    pub(crate) fn is_public(self) -> bool {
        self.access == Access::Public
    }

    pub(crate) fn takes_tickets(self) -> bool {
        self.tickets == Tickets::Accepted
    }
}
