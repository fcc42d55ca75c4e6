//! Who may ask: API keys with roles, kept as digests and compared in constant time.

use axum::http::{HeaderMap, header};
use quintet_bus::now;
use quintet_contract::error::ErrorCode;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::access::identity::{Caller, Role};
use crate::access::ticket::Tickets;
use crate::error::HttpError;

/// The cookie that the dashboard sets.
pub(crate) const COOKIE: &str = "quintet_token";
/// Who asks where no keys are set.
const ANONYMOUS: &str = "anonymous";

/// A key of the interface; only its digest is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Who it belongs to; shown as `requestedBy`.
    pub name: String,
    /// What it allows.
    pub role: Role,
    digest: [u8; 32],
}

impl ApiKey {
    /// A key as it was given out.
    pub fn new(name: impl Into<String>, role: Role, key: &str) -> Self {
        Self {
            name: name.into(),
            role,
            digest: digest(key),
        }
    }

    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// Why a list of keys cannot be read. Never shows a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
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
}

/// Reads a list such as `eve:viewer:SECRET,oz:operator:SECRET`.
pub fn parse_api_keys(text: &str) -> Result<Vec<ApiKey>, ApiKeyError> {
    let entries = text
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty());
    entries
        .enumerate()
        .map(|(index, entry)| {
            let position = index + 1;
            let mut parts = entry.splitn(3, ':');
            let (Some(name), Some(role), Some(key)) = (parts.next(), parts.next(), parts.next())
            else {
                return Err(ApiKeyError::Form { position });
            };
            if name.is_empty() || key.is_empty() {
                return Err(ApiKeyError::Form { position });
            }
            let role = Role::parse(role).ok_or_else(|| ApiKeyError::Role {
                position,
                role: role.to_owned(),
            })?;
            Ok(ApiKey::new(name, role, key))
        })
        .collect()
}

/// All keys.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    keys: Vec<ApiKey>,
    tickets: Tickets,
}

impl Keys {
    pub(crate) fn new(keys: Vec<ApiKey>) -> Self {
        Self {
            tickets: Tickets::new(&keys),
            keys,
        }
    }

    /// Whether no keys are set, so that everybody may do everything.
    pub(crate) fn is_open(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// Who asks with these headers; a token in the address, a key or a ticket, counts where the caller is given one.
    pub(crate) fn caller(
        &self,
        headers: &HeaderMap,
        token: Option<&str>,
    ) -> Result<Caller, HttpError> {
        if self.is_open() {
            return Ok(Caller {
                name: ANONYMOUS.into(),
                role: Role::Operator,
            });
        }
        let header = from_headers(headers);
        if header.is_none()
            && let Some(caller) = token.and_then(|token| self.tickets.read(token, now()))
        {
            return Ok(caller);
        }
        let presented = header
            .or_else(|| token.map(str::to_owned))
            .or_else(|| from_cookie(headers));
        let Some(presented) = presented else {
            let text =
                "this needs an API key; send it as `Authorization: Bearer KEY` or `x-api-key: KEY`";
            return Err(unauthorized(text));
        };
        let presented = digest(&presented);
        // Every key is compared, so that the time says nothing about which one was nearly right.
        let found = self.keys.iter().fold(None, |found, key| {
            let same = bool::from(key.digest.ct_eq(&presented));
            if same { Some(key) } else { found }
        });
        match found {
            Some(key) => Ok(Caller {
                name: key.name.as_str().into(),
                role: key.role,
            }),
            None => Err(unauthorized(
                "this API key is not known; ask whoever runs this for one",
            )),
        }
    }
}

/// Whether two secrets are the same, without telling by time how far.
pub(crate) fn same_secret(presented: &str, expected: &str) -> bool {
    digest(presented).ct_eq(&digest(expected)).into()
}

fn unauthorized(text: &str) -> HttpError {
    let challenge = axum::http::HeaderValue::from_static("Bearer");
    HttpError::new(ErrorCode::Unauthorized, text).header(header::WWW_AUTHENTICATE, challenge)
}

fn from_headers(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| key.trim().to_owned())
    });
    bearer.or_else(|| text("x-api-key").map(str::to_owned))
}

fn from_cookie(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    cookies.split(';').find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == COOKIE).then(|| value.to_owned())
    })
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            header::HeaderName::from_static(name),
            value.parse().unwrap(),
        )])
    }

    #[test]
    fn a_key_is_found_in_every_place_it_may_be_in() {
        let keys = Keys::new(parse_api_keys("eve:viewer:look, oz:operator:wo:rk").unwrap());
        let name = |headers: &HeaderMap, token| {
            keys.caller(headers, token)
                .map(|caller| caller.name.to_string())
        };
        assert_eq!(
            name(&headers("authorization", "bearer look"), None).unwrap(),
            "eve"
        );
        assert_eq!(name(&headers("x-api-key", "wo:rk"), None).unwrap(), "oz");
        assert_eq!(
            name(&headers("cookie", "a=b; quintet_token=look"), None).unwrap(),
            "eve"
        );
        assert_eq!(name(&HeaderMap::new(), Some("look")).unwrap(), "eve");
        for wrong in [
            headers("authorization", "Basic look"),
            headers("x-api-key", "loo"),
            HeaderMap::new(),
        ] {
            assert_eq!(
                name(&wrong, None).unwrap_err().reply.code,
                ErrorCode::Unauthorized
            );
        }
        assert_eq!(
            Keys::new(Vec::new())
                .caller(&HeaderMap::new(), None)
                .unwrap()
                .role,
            Role::Operator
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
    }
}
