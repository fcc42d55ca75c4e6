//! Pings: whether the other end of a WebSocket is still there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often a socket is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Pings without any message in between after which the other end counts as gone.
const MAX_UNANSWERED: u32 = 2;

/// Whether anything was received since the last ping.
#[derive(Debug, Default)]
pub(crate) struct Activity(AtomicBool);

impl Activity {
    /// Something was received.
    pub(crate) fn record(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// When a socket is pinged.
#[derive(Debug)]
pub(crate) struct Pings {
    interval: Interval,
    unanswered: u32,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Send a ping.
    Ping,
    /// The other end is gone: it answered none of the last ones.
    Gone,
}

impl Pings {
    /// The first is due after one interval.
    pub(crate) fn start() -> Self {
        let mut interval = interval(PING_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval.reset();
        Self {
            interval,
            unanswered: 0,
        }
    }

    /// Waits for the next ping. Cancel-safe: a tick is taken only when it is returned.
    pub(crate) async fn due(&mut self, activity: &Activity) -> Due {
        self.interval.tick().await;
        self.unanswered = match activity.0.swap(false, Ordering::Relaxed) {
            true => 1,
            false => self.unanswered + 1,
        };
        match self.unanswered > MAX_UNANSWERED {
            true => Due::Gone,
            false => Due::Ping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_stays_and_one_that_misses_three_pings_is_closed() {
        let (activity, mut pings) = (Activity::default(), Pings::start());
        for _ in 0..10 {
            assert_eq!(pings.due(&activity).await, Due::Ping);
            activity.record();
        }
        let mut due = Vec::new();
        for _ in 0..3 {
            due.push(pings.due(&activity).await);
        }
        assert_eq!(due, [Due::Ping, Due::Ping, Due::Gone]);
    }
}
