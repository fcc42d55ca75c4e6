//! The shared write health of a connection, and the task that probes while a bucket is unwritable.
//!
//! Every half second a probe is written to each bucket whose breaker is open; a confirmed probe closes it. So a bucket
//! that confirms writes again is writable again within that time, whatever its owner does meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_nats::jetstream;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quintet_contract::bucket::PROBE_KEY;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::headers::delete_headers;
use crate::write_health::WriteHealth;

/// The write health of one connection; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct SharedWriteHealth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: watch::Sender<WriteHealth>,
    /// What [`WriteHealth::unwritable`] gives; it changes less often than the state.
    unwritable: watch::Sender<BTreeSet<String>>,
}

impl Default for SharedWriteHealth {
    fn default() -> Self {
        Self(Arc::new(Inner {
            state: watch::Sender::default(),
            unwritable: watch::Sender::default(),
        }))
    }
}

impl SharedWriteHealth {
    /// The buckets that are unwritable, now and whenever that changes.
    pub(crate) fn unwritable(&self) -> watch::Receiver<BTreeSet<String>> {
        self.0.unwritable.subscribe()
    }

    /// Changes the state, and publishes what is unwritable then.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut WriteHealth) -> T) -> T {
        let mut outcome = None;
        // The state stays locked until both are published: they never disagree for longer.
        self.0.state.send_if_modified(|state| {
            let before = state.clone();
            outcome = Some(change(state));
            if *state == before {
                return false;
            }
            let unwritable = state.unwritable();
            self.0.unwritable.send_if_modified(|published| {
                for bucket in unwritable.difference(published) {
                    warn!(bucket, "writes to a bucket are not confirmed");
                }
                for bucket in published.difference(&unwritable) {
                    info!(bucket, "a bucket is writable again");
                }
                let is_changed = *published != unwritable;
                *published = unwritable;
                is_changed
            });
            true
        });
        outcome.expect("the change was made")
    }
}

/// The task that probes; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Probe(JoinHandle<()>);

impl Probe {
    /// Probes from now on whatever is unwritable.
    pub(crate) fn start(health: SharedWriteHealth, jetstream: jetstream::Context) -> Self {
        Self(tokio::spawn(run(health, jetstream)))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(health: SharedWriteHealth, jetstream: jetstream::Context) {
    let mut state = health.0.state.subscribe();
    let mut probes = FuturesUnordered::new();
    loop {
        let due = state.borrow_and_update().next_probe();
        let is_due = due.is_some();
        let due = due.unwrap_or_else(Instant::now);
        // Each branch is cancel-safe: probes live on outside, and a change of the state stays marked.
        tokio::select! {
            biased;
            Some((bucket, is_confirmed)) = probes.next(), if !probes.is_empty() => {
                let bucket: String = bucket;
                health.update(|health| match is_confirmed {
                    true => health.confirmed(&bucket),
                    false => health.probe_failed(&bucket, Instant::now()),
                });
            }
            changed = state.changed() => if changed.is_err() { return },
            () = sleep_until(due), if is_due => {
                let due = health.update(|health| health.begin_probes(Instant::now()));
                probes.extend(due.into_iter().map(|bucket| probe(&jetstream, bucket)));
            }
        }
    }
}

/// Writes the deletion of a key that no record has, and returns whether it is confirmed.
async fn probe(jetstream: &jetstream::Context, bucket: String) -> (String, bool) {
    let subject = format!("$KV.{bucket}.{PROBE_KEY}");
    let sent = jetstream
        .publish_with_headers(subject, delete_headers(None), Bytes::new())
        .await;
    let is_confirmed = match sent {
        Ok(confirmation) => confirmation.await.is_ok(),
        Err(_) => false,
    };
    (bucket, is_confirmed)
}
