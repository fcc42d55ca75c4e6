//! Announcements: the heartbeats by which a worker of any kind registers, and is known to be present.
//!
//! ```text
//!   started ──heartbeat──▶ present ──every interval, and when something changes──▶ present
//!                             │ stopped: a goodbye                  │ killed: nothing more comes
//!                             ▼                                     ▼
//!                          gone at once                    gone after the TTL
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quintet_bus::{Bus, PublishError};
use quintet_contract::id::WorkerId;
use quintet_contract::subject::WorkerHeartbeats;
use quintet_contract::worker::{WorkerHeartbeat, WorkerKind};
use quintet_service::telemetry::chain;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Shortest time between two heartbeats: what changes meanwhile goes with the next one.
const MIN_GAP: Duration = Duration::from_millis(250);
/// How many intervals without a heartbeat a worker counts as present.
const INTERVALS_TO_LIVE: u32 = 3;
/// How long the goodbye may take to be sent.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Fills in what is read for every heartbeat.
type Fill = Box<dyn Fn(&mut WorkerHeartbeat) + Send + Sync>;

/// The announcement of one worker: what it publishes on `hb.<kind>.<id>`. Clones are the same.
///
/// ```no_run
/// use std::time::Duration;
///
/// use quintet_bus::Bus;
/// use quintet_contract::id::WorkerId;
/// use quintet_contract::worker::{WorkerHeartbeat, WorkerKind, WorkerLoad};
/// use quintet_worker::{Announce, this_program};
/// use tokio_util::sync::CancellationToken;
///
/// async fn worker(bus: Bus, stop: CancellationToken) -> Result<(), Box<dyn std::error::Error>> {
///     let heartbeat = WorkerHeartbeat {
///         models: vec!["all-minilm".to_owned()],
///         load: Some(WorkerLoad { slots: 1, used: 0 }),
///         ..this_program("embedder", "1.0")
///     };
///     let id = WorkerId::parse("embedder-1")?;
///     let announce = Announce::new(WorkerKind::Infer, id, heartbeat, Duration::from_secs(2));
///     let working = announce.clone();
///     let work = async move {
///         // A change is published at once.
///         working.update(|heartbeat| heartbeat.load = Some(WorkerLoad { slots: 1, used: 1 }));
///     };
///     // Ends with a goodbye when `stop` is cancelled.
///     tokio::join!(announce.run(&bus, &stop), work);
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Announce(Arc<Inner>);

struct Inner {
    subject: WorkerHeartbeats,
    interval: Duration,
    heartbeat: watch::Sender<WorkerHeartbeat>,
    fill: Fill,
}

impl fmt::Debug for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heartbeat = &*self.0.heartbeat.borrow();
        f.debug_struct("Announce")
            .field("subject", &self.0.subject)
            .field("interval", &self.0.interval)
            .field("heartbeat", heartbeat)
            .finish_non_exhaustive()
    }
}

impl Announce {
    /// A worker that publishes this heartbeat at this interval, in a session of its own. It counts as gone when three
    /// intervals have passed without one.
    pub fn new(
        kind: WorkerKind,
        worker: WorkerId,
        heartbeat: WorkerHeartbeat,
        interval: Duration,
    ) -> Self {
        Self::with(kind, worker, heartbeat, interval, |_| {})
    }

    /// As [`Announce::new`]; `fill` completes every heartbeat by what is read rather than pushed, such as the load.
    /// It must not block.
    pub fn with(
        kind: WorkerKind,
        worker: WorkerId,
        mut heartbeat: WorkerHeartbeat,
        interval: Duration,
        fill: impl Fn(&mut WorkerHeartbeat) + Send + Sync + 'static,
    ) -> Self {
        let interval = interval.max(MIN_GAP);
        let ttl = (interval * INTERVALS_TO_LIVE).as_millis();
        heartbeat.ttl_ms = Some(u64::try_from(ttl).unwrap_or(u64::MAX));
        if heartbeat.session.is_empty() {
            heartbeat.session = quintet_bus::new_session().to_string();
        }
        Self(Arc::new(Inner {
            subject: WorkerHeartbeats { kind, worker },
            interval,
            heartbeat: watch::Sender::new(heartbeat),
            fill: Box::new(fill),
        }))
    }

    /// Changes what is announced; published at once, or at the latest 250 ms after the heartbeat before.
    pub fn update(&self, change: impl FnOnce(&mut WorkerHeartbeat)) {
        self.0.heartbeat.send_modify(change);
    }

    /// Has the next heartbeat published soon, because what it is filled with has changed.
    pub fn changed(&self) {
        self.update(|_| {});
    }

    /// Publishes heartbeats until `stop` is cancelled, then a goodbye. Dropped before, it sends no goodbye, as if the
    /// program were killed.
    pub async fn run(&self, bus: &Bus, stop: &CancellationToken) {
        let mut changes = self.0.heartbeat.subscribe();
        let mut is_failing = false;
        let publishing = async {
            loop {
                changes.mark_unchanged();
                let published = self.publish(bus, false).await;
                if let (Err(error), false) = (&published, is_failing) {
                    warn!(worker = %self.0.subject.worker, error = %chain(error), "cannot publish heartbeats");
                }
                is_failing = published.is_err();
                sleep(MIN_GAP).await;
                // It passes, or something changes.
                let _ = timeout(self.0.interval.saturating_sub(MIN_GAP), changes.changed()).await;
            }
        };
        // Cancel-safe: what publishes is not resumed.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = publishing => {}
        }
        let goodbye = async {
            let published = self.publish(bus, true).await;
            (published.is_ok(), bus.flush().await.is_ok())
        };
        if !matches!(timeout(GOODBYE_TIMEOUT, goodbye).await, Ok((true, true))) {
            warn!(worker = %self.0.subject.worker, "the goodbye was not sent; it counts as present until its TTL is over");
        }
    }

    async fn publish(&self, bus: &Bus, leaves: bool) -> Result<(), PublishError> {
        let mut heartbeat = self.0.heartbeat.borrow().clone();
        (self.0.fill)(&mut heartbeat);
        heartbeat.leaves = leaves;
        bus.publish(&self.0.subject, &heartbeat).await
    }
}

/// A heartbeat with the name and version of a program, and the machine that it runs on.
pub fn this_program(name: impl Into<String>, version: impl Into<String>) -> WorkerHeartbeat {
    WorkerHeartbeat {
        name: name.into(),
        version: version.into(),
        host: host(),
        ..WorkerHeartbeat::default()
    }
}

/// The name of this machine; empty where it has none.
pub fn host() -> String {
    hostname::get()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_lives_for_three_intervals_in_a_session_of_its_own() {
        let announce = |interval| {
            let id = WorkerId::parse("w").unwrap();
            let heartbeat = this_program("w", "1");
            Announce::new(WorkerKind::Run, id, heartbeat, interval)
        };
        let ttl = |announce: &Announce| announce.0.heartbeat.borrow().ttl_ms;
        let (first, second) = (
            announce(Duration::from_secs(2)),
            announce(Duration::from_millis(1)),
        );
        assert_eq!(ttl(&first), Some(6_000));
        assert_eq!(ttl(&second), Some(750), "it is never more often");
        let session = |announce: &Announce| announce.0.heartbeat.borrow().session.clone();
        assert!(session(&first) < session(&second), "later ones are greater");
    }
}
