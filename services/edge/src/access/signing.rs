//! Signed tokens: tickets for streams and sessions of browsers, with a secret of their own.
//!
//! A token names the key that it was made of by its digest, what it is for and until when it is good; the signature is an
//! HMAC-SHA-256 over all of it. The secret is random, created once by the edge that needs it first, and kept in the bucket
//! `secrets`, so that every edge takes the tokens of every other. Nothing else is stored: a token is taken back by revoking
//! its key, since what it allows is looked up when it is used.
//!
//! ```text
//!   <purpose> . <expiry, ms since 1970> . <digest of the key, base64url> . <signature, base64url>
//! ```

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use quintet_bus::{Bus, KvError, now};
use quintet_contract::access::{KEY_HASH_BYTES, KeyHash, SecretBytes, SecretRecord};
use quintet_contract::bucket::{SecretKey, Secrets};
use quintet_contract::time::Timestamp;
use quintet_service::telemetry::chain;
use rand::RngCore;
use sha2::Sha256;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Bytes of the secret.
const SECRET_BYTES: usize = 32;
/// Wait before the secret is read again after a failure.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Longest token that is checked.
const MAX_TOKEN_BYTES: usize = 256;

type Signature = Hmac<Sha256>;

/// What a token is for; one for something else opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To open event streams and sockets, as `?token=`.
    Ticket,
    /// To stand in for the key, as a cookie.
    Session,
}

impl Purpose {
    /// How long a token is good.
    pub(crate) const fn ttl(self) -> Duration {
        match self {
            Self::Ticket => Duration::from_secs(60),
            Self::Session => Duration::from_secs(12 * 3600),
        }
    }

    /// First part of every token; another form would have another.
    const fn mark(self) -> &'static str {
        match self {
            Self::Ticket => "t2",
            Self::Session => "s1",
        }
    }
}

/// Signs and verifies tokens once it has the secret; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signer(Arc<OnceLock<Signature>>);

impl Signer {
    /// A token of the key with this digest, and until when it is good; none before the secret was read.
    pub(crate) fn sign(
        &self,
        purpose: Purpose,
        key: KeyHash,
        now: Timestamp,
    ) -> Option<(String, Timestamp)> {
        let mut signature = self.0.get()?.clone();
        let expires = now.after(purpose.ttl());
        let key = BASE64URL_NOPAD.encode(&key.0);
        let claims = format!("{}.{}.{key}", purpose.mark(), expires.as_millis());
        signature.update(claims.as_bytes());
        let proof = BASE64URL_NOPAD.encode(&signature.finalize().into_bytes());
        Some((format!("{claims}.{proof}"), expires))
    }

    /// The digest of the key that a token was made of; none when it is none of ours, for something else, or no longer good.
    pub(crate) fn verify(&self, purpose: Purpose, token: &str, now: Timestamp) -> Option<KeyHash> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (claims, proof) = token.rsplit_once('.')?;
        let proof = BASE64URL_NOPAD.decode(proof.as_bytes()).ok()?;
        let mut signature = self.0.get()?.clone();
        signature.update(claims.as_bytes());
        // Compares in constant time.
        signature.verify_slice(&proof).ok()?;
        let mut parts = claims.split('.');
        if parts.next()? != purpose.mark() {
            return None;
        }
        let expires = Timestamp::from_millis(parts.next()?.parse().ok()?);
        let key = BASE64URL_NOPAD.decode(parts.next()?.as_bytes()).ok()?;
        let key: [u8; KEY_HASH_BYTES] = key.try_into().ok()?;
        // What is good for longer than this version signs was signed by none, whatever its secret.
        let is_good = now < expires && expires <= now.after(purpose.ttl() + CLOCK_TOLERANCE);
        is_good.then_some(KeyHash(key))
    }

    /// Reads the secret, or creates it, until that worked or `shutdown`.
    pub(crate) async fn load(self, bus: Bus, shutdown: CancellationToken) {
        let mut is_reported = false;
        loop {
            let read = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                read = read_or_create(&bus) => read,
            };
            match read {
                Ok(secret) => {
                    self.put(&secret);
                    return;
                }
                // Once: with an older NATS configuration it would be logged every second.
                Err(error) if !is_reported => {
                    warn!(error = %chain(&error), "no signing secret yet: tickets and sessions are unavailable");
                    is_reported = true;
                }
                Err(_) => {}
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY_DELAY) => {}
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn put_for_test(&self, secret: &[u8]) {
        self.put(&SecretBytes::new(secret.to_vec()));
    }

    fn put(&self, secret: &SecretBytes) {
        let signature = Signature::new_from_slice(secret.expose());
        let signature = signature.expect("a key of HMAC may have any length");
        // It is set once: a second secret would be the same one.
        let _ = self.0.set(signature);
    }
}

/// How far the clocks of two edges may be apart.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

async fn read_or_create(bus: &Bus) -> Result<SecretBytes, KvError> {
    let bucket = bus.bucket::<Secrets>();
    loop {
        if let Some(found) = bucket.get(&SecretKey::EdgeSigning).await? {
            return Ok(found.record.secret);
        }
        let mut secret = vec![0; SECRET_BYTES];
        rand::rng().fill_bytes(&mut secret);
        let record = SecretRecord {
            secret: SecretBytes::new(secret),
            created_at: now(),
        };
        match bucket.create(&SecretKey::EdgeSigning, &record, None).await {
            Ok(_) => {
                info!("created the secret that signs tickets and sessions");
                return Ok(record.secret);
            }
            // Another edge was faster; its secret is the one.
            Err(KvError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::keys::hash_of;

    fn signer(secret: &[u8]) -> Signer {
        let signer = Signer::default();
        signer.put(&SecretBytes::new(secret.to_vec()));
        signer
    }

    #[test]
    fn a_token_is_good_for_its_time_and_its_purpose_at_every_edge_with_the_secret() {
        let (key, now) = (hash_of(b"look"), Timestamp::from_millis(1_704_067_200_005));
        for (purpose, other) in [
            (Purpose::Ticket, Purpose::Session),
            (Purpose::Session, Purpose::Ticket),
        ] {
            let here = signer(b"a secret");
            let (token, expires) = here.sign(purpose, key, now).unwrap();
            assert_eq!(expires, now.after(purpose.ttl()));
            let there = signer(b"a secret");
            assert_eq!(there.verify(purpose, &token, now), Some(key));
            assert_eq!(there.verify(other, &token, now), None, "for something else");
            assert_eq!(there.verify(purpose, &token, expires), None, "it is over");
            assert_eq!(signer(b"another").verify(purpose, &token, now), None);
            assert_eq!(Signer::default().verify(purpose, &token, now), None);
            let (mark, rest) = token.split_once('.').unwrap();
            for wrong in [
                format!("{mark}.9{rest}"),
                token.replace(mark, other.mark()),
                token[..token.len() - 1].to_owned(),
                format!("{token}x"),
                format!("{token}{}", "x".repeat(MAX_TOKEN_BYTES)),
                String::new(),
                mark.to_owned(),
                "a.b".to_owned(),
            ] {
                assert_eq!(there.verify(purpose, &wrong, now), None, "{wrong}");
            }
        }
        assert_eq!(Signer::default().sign(Purpose::Ticket, key, now), None);
    }

    #[test]
    fn a_token_is_never_good_for_longer_than_its_kind() {
        let (key, now) = (hash_of(b"look"), Timestamp::from_millis(1_704_067_200_005));
        let signer = signer(b"a secret");
        let later = now.after(Duration::from_secs(3600));
        let (token, _) = signer.sign(Purpose::Ticket, key, later).unwrap();
        assert_eq!(signer.verify(Purpose::Ticket, &token, now), None);
        assert_eq!(signer.verify(Purpose::Ticket, &token, later), Some(key));
    }
}
