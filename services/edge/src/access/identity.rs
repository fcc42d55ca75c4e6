//! Identities: who a caller is, and what its role allows.

use std::sync::Arc;

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read.
    Viewer,
    /// Read and change.
    Operator,
}

impl Role {
    const ALL: [(Self, &'static str); 2] = [(Self::Viewer, "viewer"), (Self::Operator, "operator")];

    pub(crate) fn as_str(self) -> &'static str {
        let found = Self::ALL.iter().find(|(role, _)| *role == self);
        found.map_or("", |(_, text)| text)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == text);
        found.map(|(role, _)| *role)
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) name: Arc<str>,
    pub(crate) role: Role,
}
