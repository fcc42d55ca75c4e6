//! Write pacer: how often listeners are written to.
//!
//! What costs is the write, not what it carries. So a client that was just written to waits for a moment, and then gets all that
//! came meanwhile at once. The delay grows with the number of clients: a few are written to at once, thousands still leave
//! processor time for the rest. No message is left out or changed by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Rest after a write, for each listener there is: all of them together are written to 50 000 times a second at most.
const DELAY_PER_LISTENER: Duration = Duration::from_micros(20);
/// Longest delay of a message because of it.
const MAX_DELAY: Duration = Duration::from_millis(100);

/// All listeners of one edge; clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct WritePacers(Arc<AtomicU32>);

impl WritePacers {
    /// One listener more.
    pub(crate) fn register(&self) -> WritePacer {
        self.0.fetch_add(1, Ordering::Relaxed);
        WritePacer {
            all: self.clone(),
            ready_at: Instant::now(),
        }
    }
}

/// When one listener is written to; it counts until it is dropped.
#[derive(Debug)]
pub(crate) struct WritePacer {
    all: WritePacers,
    ready_at: Instant,
}

impl WritePacer {
    /// It was written to.
    pub(crate) fn record_write(&mut self) {
        let ready = (DELAY_PER_LISTENER * self.all.0.load(Ordering::Relaxed)).min(MAX_DELAY);
        self.ready_at = Instant::now() + ready;
    }

    /// Waits until it may be written to again. Cancel-safe: the moment stays the same.
    pub(crate) async fn ready(&self) {
        if Instant::now() < self.ready_at {
            sleep_until(self.ready_at).await;
        }
    }
}

impl Drop for WritePacer {
    fn drop(&mut self) {
        self.all.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a listener rests among so many.
    async fn delay_among(count: usize) -> Duration {
        let pacers = WritePacers::default();
        let others: Vec<_> = (1..count).map(|_| pacers.register()).collect();
        let mut pacer = pacers.register();
        let began = Instant::now();
        pacer.ready().await;
        assert_eq!(
            began.elapsed(),
            Duration::ZERO,
            "the first write is at once"
        );
        pacer.record_write();
        pacer.ready().await;
        drop(others);
        pacer.record_write();
        let among_others = began.elapsed();
        pacer.ready().await;
        assert!(
            began.elapsed() - among_others < Duration::from_millis(2),
            "a writer that is gone does not count"
        );
        among_others
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_listeners_there_are_the_longer_each_rests_but_never_too_long() {
        assert!(delay_among(1).await <= Duration::from_millis(1));
        let many = delay_among(2000).await;
        assert!((40..=41).contains(&many.as_millis()), "{many:?}");
        assert!(delay_among(50_000).await <= MAX_DELAY + Duration::from_millis(1));
    }
}
