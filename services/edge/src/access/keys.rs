//! API keys as they are configured, and their digests, by which alone they are known here.

use quintet_contract::access::{KeyHash, Permissions};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::access::identity::Role;

/// A key of the configuration; only its digest is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Who it belongs to; shown as `requestedBy`.
    pub name: String,
    /// What it allows.
    pub permissions: Permissions,
    hash: KeyHash,
}

impl ApiKey {
    /// A key as it was issued.
    pub fn new(name: impl Into<String>, role: Role, key: &str) -> Self {
        Self {
            name: name.into(),
            permissions: role.permissions(),
            hash: hash_of(key.as_bytes()),
        }
    }

    pub(crate) fn hash(&self) -> KeyHash {
        self.hash
    }
}

/// Why a list of keys cannot be read. Never shows a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// Begins as a JSON array, and is none of texts.
    #[error("the list of API keys begins with [ and is not a JSON array of texts")]
    List,
    /// Not of the form name:role:key.
    #[error("API key {position} is not of the form name:role:key")]
    Form {
        /// Which of the list, from 1.
        position: usize,
    },
    /// No such role.
    #[error("API key {position} has the unknown role {role:?}; the roles are viewer and operator")]
    Role {
        /// Which of the list, from 1.
        position: usize,
        /// What was given.
        role: String,
    },
    /// A name stands for one key.
    #[error(
        "API key {position} has the name {name:?} of an earlier one; give each key a name of its own"
    )]
    Name {
        /// Which of the list, from 1.
        position: usize,
        /// The name.
        name: String,
    },
    /// A key stands for one name.
    #[error(
        "API key {position} is the same secret as an earlier one; give each name a key of its own"
    )]
    Same {
        /// Which of the list, from 1.
        position: usize,
    },
    /// No header can carry it.
    #[error("API key {position} begins or ends with white space, which no header can carry")]
    Space {
        /// Which of the list, from 1.
        position: usize,
    },
}

/// Reads a list such as `eve:viewer:SECRET,oz:operator:SECRET`, or a JSON array of such texts, in which a key may hold
/// commas.
///
/// # Errors
/// The first entry that cannot be read.
pub fn parse_api_keys(text: &str) -> Result<Vec<ApiKey>, ApiKeyError> {
    let text = text.trim();
    let entries: Vec<String> = match text.starts_with('[') {
        // What is wrong with it may quote a key.
        true => serde_json::from_str(text).map_err(|_| ApiKeyError::List)?,
        false => {
            let entries = text.split(',').map(str::trim);
            let given = entries.filter(|entry| !entry.is_empty());
            given.map(str::to_owned).collect()
        }
    };
    let mut keys: Vec<ApiKey> = Vec::new();
    for (position, entry) in (1..).zip(&entries) {
        let key = parse_api_key(entry, position)?;
        if keys.iter().any(|earlier| earlier.name == key.name) {
            let name = key.name;
            return Err(ApiKeyError::Name { position, name });
        }
        if keys.iter().any(|earlier| earlier.hash == key.hash) {
            return Err(ApiKeyError::Same { position });
        }
        keys.push(key);
    }
    Ok(keys)
}

fn parse_api_key(entry: &str, position: usize) -> Result<ApiKey, ApiKeyError> {
    let mut parts = entry.splitn(3, ':');
    let (Some(name), Some(role), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(ApiKeyError::Form { position });
    };
    if name.is_empty() || key.is_empty() {
        return Err(ApiKeyError::Form { position });
    }
    if key.trim() != key {
        return Err(ApiKeyError::Space { position });
    }
    let role = Role::parse(role).ok_or_else(|| ApiKeyError::Role {
        position,
        role: role.to_owned(),
    })?;
    Ok(ApiKey::new(name, role, key))
}

/// Whether two secrets are the same, in constant time.
pub(crate) fn same_secret(given: &str, expected: &str) -> bool {
    let (given, expected) = (hash_of(given.as_bytes()), hash_of(expected.as_bytes()));
    given.0.ct_eq(&expected.0).into()
}

/// The digest by which a key is known.
pub(crate) fn hash_of(key: &[u8]) -> KeyHash {
    KeyHash(Sha256::digest(key).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_any_characters_can_be_configured_in_a_json_array() {
        let text = r#" ["eve:viewer:a,b: c","oz:operator:\"]\u00fc"] "#;
        let expected = [
            ApiKey::new("eve", Role::Viewer, "a,b: c"),
            ApiKey::new("oz", Role::Operator, "\"]ü"),
        ];
        assert_eq!(parse_api_keys(text).unwrap(), expected);
        assert_eq!(parse_api_keys("[]"), Ok(Vec::new()));
        for wrong in ["[", "[eve:viewer:look]", r#"["eve:viewer:look",1]"#] {
            assert_eq!(parse_api_keys(wrong), Err(ApiKeyError::List), "{wrong}");
        }
        assert_eq!(
            parse_api_keys(r#"["eve:viewer:look",""]"#),
            Err(ApiKeyError::Form { position: 2 })
        );
    }

    #[test]
    fn a_wrong_list_of_keys_is_refused_without_showing_it() {
        let error = parse_api_keys("eve:viewer:look,oz:king:secret").unwrap_err();
        assert_eq!(
            error.to_string(),
            "API key 2 has the unknown role \"king\"; the roles are viewer and operator"
        );
        assert_eq!(
            parse_api_keys("secret"),
            Err(ApiKeyError::Form { position: 1 })
        );
        let position = 2;
        for (text, expected) in [
            (
                "a:viewer:k,a:viewer:l",
                ApiKeyError::Name {
                    position,
                    name: "a".to_owned(),
                },
            ),
            ("a:viewer:k,b:operator:k", ApiKeyError::Same { position }),
            (
                r#"["a:viewer:k","b:viewer: l"]"#,
                ApiKeyError::Space { position },
            ),
            ("a:viewer:k,secret", ApiKeyError::Form { position }),
        ] {
            assert_eq!(parse_api_keys(text), Err(expected), "{text}");
        }
    }
}
