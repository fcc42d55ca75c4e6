//! API keys and permissions: what is stored of a key of the interface, and what it allows.
//!
//! A key itself is shown once, to the client that created it. What is stored is its digest: a key is 32 random bytes, so that a plain
//! SHA-256 cannot be searched.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::KeyName;
use crate::time::Timestamp;

/// Bytes of the digest of a key.
pub const KEY_HASH_BYTES: usize = 32;

/// Something that a key allows; every route asks for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Permission {
    /// See everything but keys.
    #[serde(rename = "read")]
    Read,
    /// Create, change and stop work.
    #[serde(rename = "write")]
    Write,
    /// Create and revoke keys.
    #[serde(rename = "admin")]
    Admin,
    /// Ask models.
    #[serde(rename = "inference")]
    Inference,
    /// List models.
    #[serde(rename = "models:read")]
    ModelsRead,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 5] = [
        Self::Read,
        Self::Write,
        Self::Admin,
        Self::Inference,
        Self::ModelsRead,
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
            Self::Inference => "inference",
            Self::ModelsRead => "models:read",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 1 << 1,
            Self::Admin => 1 << 2,
            Self::Inference => 1 << 3,
            Self::ModelsRead => 1 << 4,
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The permissions of a key; written as a list. A permission that this version does not know is left out: it allows nothing
/// here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Permissions(u8);

/// A permission or a set of permissions that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no permission {0:?}; there are read, write, admin, inference and models:read, and the sets viewer and operator"
)]
pub struct UnknownPermission(pub String);

impl Permissions {
    /// None.
    pub const NONE: Self = Self(0);
    /// Of a `viewer`: to see everything but keys.
    pub const VIEWER: Self = Self(Permission::Read.bit() | Permission::ModelsRead.bit());
    /// Of an `operator`: all.
    pub const OPERATOR: Self = Self(
        Permission::Read.bit()
            | Permission::Write.bit()
            | Permission::Admin.bit()
            | Permission::Inference.bit()
            | Permission::ModelsRead.bit(),
    );
    /// The sets that have names.
    pub const SETS: [(&'static str, Self); 2] =
        [("viewer", Self::VIEWER), ("operator", Self::OPERATOR)];

    /// Whether this permission is among them.
    pub const fn allows(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    /// These and those.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .into_iter()
            .filter(move |permission| self.allows(*permission))
    }

    /// The set of this name, `viewer` or `operator`.
    pub fn of_set(name: &str) -> Option<Self> {
        let found = Self::SETS.iter().find(|(set, _)| *set == name);
        found.map(|(_, permissions)| *permissions)
    }
}

impl From<Permission> for Permissions {
    fn from(permission: Permission) -> Self {
        Self(permission.bit())
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        let each = permissions.into_iter().map(Self::from);
        each.fold(Self::NONE, Self::with)
    }
}

/// Reads a list such as `read,write`, or the name of a set.
impl FromStr for Permissions {
    type Err = UnknownPermission;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = text.split(',').map(str::trim);
        let one = |name: &str| {
            let known = Permission::ALL
                .into_iter()
                .find(|permission| permission.as_str() == name);
            known
                .map(Self::from)
                .or_else(|| Self::of_set(name))
                .ok_or_else(|| UnknownPermission(name.to_owned()))
        };
        names
            .filter(|name| !name.is_empty())
            .try_fold(Self::NONE, |all, name| Ok(all.with(one(name)?)))
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Permission::as_str).collect();
        f.write_str(&names.join(","))
    }
}

impl Serialize for Permissions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let known = Permission::ALL
            .into_iter()
            .filter(|permission| names.iter().any(|name| name == permission.as_str()));
        Ok(known.collect())
    }
}

impl JsonSchema for Permissions {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Permissions".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let permission = generator.subschema_for::<Permission>();
        json_schema!({"type": "array", "items": permission, "uniqueItems": true})
    }
}

/// The SHA-256 digest of a key; hexadecimal outside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub [u8; KEY_HASH_BYTES]);

/// No digest of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the digest of a key is {} hexadecimal digits", 2 * KEY_HASH_BYTES)]
pub struct NoKeyHash;

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({self})")
    }
}

impl FromStr for KeyHash {
    type Err = NoKeyHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| NoKeyHash)?;
        bytes.try_into().map(Self).map_err(|_| NoKeyHash)
    }
}

impl Serialize for KeyHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for KeyHash {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "KeyHash".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9a-f]{64}$"})
    }
}

/// A key of the interface as it is stored, under its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessKey {
    /// Who it belongs to; what it does is recorded under this name.
    pub name: KeyName,
    /// The digest of the key.
    pub hash: KeyHash,
    /// What it allows.
    pub permissions: Permissions,
    /// When it was created.
    pub created_at: Timestamp,
    /// The key that created it; none where no key was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<KeyName>,
}

/// A secret that the parts of a system share, under what it is for. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRecord {
    /// The secret.
    pub secret: SecretBytes,
    /// When it was created.
    pub created_at: Timestamp,
}

impl fmt::Debug for SecretRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretRecord")
            .field("created_at", &self.created_at)
            .finish_non_exhaustive()
    }
}

/// Bytes that must not be shown; Base64 outside.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Wraps bytes.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes; not for logs and errors.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The text is not repeated: it may be most of a secret.
        let bytes = BASE64.decode(text.as_bytes());
        bytes
            .map(Self)
            .map_err(|_| de::Error::custom("the secret is not Base64"))
    }
}

impl JsonSchema for SecretBytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretBytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "contentEncoding": "base64"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_lists_of_permissions_are_read_and_written() {
        let read = |text: &str| text.parse::<Permissions>();
        assert_eq!(read("viewer"), Ok(Permissions::VIEWER));
        let some = read("write, read,models:read").unwrap();
        assert_eq!(some.to_string(), "read,write,models:read");
        assert!(some.allows(Permission::Write) && !some.allows(Permission::Admin));
        assert_eq!(read(""), Ok(Permissions::NONE));
        assert_eq!(read("king"), Err(UnknownPermission("king".to_owned())));
        for permission in Permission::ALL {
            assert!(Permissions::OPERATOR.allows(permission), "{permission}");
            assert_eq!(read(permission.as_str()), Ok(permission.into()));
            let written = serde_json::to_value(permission).unwrap();
            assert_eq!(written, permission.as_str());
        }
        let text = serde_json::to_string(&some).unwrap();
        assert_eq!(text, r#"["read","write","models:read"]"#);
        let of_later = r#"["read","fly"]"#;
        let read: Permissions = serde_json::from_str(of_later).unwrap();
        assert_eq!(read, Permission::Read.into());
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = SecretBytes::new(b"do not show".to_vec());
        let record = SecretRecord {
            secret,
            created_at: Timestamp::from_millis(0),
        };
        let shown = format!("{record:?} {:?}", record.secret);
        let written = serde_json::to_string(&record).unwrap();
        let encoded = BASE64.encode(b"do not show");
        assert!(written.contains(&encoded));
        assert!(
            !shown.contains(&encoded) && !shown.contains("100, 111"),
            "{shown}"
        );
        assert_eq!(
            serde_json::from_str::<SecretRecord>(&written).unwrap(),
            record
        );
        let wrong = written.replace(&encoded, "?secret?");
        let error = serde_json::from_str::<SecretRecord>(&wrong).unwrap_err();
        assert!(!error.to_string().contains("?secret?"), "{error}");
    }
}
