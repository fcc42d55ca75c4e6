//! Authentication: the caller of a request, by its key, its ticket or its session.
//!
//! A header is checked first, then the token in the address where the route takes one, then the cookies. What is given
//! and wrong is refused, also when something behind it would be right: a client that means one key must not act by
//! another.

use std::net::IpAddr;
use std::sync::Once;

use axum::http::{HeaderMap, HeaderValue, header};
use percent_encoding::percent_decode_str;
use quintet_bus::now;
use quintet_contract::access::KeyHash;
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::time::Timestamp;
use tracing::warn;

use crate::access::identity::{Caller, OpenTo};
use crate::access::key_table::{KeyPolicy, KeyTable};
use crate::access::keys::{ApiKey, hash_of};
use crate::access::session::{KEY_COOKIE, SESSION_COOKIE, cookie_value};
use crate::access::signing::{Purpose, Signer};
use crate::error::HttpError;

/// Keys, and what is signed in their place.
#[derive(Clone, Debug)]
pub(crate) struct Authenticator {
    pub(crate) table: KeyTable,
    pub(crate) signer: Signer,
    open_to: OpenTo,
}

/// The value of `?token=` of a route that takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum QueryToken<'q> {
    /// Nothing, or the route takes none.
    #[default]
    None,
    /// A ticket; of an older client, a key.
    Given(&'q str),
}

impl Authenticator {
    pub(crate) fn new(configured: &[ApiKey], open_to: OpenTo) -> Self {
        Self {
            table: KeyTable::new(configured),
            signer: Signer::default(),
            open_to,
        }
    }

    /// Whose a request with these headers is.
    ///
    /// # Errors
    /// 401 when it needs a key and has none that is good, 503 while it is not known whether it needs one.
    pub(crate) fn caller(
        &self,
        headers: &HeaderMap,
        token: QueryToken<'_>,
        client: IpAddr,
    ) -> Result<Caller, HttpError> {
        match self.table.policy() {
            KeyPolicy::Required => self.by_credentials(headers, token),
            KeyPolicy::Open if self.open_to == OpenTo::Everyone || client.is_loopback() => {
                Ok(Caller::anonymous())
            }
            KeyPolicy::Open => Err(unauthorized(
                "no API key is set, so that only clients on this machine are served; set API_KEYS",
            )),
            KeyPolicy::Unknown => Err(keys_unread()),
        }
    }

    fn by_credentials(
        &self,
        headers: &HeaderMap,
        token: QueryToken<'_>,
    ) -> Result<Caller, HttpError> {
        if let Some(key) = key_of_headers(headers) {
            return self.by_key(key);
        }
        if let QueryToken::Given(token) = token {
            if let Some(key) = self.signer.verify(Purpose::Ticket, token, now()) {
                return self.by_hash(key);
            }
            let caller = self.by_key(token.as_bytes())?;
            warn_of_key_in_address(&caller);
            return Ok(caller);
        }
        if let Some(session) =
            cookie_value(headers, SESSION_COOKIE).filter(|value| !value.is_empty())
        {
            return match self.signer.verify(Purpose::Session, session, now()) {
                Some(key) => self.by_hash(key),
                None => Err(unauthorized(
                    "the session is over; begin another with POST /v1/session",
                )),
            };
        }
        if let Some(key) = cookie_value(headers, KEY_COOKIE) {
            let decoded: Vec<u8> = percent_decode_str(key).collect();
            return self
                .by_key(key.as_bytes())
                .or_else(|_| self.by_key(&decoded));
        }
        Err(unauthorized(
            "this needs an API key; send it as `Authorization: Bearer KEY` or `x-api-key: KEY`",
        ))
    }

    /// Whose a key is.
    ///
    /// # Errors
    /// 401 when it is not known.
    pub(crate) fn by_key(&self, key: &[u8]) -> Result<Caller, HttpError> {
        let unknown = || unauthorized("this API key is not known; ask an operator for one");
        self.table.find(hash_of(key)).ok_or_else(unknown)
    }

    fn by_hash(&self, key: KeyHash) -> Result<Caller, HttpError> {
        let revoked = || unauthorized("the API key that this was made of has been revoked");
        self.table.find(key).ok_or_else(revoked)
    }

    /// A token that stands in for the key of a caller, and until when it is good.
    ///
    /// # Errors
    /// 503 while there is no secret to sign it with.
    pub(crate) fn issue(
        &self,
        purpose: Purpose,
        caller: &Caller,
    ) -> Result<(String, Timestamp), HttpError> {
        let key = caller.key.unwrap_or(NO_KEY);
        self.signer.sign(purpose, key, now()).ok_or_else(|| {
            let text = "the secret that signs tickets and sessions has not been read yet; try again in a moment";
            ErrorReply::unavailable(text).into()
        })
    }
}

/// In tokens of callers without a key: the digest of no key.
const NO_KEY: KeyHash = KeyHash([0; 32]);

/// The answer while it is not known whether keys are needed.
pub(crate) fn keys_unread() -> HttpError {
    let text = "the API keys have not been read yet; try again in a moment";
    ErrorReply::unavailable(text).into()
}

pub(crate) fn unauthorized(text: &str) -> HttpError {
    let challenge = HeaderValue::from_static("Bearer");
    HttpError::new(ErrorCode::Unauthorized, text).header(header::WWW_AUTHENTICATE, challenge)
}

/// The key in a header; any bytes that a header can hold.
fn key_of_headers(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let value = value.as_bytes();
        let space = value.iter().position(|byte| *byte == b' ')?;
        let (scheme, key) = value.split_at(space);
        scheme
            .eq_ignore_ascii_case(b"bearer")
            .then(|| key.trim_ascii())
    });
    bearer.or_else(|| headers.get("x-api-key").map(HeaderValue::as_bytes))
}

/// An address is written into logs and histories. Once: older clients do it every time.
fn warn_of_key_in_address(caller: &Caller) {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        warn!(
            name = %caller.name,
            "an API key stands in an address as ?token=, where others may read it; clients should send a ticket of POST /v1/tickets"
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::keys::parse_api_keys;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn with_keys() -> Authenticator {
        let keys = parse_api_keys("eve:viewer:look, oz:operator:wo:rk").unwrap();
        let authenticator = Authenticator::new(&keys, OpenTo::ThisMachine);
        authenticator.signer.put_for_test(b"a secret");
        authenticator
    }

    fn headers(name: &'static str, value: &[u8]) -> HeaderMap {
        let name = header::HeaderName::from_static(name);
        HeaderMap::from_iter([(name, HeaderValue::from_bytes(value).unwrap())])
    }

    fn name(
        of: &Authenticator,
        headers: &HeaderMap,
        token: QueryToken<'_>,
    ) -> Result<String, ErrorCode> {
        let caller = of.caller(headers, token, HERE);
        caller
            .map(|caller| caller.name.to_string())
            .map_err(|error| error.reply.code)
    }

    #[test]
    fn a_key_is_found_in_every_place_it_may_be_in() {
        let all = with_keys();
        let none = QueryToken::None;
        let of = |header: &'static str, value: &str| {
            name(&all, &headers(header, value.as_bytes()), none)
        };
        assert_eq!(of("authorization", "bearer look").unwrap(), "eve");
        assert_eq!(of("x-api-key", "wo:rk").unwrap(), "oz");
        assert_eq!(of("cookie", "a=b; quintet_token=look").unwrap(), "eve");
        let by_token = name(&all, &HeaderMap::new(), QueryToken::Given("look"));
        assert_eq!(by_token.unwrap(), "eve");
        for wrong in [
            of("authorization", "Basic look"),
            of("x-api-key", "loo"),
            of("cookie", "quintet_session=look"),
            name(&all, &HeaderMap::new(), none),
            name(&all, &HeaderMap::new(), QueryToken::Given("loo")),
            name(
                &all,
                &headers("x-api-key", b"loo"),
                QueryToken::Given("look"),
            ),
        ] {
            assert_eq!(wrong, Err(ErrorCode::Unauthorized));
        }
    }

    #[test]
    fn keys_of_any_characters_work() {
        let key = "schlüssel; \"a=b\", 100 %";
        let keys = [ApiKey::new(
            "eve",
            crate::access::identity::Role::Viewer,
            key,
        )];
        let all = Authenticator::new(&keys, OpenTo::ThisMachine);
        let none = QueryToken::None;
        let sent = headers("x-api-key", key.as_bytes());
        assert_eq!(name(&all, &sent, none).unwrap(), "eve");
        let sent = headers("authorization", format!("Bearer {key}").as_bytes());
        assert_eq!(name(&all, &sent, none).unwrap(), "eve");
        let cookie = "quintet_token=schl%C3%BCssel%3B%20%22a%3Db%22%2C%20100%20%25";
        let sent = headers("cookie", cookie.as_bytes());
        assert_eq!(name(&all, &sent, none).unwrap(), "eve");
    }

    #[test]
    fn tickets_and_sessions_stand_in_for_their_key_where_they_are_taken() {
        let all = with_keys();
        let eve = all.by_key(b"look").unwrap();
        let (ticket, _) = all.issue(Purpose::Ticket, &eve).unwrap();
        let (session, _) = all.issue(Purpose::Session, &eve).unwrap();
        let none = QueryToken::None;
        let given = QueryToken::Given(&ticket);
        assert_eq!(name(&all, &HeaderMap::new(), given).unwrap(), "eve");
        let cookie = |value: &str| headers("cookie", format!("quintet_session={value}").as_bytes());
        assert_eq!(name(&all, &cookie(&session), none).unwrap(), "eve");
        for wrong in [
            name(&all, &HeaderMap::new(), QueryToken::Given(&session)),
            name(&all, &cookie(&ticket), none),
            name(&all, &headers("x-api-key", ticket.as_bytes()), none),
            name(
                &all,
                &headers("authorization", format!("Bearer {session}").as_bytes()),
                none,
            ),
        ] {
            assert_eq!(wrong, Err(ErrorCode::Unauthorized));
        }
        // Another edge that does not know the key: it is revoked there.
        let other = Authenticator::new(
            &parse_api_keys("oz:operator:wo:rk").unwrap(),
            OpenTo::ThisMachine,
        );
        other.signer.put_for_test(b"a secret");
        assert_eq!(
            name(&other, &HeaderMap::new(), given),
            Err(ErrorCode::Unauthorized)
        );
    }

    #[test]
    fn without_keys_only_this_machine_is_served_unless_it_is_open_to_everyone() {
        let far: IpAddr = "203.0.113.9".parse().unwrap();
        let of = |open_to, client| {
            let open = Authenticator::new(&[], open_to);
            let before = open.caller(&HeaderMap::new(), QueryToken::None, client);
            assert_eq!(before.unwrap_err().reply.code, ErrorCode::Unavailable);
            open.table.put_loaded_for_test();
            let caller = open.caller(&HeaderMap::new(), QueryToken::None, client);
            caller
                .map(|caller| caller.name.to_string())
                .map_err(|error| error.reply.code)
        };
        assert_eq!(of(OpenTo::ThisMachine, HERE).unwrap(), "anonymous");
        assert_eq!(of(OpenTo::ThisMachine, far), Err(ErrorCode::Unauthorized));
        assert_eq!(of(OpenTo::Everyone, far).unwrap(), "anonymous");
    }
}
