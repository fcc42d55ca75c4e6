//! Tickets: short-lived tokens for streams, so that no key stands in an address.
//!
//! A ticket is a text that says who has it and until when, with a signature that any edge with the same API keys can
//! check. Nothing is stored, so a ticket cannot be taken back; it is good for a minute.
//!
//! ```text
//!   t1 . <expiry, ms since 1970> . <role> . <name, base64url> . <HMAC-SHA-256 of all before, base64url>
//! ```

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use quintet_contract::time::Timestamp;
use sha2::Sha256;

use crate::access::identity::{Caller, Role};
use crate::access::keys::ApiKey;

/// How long a ticket is good.
pub(crate) const TTL: Duration = Duration::from_secs(60);
/// First part of every ticket; another form would have another.
const VERSION: &str = "t1";
/// What else is signed, so that no other use of the keys makes a ticket.
const PURPOSE: &[u8] = b"quintet ticket for streams\0";

type Signature = Hmac<Sha256>;

/// Writes and checks tickets.
#[derive(Clone, Debug)]
pub(crate) struct Tickets {
    signature: Signature,
}

impl Tickets {
    /// Of the digests of all keys in any order: edges that know the same keys take each other's tickets.
    pub(crate) fn new(keys: &[ApiKey]) -> Self {
        let mut digests: Vec<&[u8; 32]> = keys.iter().map(ApiKey::digest).collect();
        digests.sort_unstable();
        let secret: Vec<u8> = digests.into_iter().flatten().copied().collect();
        let mut signature =
            Signature::new_from_slice(&secret).expect("a key of HMAC may have any length");
        signature.update(PURPOSE);
        Self { signature }
    }

    /// A ticket for this caller, and until when it is good.
    pub(crate) fn issue(&self, caller: &Caller, now: Timestamp) -> (String, Timestamp) {
        let expires = now.after(TTL);
        let name = BASE64URL_NOPAD.encode(caller.name.as_bytes());
        let role = caller.role.as_str();
        let claims = format!("{VERSION}.{}.{role}.{name}", expires.as_millis());
        let mut signature = self.signature.clone();
        signature.update(claims.as_bytes());
        let mac = BASE64URL_NOPAD.encode(&signature.finalize().into_bytes());
        (format!("{claims}.{mac}"), expires)
    }

    /// Whose ticket this is; none when it is none of ours, or no longer good.
    pub(crate) fn read(&self, ticket: &str, now: Timestamp) -> Option<Caller> {
        let (claims, mac) = ticket.rsplit_once('.')?;
        let mac = BASE64URL_NOPAD.decode(mac.as_bytes()).ok()?;
        let mut signature = self.signature.clone();
        signature.update(claims.as_bytes());
        // Compares in constant time.
        signature.verify_slice(&mac).ok()?;
        let mut parts = claims.split('.');
        if parts.next()? != VERSION {
            return None;
        }
        let expires = Timestamp::from_millis(parts.next()?.parse().ok()?);
        let role = Role::parse(parts.next()?)?;
        let name = BASE64URL_NOPAD.decode(parts.next()?.as_bytes()).ok()?;
        let name = String::from_utf8(name).ok()?;
        (now < expires).then(|| Caller {
            name: name.into(),
            role,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(texts: &[&str]) -> Vec<ApiKey> {
        let key = |text: &&str| ApiKey::new("eve", Role::Viewer, text);
        texts.iter().map(key).collect()
    }

    #[test]
    fn a_ticket_is_good_for_a_minute_at_every_edge_with_the_same_keys() {
        let eve = Caller {
            name: "eve. the 1st".into(),
            role: Role::Viewer,
        };
        let now = Timestamp::from_millis(1_704_067_200_005);
        let tickets = Tickets::new(&keys(&["a", "b"]));
        let (ticket, expires) = tickets.issue(&eve, now);
        assert_eq!(expires, now.after(TTL));
        let elsewhere = Tickets::new(&keys(&["b", "a"]));
        assert_eq!(elsewhere.read(&ticket, now), Some(eve));
        assert_eq!(tickets.read(&ticket, expires), None, "it is over");
        assert_eq!(Tickets::new(&keys(&["a"])).read(&ticket, now), None);
        let forged = ticket.replace(".viewer.", ".operator.");
        for other in [
            forged.as_str(),
            "",
            "t1",
            "a.b",
            &ticket[..ticket.len() - 1],
        ] {
            assert_eq!(tickets.read(other, now), None, "{other}");
        }
    }
}
