//! Requests inside a core, and their replies: the compiler sees that a request gets a reply of its own type.
//!
//! A service lists the reply types of its core once, with [`replies!`](crate::replies). An event carries a [`RequestId`]
//! that names the type of its reply, and a [`Reply`] is made only from such an id and an outcome of that type.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use serde::Serialize;

use crate::error::ErrorReply;

/// Names a request that waits for a reply of type `R`; given by the service that received it.
pub struct RequestId<R> {
    number: u64,
    reply: PhantomData<fn(R)>,
}

impl<R> RequestId<R> {
    /// The id with this number. A number is given once, whatever the type of the reply.
    pub const fn new(number: u64) -> Self {
        Self {
            number,
            reply: PhantomData,
        }
    }

    /// The number, which alone identifies the request.
    pub const fn number(self) -> u64 {
        self.number
    }

    /// The reply to this request: of its own type, or that it failed.
    pub fn reply<A: From<R> + From<ErrorReply>>(self, outcome: Result<R, ErrorReply>) -> Reply<A> {
        Reply {
            to: self.number,
            answer: outcome.map_or_else(A::from, A::from),
        }
    }
}

impl<R> Clone for RequestId<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for RequestId<R> {}

impl<R> PartialEq for RequestId<R> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<R> Eq for RequestId<R> {}

impl<R> PartialOrd for RequestId<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for RequestId<R> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number.cmp(&other.number)
    }
}

impl<R> Hash for RequestId<R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl<R> fmt::Debug for RequestId<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.number)
    }
}

/// A reply to one request; made by [`RequestId::reply`] alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply<A> {
    to: u64,
    answer: A,
}

impl<A> Reply<A> {
    /// The number of the request.
    pub const fn to(&self) -> u64 {
        self.to
    }

    /// What it replies.
    pub const fn answer(&self) -> &A {
        &self.answer
    }

    /// What it replies, to change it; none if that is of another type, or an error.
    pub fn get_mut<R>(&mut self) -> Option<&mut R>
    where
        A: AnswerOf<R>,
    {
        self.answer.get_mut()
    }

    /// Replies that the request failed instead.
    pub fn refused(self, error: ErrorReply) -> Self
    where
        A: From<ErrorReply>,
    {
        Self {
            to: self.to,
            answer: A::from(error),
        }
    }

    /// The number of the request, and what it replies.
    pub fn into_parts(self) -> (u64, A) {
        (self.to, self.answer)
    }
}

/// What a core replies: one of the types that [`replies!`](crate::replies) lists, or an error.
pub trait AnyReply {
    /// Passes the outcome on with its type.
    fn outcome<S: ReplySink>(&self, sink: S) -> S::Output;
}

/// What a core replies, as far as that can be a reply of type `R`.
pub trait AnswerOf<R> {
    /// The reply; none if it is of another type, or an error.
    fn get_mut(&mut self) -> Option<&mut R>;
}

/// Where the outcome of a request goes, whatever the type of its reply.
pub trait ReplySink {
    /// What becomes of it.
    type Output;

    /// Takes the outcome.
    fn take<R: Serialize>(self, outcome: Result<&R, &ErrorReply>) -> Self::Output;
}

/// Defines what a core replies: an enum with a variant for each type of reply, and one for errors.
///
/// ```
/// use quintet_contract::api::{Done, JobPage};
/// use quintet_contract::reply::RequestId;
///
/// quintet_contract::replies! {
///     /// What an example replies.
///     pub enum Answer {
///         /// To a list.
///         Jobs(JobPage),
///         /// To what is simply done.
///         Done(Done),
///     }
/// }
///
/// let request = RequestId::<Done>::new(1);
/// let reply = request.reply::<Answer>(Ok(Done { ok: true }));
/// assert_eq!(reply.to(), 1);
/// ```
///
/// A reply that was made can be changed within its type, or be refused:
///
/// ```
/// # use quintet_contract::api::{Done, JobPage};
/// # use quintet_contract::error::ErrorReply;
/// # use quintet_contract::reply::RequestId;
/// # quintet_contract::replies! {
/// #     /// What an example replies.
/// #     pub enum Answer {
/// #         /// To a list.
/// #         Jobs(JobPage),
/// #         /// To what is simply done.
/// #         Done(Done),
/// #     }
/// # }
/// let mut reply = RequestId::new(1).reply::<Answer>(Ok(Done { ok: false }));
/// let other: Option<&mut JobPage> = reply.get_mut();
/// assert_eq!(other, None);
/// if let Some(Done { ok }) = reply.get_mut() {
///     *ok = true;
/// }
/// assert_eq!(reply.answer(), &Answer::from(Done { ok: true }));
/// let error = ErrorReply::unavailable("not stored");
/// assert_eq!(reply.refused(error.clone()).answer(), &Answer::from(error));
/// ```
///
/// A reply of another type does not compile:
///
/// ```compile_fail,E0308
/// # use quintet_contract::api::{Done, JobPage};
/// # use quintet_contract::reply::RequestId;
/// # quintet_contract::replies! {
/// #     /// What an example replies.
/// #     pub enum Answer {
/// #         /// To a list.
/// #         Jobs(JobPage),
/// #         /// To what is simply done.
/// #         Done(Done),
/// #     }
/// # }
/// let request = RequestId::<JobPage>::new(1);
/// let reply = request.reply::<Answer>(Ok(Done { ok: true }));
/// ```
#[macro_export]
macro_rules! replies {
    ($(#[$meta:meta])* $visibility:vis enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident($reply:ty)),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        $visibility enum $name {
            $($(#[$variant_meta])* $variant(Box<$reply>),)*
            /// To any of them, when it failed.
            Refused($crate::error::ErrorReply),
        }

        $(impl From<$reply> for $name {
            fn from(reply: $reply) -> Self {
                Self::$variant(Box::new(reply))
            }
        }

        impl $crate::reply::AnswerOf<$reply> for $name {
            fn get_mut(&mut self) -> Option<&mut $reply> {
                match self {
                    Self::$variant(reply) => Some(&mut **reply),
                    _ => None,
                }
            }
        })*

        impl From<$crate::error::ErrorReply> for $name {
            fn from(error: $crate::error::ErrorReply) -> Self {
                Self::Refused(error)
            }
        }

        impl $crate::reply::AnyReply for $name {
            fn outcome<S: $crate::reply::ReplySink>(&self, sink: S) -> S::Output {
                match self {
                    $(Self::$variant(reply) => sink.take::<$reply>(Ok(reply)),)*
                    Self::Refused(error) => sink.take::<()>(Err(error)),
                }
            }
        }
    };
}
