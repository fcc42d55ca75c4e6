//! Sessions: a cookie that stands in for the key of a browser.
//!
//! The page hands the key over once, in the body of `POST /v1/session`, and cannot read what it gets for it: the cookie is
//! HttpOnly. SameSite keeps it from requests that pages of others make, Secure from unencrypted ones where there is TLS.

use axum::http::{HeaderMap, HeaderValue, header};
use quintet_contract::time::Timestamp;

use crate::access::signing::Purpose;

/// The cookie of a session.
pub(crate) const SESSION_COOKIE: &str = "quintet_session";
/// The cookie that older pages put the key itself in.
pub(crate) const KEY_COOKIE: &str = "quintet_token";

/// Whether the browser is asked over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// It is: the cookie shall travel in no other way.
    Tls,
    /// It is not.
    Plain,
}

/// The header that begins a session.
pub(crate) fn set_cookie(token: &str, transport: Transport) -> HeaderValue {
    let max_age = Purpose::Session.ttl().as_secs();
    cookie(token, max_age, transport)
}

/// The header that ends a session.
pub(crate) fn clear_cookie(transport: Transport) -> HeaderValue {
    cookie("", 0, transport)
}

fn cookie(value: &str, max_age: u64, transport: Transport) -> HeaderValue {
    let secure = match transport {
        Transport::Tls => "; Secure",
        Transport::Plain => "",
    };
    let text = format!(
        "{SESSION_COOKIE}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Strict{secure}"
    );
    HeaderValue::from_str(&text).expect("tokens are plain ASCII")
}

/// The value of a cookie; the first of those with this name.
pub(crate) fn cookie_value<'h>(headers: &'h HeaderMap, wanted: &str) -> Option<&'h str> {
    let lines = headers.get_all(header::COOKIE).iter();
    let texts = lines.filter_map(|line| line.to_str().ok());
    let mut cookies = texts.flat_map(|text| text.split(';'));
    cookies.find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == wanted).then_some(value)
    })
}

/// What a page gets of its session.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Session {
    /// The name of the key.
    pub(crate) name: String,
    /// What it allows.
    pub(crate) permissions: quintet_contract::access::Permissions,
    /// Until when the cookie is good; none where no key is needed, and so no cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_for_the_browser_alone() {
        let set = set_cookie("s1.token", Transport::Tls);
        assert_eq!(
            set,
            "quintet_session=s1.token; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure"
        );
        let clear = clear_cookie(Transport::Plain);
        assert_eq!(
            clear,
            "quintet_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"
        );
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::COOKIE,
            HeaderValue::from_static("a=b; quintet_session=x=y"),
        );
        headers.append(
            header::COOKIE,
            HeaderValue::from_static("quintet_token=look"),
        );
        assert_eq!(cookie_value(&headers, SESSION_COOKIE), Some("x=y"));
        assert_eq!(cookie_value(&headers, KEY_COOKIE), Some("look"));
        assert_eq!(cookie_value(&headers, "session"), None);
    }
}
