//! Ids as types. Names that people choose are checked once, at the border; ids that Quintet makes are UUID v7.
//!
//! A name may hold any printable character, since third-party agents choose their own; on the bus it
//! travels as a *token*, in which everything but `A-Z a-z 0-9 _ -` is written `=XX` (hexadecimal bytes).
//! Tokens are legal in subjects and in bucket keys, and every name has exactly one.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// The longest name in bytes; keeps subjects, keys and log lines bounded.
pub const MAX_NAME_BYTES: usize = 128;
/// The pattern of a name in schemas: no control characters. That the length counts bytes cannot be expressed there.
const NAME_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f]+$";

/// A name that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing but an empty text.
    #[error("a {0} must not be empty")]
    Empty(&'static str),
    /// More than [`MAX_NAME_BYTES`].
    #[error("a {0} must be at most {MAX_NAME_BYTES} bytes long")]
    TooLong(&'static str),
    /// A control character.
    #[error("a {0} must not hold control characters")]
    Control(&'static str),
}

/// What can stand as one token of a subject or as a bucket key.
pub trait Token: Sized {
    /// The token, or `None` when this value is written by leaving the token out.
    fn to_token(&self) -> Option<Cow<'_, str>>;
    /// Reads a token back; `None` as input stands for a token that was left out.
    fn from_token(token: Option<&str>) -> Option<Self>;
}

/// Writes any text as one token.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.is_empty() && text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut token = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if is_plain(byte) {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("={byte:02X}"));
        }
    }
    Cow::Owned(token)
}

/// Reads what [`escape`] wrote; `None` for anything else.
pub fn unescape(token: &str) -> Option<Cow<'_, str>> {
    if token.bytes().all(is_plain) {
        return Some(Cow::Borrowed(token));
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'=' => {
                let byte = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
                // Written in a second way a name would have a second subject and a second key.
                if is_plain(byte) {
                    return None;
                }
                bytes.push(byte);
            }
            plain if is_plain(plain) => bytes.push(plain),
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Takes a name that a person or a program chose.
            ///
            /// # Errors
            /// [`NameError`] for a text that is no such name.
            pub fn parse(text: impl AsRef<str>) -> Result<Self, NameError> {
                let text = text.as_ref();
                if text.is_empty() {
                    return Err(NameError::Empty($what));
                }
                if text.len() > MAX_NAME_BYTES {
                    return Err(NameError::TooLong($what));
                }
                if text.chars().any(char::is_control) {
                    return Err(NameError::Control($what));
                }
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES, "pattern": NAME_PATTERN
                })
            }
        }
    };
}

macro_rules! token_of_name {
    ($($name:ident),*) => {$(
        impl Token for $name {
            fn to_token(&self) -> Option<Cow<'_, str>> {
                Some(escape(&self.0))
            }

            fn from_token(token: Option<&str>) -> Option<Self> {
                Self::parse(unescape(token?)?).ok()
            }
        }
    )*};
}

name!(
    /// An agent: chosen by its operator, stable over restarts.
    AgentId, "agent id"
);
name!(
    /// A job: a UUID v7 as text when Quintet made it, any name when an agent brought it along.
    JobId, "job id"
);
name!(
    /// A stored job template.
    TemplateId, "template id"
);
name!(
    /// A client's promise that two submissions mean the same job.
    IdempotencyKey, "idempotency key"
);
name!(
    /// A pool of agents, led by one scheduler at a time; the unit of scale-out.
    PoolName, "pool name"
);
name!(
    /// Who or what holds a lease, for example one scheduler process.
    HolderId, "holder id"
);
name!(
    /// A node of a run's plan.
    NodeId, "node id"
);
name!(
    /// A queue of tasks for run workers.
    QueueName, "queue name"
);
name!(
    /// A worker: unique to its process.
    WorkerId, "worker id"
);
name!(
    /// Whose requests are counted together: a digest of its name or address.
    RateIdentity, "rate identity"
);
name!(
    /// An API key: the name of its owner, recorded as the author of what was done with it.
    KeyName, "key name"
);
token_of_name!(
    KeyName,
    RateIdentity,
    AgentId,
    JobId,
    TemplateId,
    IdempotencyKey,
    HolderId,
    QueueName,
    WorkerId
);

impl std::borrow::Borrow<str> for NodeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Default for NodeId {
    fn default() -> Self {
        Self("node".into())
    }
}

impl JobId {
    /// The id of a new job.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid.hyphenated().to_string().into())
    }
}

impl PoolName {
    /// The pool of every agent and job that names none.
    pub const DEFAULT: &'static str = "default";

    /// Whether this is the pool that subjects leave out.
    pub fn is_default(&self) -> bool {
        self.as_str() == Self::DEFAULT
    }
}

impl Default for PoolName {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl Token for PoolName {
    fn to_token(&self) -> Option<Cow<'_, str>> {
        (!self.is_default()).then(|| escape(&self.0))
    }

    fn from_token(token: Option<&str>) -> Option<Self> {
        match token {
            None => Some(Self::default()),
            Some(token) => Self::parse(unescape(token)?)
                .ok()
                .filter(|pool| !pool.is_default()),
        }
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID, version 7 by convention.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID inside.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id!(
    /// One message on the bus or on a socket.
    MessageId
);
uuid_id!(
    /// One stay of an agent on the bus; a newer session of the same agent replaces an older one.
    AgentSession
);

uuid_id!(
    /// One run.
    RunId
);
uuid_id!(
    /// One checkpoint in the log of a run.
    CheckpointId
);

impl Token for RunId {
    fn to_token(&self) -> Option<Cow<'_, str>> {
        Some(self.to_string().into())
    }

    fn from_token(token: Option<&str>) -> Option<Self> {
        // Written in a second way a run would have a second subject.
        let token = token?;
        token
            .parse()
            .ok()
            .filter(|id: &Self| id.to_string() == token)
    }
}

/// The window in which requests are counted: how often its length fits into the time since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RateWindow(pub u64);

impl Token for RateWindow {
    fn to_token(&self) -> Option<Cow<'_, str>> {
        Some(self.0.to_string().into())
    }

    fn from_token(token: Option<&str>) -> Option<Self> {
        let token = token?;
        let number: u64 = token.parse().ok()?;
        (number.to_string() == token).then_some(Self(number))
    }
}

/// A part of all runs, owned by one runner at a time; which one a run is in follows from its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunShard(u8);

impl RunShard {
    /// How many there are. It cannot change while runs are stored: their keys hold the shard.
    pub const COUNT: u8 = 8;

    /// Every shard.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    /// The shard of a run: its last byte, which is random in a UUID v7.
    pub fn of(run: RunId) -> Self {
        let [.., last] = run.uuid().into_bytes();
        Self(last % Self::COUNT)
    }

    /// Its number, from 0.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for RunShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Token for RunShard {
    fn to_token(&self) -> Option<Cow<'_, str>> {
        Some(self.0.to_string().into())
    }

    fn from_token(token: Option<&str>) -> Option<Self> {
        let token = token?;
        let number: u8 = token.parse().ok()?;
        (number < Self::COUNT && number.to_string() == token).then_some(Self(number))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_refused_with_the_reason() {
        assert_eq!(AgentId::parse(""), Err(NameError::Empty("agent id")));
        assert_eq!(AgentId::parse("a\nb"), Err(NameError::Control("agent id")));
        assert_eq!(
            AgentId::parse("x".repeat(129)),
            Err(NameError::TooLong("agent id"))
        );
        assert!(AgentId::parse("Studio 1 / left.cam *>").is_ok());
    }

    #[test]
    fn a_token_written_in_another_way_is_no_token() {
        for token in ["=61", "a=2Db", "=c3=a9", "=67pu", "=2", "=+1", "="] {
            assert_eq!(unescape(token), None, "{token}");
        }
        assert_eq!(unescape("=C3=A9").as_deref(), Some("é"));
    }

    #[test]
    fn the_default_pool_is_left_out_of_subjects() {
        assert_eq!(PoolName::default().to_token(), None);
        assert_eq!(PoolName::from_token(None), Some(PoolName::default()));
        assert_eq!(PoolName::from_token(Some("default")), None);
        assert_eq!(PoolName::from_token(Some("gpu")).unwrap().as_str(), "gpu");
    }

    proptest! {
        #[test]
        fn every_name_has_one_legal_token(text in "\\PC{1,40}") {
            let token = escape(&text);
            prop_assert!(token.bytes().all(|byte| is_plain(byte) || byte == b'='));
            prop_assert_eq!(unescape(&token).unwrap(), text.as_str());
        }

        #[test]
        fn reading_a_token_never_panics(text in ".{0,40}") {
            let _ = unescape(&text);
        }
    }
}
