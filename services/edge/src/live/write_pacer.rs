//! How often listeners are written to.
//!
//! What costs is the write, not what it carries. So whoever was just written to rests for a moment, and then gets all that
//! came meanwhile at once. The rest grows with the number of listeners: a few are told at once, thousands still leave the
//! processor time for everybody else. No message is left out or changed by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Rest after a write, for each listener there is: all of them together are written to 50 000 times a second at most.
const REST: Duration = Duration::from_micros(20);
/// Longest rest; what a listener may be told late because of it.
const LONGEST: Duration = Duration::from_millis(100);

/// All listeners of one edge; clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paces(Arc<AtomicU32>);

impl Paces {
    /// One listener more.
    pub(crate) fn join(&self) -> Pace {
        self.0.fetch_add(1, Ordering::Relaxed);
        Pace {
            all: self.clone(),
            rests_until: Instant::now(),
        }
    }
}

/// When one listener is written to; it counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Pace {
    all: Paces,
    rests_until: Instant,
}

impl Pace {
    /// It was written to.
    pub(crate) fn wrote(&mut self) {
        let rest = (REST * self.all.0.load(Ordering::Relaxed)).min(LONGEST);
        self.rests_until = Instant::now() + rest;
    }

    /// Waits until it may be written to again. Cancel-safe: the moment stays the same.
    pub(crate) async fn rest(&self) {
        if Instant::now() < self.rests_until {
            sleep_until(self.rests_until).await;
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.all.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a listener rests among so many.
    async fn rest_among(count: usize) -> Duration {
        let paces = Paces::default();
        let others: Vec<_> = (1..count).map(|_| paces.join()).collect();
        let mut pace = paces.join();
        let began = Instant::now();
        pace.rest().await;
        assert_eq!(
            began.elapsed(),
            Duration::ZERO,
            "the first write is at once"
        );
        pace.wrote();
        pace.rest().await;
        drop(others);
        pace.wrote();
        let among_others = began.elapsed();
        pace.rest().await;
        assert!(
            began.elapsed() - among_others < Duration::from_millis(2),
            "who is gone does not count"
        );
        among_others
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_listeners_there_are_the_longer_each_rests_but_never_too_long() {
        assert!(rest_among(1).await <= Duration::from_millis(1));
        let many = rest_among(2000).await;
        assert!((40..=41).contains(&many.as_millis()), "{many:?}");
        assert!(rest_among(50_000).await <= LONGEST + Duration::from_millis(1));
    }
}
