//! The circuit breaker for writes, one for each bucket. Pure: it does no I/O, and time is passed in.
//!
//! ```text
//!   closed ── a write is not confirmed while the connection is up ──▶ open ◀── the probe is not confirmed ──┐
//!     ▲ ▲                                                                │                                   │
//!     │ └── any write is confirmed, or the connection is reconnected ────┼───────────────────────────────────┤
//!     │                                                                  └── PROBE_INTERVAL passes ──▶ half-open
//!     └── the probe is confirmed ────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A server whose disk is full does not answer a write at all, and keeps silent until it is restarted, also when there is
//! room again: silence on a working connection is the only sign of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// Time between an unconfirmed write or probe and the next probe of the bucket.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Whether the buckets of one connection are writable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WriteHealth {
    /// The breakers that are not closed.
    breakers: BTreeMap<String, Breaker>,
}

/// The breaker of a bucket that is unwritable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breaker {
    /// Writes are not confirmed.
    Open {
        /// When to find out whether they are again.
        probe_at: Instant,
    },
    /// A probe is in flight.
    HalfOpen,
}

impl WriteHealth {
    /// A write or probe is confirmed: the breaker closes.
    pub(crate) fn confirmed(&mut self, bucket: &str) {
        self.breakers.remove(bucket);
    }

    /// A write is not confirmed: the breaker opens.
    pub(crate) fn unconfirmed(&mut self, bucket: &str, now: Instant) {
        // One that is open or half-open stays so: its probe decides.
        if !self.breakers.contains_key(bucket) {
            self.open(bucket, now);
        }
    }

    /// A probe is not confirmed: the breaker opens again, unless it was closed meanwhile.
    pub(crate) fn probe_failed(&mut self, bucket: &str, now: Instant) {
        if self.breakers.contains_key(bucket) {
            self.open(bucket, now);
        }
    }

    /// The connection is reconnected, perhaps to a server that confirms writes: all breakers close.
    pub(crate) fn reconnected(&mut self) {
        self.breakers.clear();
    }

    /// When the next probe is due; none while no breaker is open.
    pub(crate) fn next_probe(&self) -> Option<Instant> {
        let due = |breaker: &Breaker| match breaker {
            Breaker::Open { probe_at } => Some(*probe_at),
            Breaker::HalfOpen => None,
        };
        self.breakers.values().filter_map(due).min()
    }

    /// The buckets whose probe is due; their breakers are half-open from now on.
    pub(crate) fn begin_probes(&mut self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        for (bucket, breaker) in &mut self.breakers {
            match *breaker {
                Breaker::Open { probe_at } if probe_at <= now => {
                    *breaker = Breaker::HalfOpen;
                    due.push(bucket.clone());
                }
                Breaker::Open { .. } | Breaker::HalfOpen => {}
            }
        }
        due
    }

    /// The buckets whose breaker is open or half-open.
    pub(crate) fn unwritable(&self) -> BTreeSet<String> {
        self.breakers.keys().cloned().collect()
    }

    fn open(&mut self, bucket: &str, now: Instant) {
        let probe_at = now + PROBE_INTERVAL;
        self.breakers
            .insert(bucket.to_owned(), Breaker::Open { probe_at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(bucket: &str, now: Instant) -> WriteHealth {
        let mut health = WriteHealth::default();
        health.unconfirmed(bucket, now);
        health
    }

    fn names(health: &WriteHealth) -> Vec<String> {
        health.unwritable().into_iter().collect()
    }

    #[test]
    fn an_unconfirmed_write_opens_the_breaker_of_its_bucket_alone() {
        let now = Instant::now();
        let mut health = open("runs", now);
        assert_eq!(names(&health), ["runs"]);
        health.confirmed("leases");
        assert_eq!(names(&health), ["runs"]);
        health.confirmed("runs");
        assert_eq!(health, WriteHealth::default());
    }

    #[test]
    fn one_probe_at_a_time_is_sent_and_its_outcome_decides() {
        let now = Instant::now();
        let mut health = open("runs", now);
        let due = health.next_probe().unwrap();
        assert_eq!(due, now + PROBE_INTERVAL);
        assert!(health.begin_probes(now).is_empty());
        assert_eq!(health.begin_probes(due), ["runs"]);
        assert_eq!(health.next_probe(), None);
        assert!(health.begin_probes(due).is_empty());
        // Half-open is not writable yet, and further writes that fail change nothing.
        assert_eq!(names(&health), ["runs"]);
        health.unconfirmed("runs", due);
        assert_eq!(health.next_probe(), None);
        health.probe_failed("runs", due);
        assert_eq!(health.next_probe(), Some(due + PROBE_INTERVAL));
        assert_eq!(health.begin_probes(due + PROBE_INTERVAL), ["runs"]);
        health.confirmed("runs");
        assert_eq!(health, WriteHealth::default());
    }

    #[test]
    fn a_probe_that_fails_after_a_reconnect_opens_nothing() {
        let now = Instant::now();
        let mut health = open("runs", now);
        health.begin_probes(now + PROBE_INTERVAL);
        health.reconnected();
        health.probe_failed("runs", now);
        assert_eq!(health, WriteHealth::default());
    }

    #[test]
    fn each_bucket_is_probed_in_its_own_time() {
        let now = Instant::now();
        let mut health = open("runs", now);
        let later = now + PROBE_INTERVAL / 2;
        health.unconfirmed("jobs", later);
        assert_eq!(health.begin_probes(now + PROBE_INTERVAL), ["runs"]);
        assert_eq!(health.next_probe(), Some(later + PROBE_INTERVAL));
        assert_eq!(names(&health), ["jobs", "runs"]);
    }
}
