//! Whether what is written is also stored: the buckets whose last write got no confirmation.
//!
//! ```text
//!   storing ── a write is not confirmed while the connection stands ──▶ not storing
//!      ▲                                                                    │
//!      └── a write is confirmed, or the connection is made again ───────────┘
//! ```
//!
//! A server whose disk is full says nothing at all about a write, and goes on saying nothing until it is restarted,
//! also when there is room again: silence on a connection that stands is the only sign of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::sync::watch;

use crate::connect::Bus;
use crate::error::KvError;
use crate::kv::delete_headers;

/// A key that no bucket can have: in the spelling of keys, "=" is followed by two digits.
pub(crate) const PROBE_KEY: &str = "=probe";

/// The buckets of one connection that store nothing; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Storing(Arc<watch::Sender<BTreeSet<String>>>);

/// When a write was sent, for the judgement of its outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    epoch: u64,
}

impl Storing {
    /// The connection was made again, perhaps with a server that stores.
    pub(crate) fn forget(&self) {
        self.0.send_if_modified(|buckets| {
            let had = !buckets.is_empty();
            buckets.clear();
            had
        });
    }

    fn set(&self, bucket: &str, is_silent: bool) {
        self.0.send_if_modified(|buckets| match is_silent {
            true => buckets.insert(bucket.to_owned()),
            false => buckets.remove(bucket),
        });
    }
}

impl Bus {
    /// The buckets whose last write was not confirmed although the server is there, now and whenever that changes.
    pub fn not_storing(&self) -> watch::Receiver<BTreeSet<String>> {
        self.storing().0.subscribe()
    }

    /// Writes to a bucket what nobody will see, to find out whether it stores; [`Bus::not_storing`] shows the outcome.
    /// Cancel-safe: what was found out is noted, and a probe on its way does no harm.
    pub async fn probe(&self, bucket: &str) {
        let sent = self.sent();
        let subject = format!("$KV.{bucket}.{PROBE_KEY}");
        let headers: HeaderMap = delete_headers(self.cause());
        let jetstream = self.jetstream();
        let outcome = match jetstream
            .publish_with_headers(subject, headers, Bytes::new())
            .await
        {
            Ok(confirmation) => confirmation.await,
            Err(error) => Err(error),
        };
        if outcome.is_ok() && self.is_since(sent) {
            self.storing().set(bucket, false);
        }
    }

    pub(crate) fn sent(&self) -> Sent {
        Sent {
            epoch: self.link_events().borrow().epoch,
        }
    }

    /// Notes what the outcome of a write says about its bucket.
    pub(crate) fn note<T>(&self, bucket: &str, sent: Sent, outcome: &Result<T, KvError>) {
        match outcome {
            Ok(_) => self.storing().set(bucket, false),
            Err(KvError::Unanswered { .. }) if self.is_since(sent) => {
                self.storing().set(bucket, true);
            }
            // Anything else is an answer about this one write, or the connection is away.
            Err(_) => {}
        }
    }

    /// Whether the connection has stood since then.
    fn is_since(&self, sent: Sent) -> bool {
        self.is_connected() && self.link_events().borrow().epoch == sent.epoch
    }
}
