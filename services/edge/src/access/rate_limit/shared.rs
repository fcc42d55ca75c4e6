//! The shared rate limit: how many requests about runs one caller may make in a window, counted over all edges.
//!
//! Time is cut into windows of a fixed length, the same for all edges that have the same clock. The count of a caller in a
//! window is a counter of NATS. An edge does not ask it for every request: it reserves a fiftieth of the limit at a time,
//! or as many as are waiting, and gives that out by itself. So all edges together let through at most the limit, and less
//! than it by what they have reserved and not used: a fiftieth for each edge at most, while requests come one by one.
//! Without NATS every edge counts by itself.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::HEXLOWER;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use quintet_bus::{Bus, now};
use quintet_contract::id::{RateIdentity, RateWindow};
use quintet_contract::subject::CountRequests;
use quintet_contract::time::Timestamp;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::debug;

/// Reservations in which the limit is reached.
const RESERVATIONS: u64 = 50;
/// How long the counter may take to answer.
const TIMEOUT: Duration = Duration::from_millis(500);
/// How long it is not asked after it did not answer.
const BACKOFF: Duration = Duration::from_secs(1);
/// Bytes of the digest that names a caller.
const IDENTITY_BYTES: usize = 16;

/// How many requests about runs one caller may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunRateLimit {
    /// Most requests of a window.
    pub max: NonZeroU32,
    /// How long a window is; every edge cuts time alike.
    pub window: Duration,
}

impl RunRateLimit {
    /// Requests of a window by default.
    pub const DEFAULT_MAX: NonZeroU32 = NonZeroU32::new(120).expect("is not zero");
    /// The longest window that is counted.
    pub const LONGEST_WINDOW: Duration = Duration::from_secs(3600);
}

impl Default for RunRateLimit {
    fn default() -> Self {
        Self {
            max: Self::DEFAULT_MAX,
            window: Duration::from_secs(60),
        }
    }
}

/// The state of a caller's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateLimitStatus {
    /// Requests in a window.
    pub(crate) limit: u64,
    /// How many of them are left, as far as this edge knows.
    pub(crate) remaining: u64,
    /// When the window ends.
    pub(crate) reset: Duration,
    /// Whether this request is let through.
    pub(crate) verdict: Verdict,
}

/// Whether a request is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Admitted,
    Rejected,
}

/// The callers; clones are the same.
#[derive(Clone)]
pub(crate) struct SharedRateLimit(Arc<Inner>);

struct Inner {
    limit: u64,
    window: Duration,
    bus: Bus,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    callers: HashMap<String, WindowCounter>,
    /// The newest window that was seen; those before it are forgotten.
    window: u64,
    /// Until then the counter is not asked.
    backoff_until: Option<Instant>,
}

/// One caller in one window.
#[derive(Default)]
struct WindowCounter {
    window: u64,
    /// What this edge has reserved, and what it has granted of that.
    granted: u64,
    used: u64,
    /// The count over all edges, as last received.
    total: u64,
    /// Requests that wait for a reservation.
    waiting: u64,
    reservation: Option<Shared<BoxFuture<'static, ()>>>,
}

/// What to do with a request.
enum Decision {
    Done(RateLimitStatus),
    Wait(Shared<BoxFuture<'static, ()>>),
}

impl SharedRateLimit {
    pub(crate) fn new(limit: RunRateLimit, bus: Bus) -> Self {
        Self(Arc::new(Inner {
            limit: u64::from(limit.max.get()),
            window: limit.window,
            bus,
            state: Mutex::default(),
        }))
    }

    /// Counts a request of a caller.
    pub(crate) async fn check(&self, caller: &str) -> RateLimitStatus {
        loop {
            match self.decide(caller, now()) {
                Decision::Done(status) => return status,
                Decision::Wait(reservation) => reservation.await,
            }
        }
    }

    fn decide(&self, caller: &str, now: Timestamp) -> Decision {
        let (window, reset) = window_at(now, self.0.window);
        let limit = self.0.limit;
        let mut state = self.0.state();
        if window > state.window {
            state.window = window;
            state.callers.retain(|_, counter| counter.window >= window);
        }
        let counter = state.callers.entry(caller.to_owned()).or_default();
        if counter.window != window {
            *counter = WindowCounter {
                window,
                ..WindowCounter::default()
            };
        }
        if counter.used < counter.granted {
            counter.used += 1;
            return Decision::Done(counter.status(limit, reset, Verdict::Admitted));
        }
        if counter.total >= limit {
            return Decision::Done(counter.status(limit, reset, Verdict::Rejected));
        }
        counter.waiting += 1;
        let reservation = counter.reservation.get_or_insert_with(|| {
            let (rate, caller) = (self.clone(), caller.to_owned());
            async move { rate.reserve(&caller, window).await }
                .boxed()
                .shared()
        });
        Decision::Wait(reservation.clone())
    }

    /// Reserves some more for a caller.
    async fn reserve(&self, caller: &str, window: u64) {
        let limit = self.0.limit;
        let (amount, is_backing_off) = {
            let state = self.0.state();
            let waiting = state
                .callers
                .get(caller)
                .map_or(1, |counter| counter.waiting);
            let amount = (limit / RESERVATIONS).max(waiting).clamp(1, limit);
            let is_backing_off = state
                .backoff_until
                .is_some_and(|until| Instant::now() < until);
            (amount, is_backing_off)
        };
        let subject = CountRequests {
            identity: identity(caller, self.0.window),
            window: RateWindow(window),
        };
        let total = match is_backing_off {
            true => None,
            false => match self.0.bus.count(&subject, amount, TIMEOUT).await {
                Ok(total) => Some(total),
                Err(error) => {
                    debug!(%error, "counting requests locally for a while");
                    None
                }
            },
        };
        let mut state = self.0.state();
        if total.is_none() && !is_backing_off {
            state.backoff_until = Some(Instant::now() + BACKOFF);
        }
        let counter = state.callers.get_mut(caller);
        if let Some(counter) = counter.filter(|counter| counter.window == window) {
            counter.record_reservation(amount, total, limit);
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WindowCounter {
    /// Takes in what a reservation brought; without a total, the edge counts by itself.
    fn record_reservation(&mut self, amount: u64, total: Option<u64>, limit: u64) {
        self.reservation = None;
        // Those that still wait count again.
        self.waiting = 0;
        let total = total.unwrap_or(self.total.max(self.granted) + amount);
        self.granted += amount.saturating_sub(total.saturating_sub(limit));
        self.total = self.total.max(total);
    }

    fn status(&self, limit: u64, reset: Duration, verdict: Verdict) -> RateLimitStatus {
        let unused = self.granted - self.used;
        RateLimitStatus {
            limit,
            remaining: limit.saturating_sub(self.total) + unused,
            reset,
            verdict,
        }
    }
}

/// Which window a moment is in, and how long that still is.
fn window_at(now: Timestamp, window: Duration) -> (u64, Duration) {
    let length = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
    let now = u64::try_from(now.as_millis()).unwrap_or(0);
    let left = length - now % length;
    (now / length, Duration::from_millis(left))
}

/// What a caller is called on the bus. Windows of another length are counted apart.
fn identity(caller: &str, window: Duration) -> RateIdentity {
    let digest = Sha256::digest(format!("{} {caller}", window.as_millis()));
    let hex = HEXLOWER.encode(&digest[..IDENTITY_BYTES]);
    RateIdentity::parse(hex).expect("hexadecimal digits are a name")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Edges that share a counter; returns how many requests were let through. The list names the edge that gets each.
    fn play(limit: u64, edges: usize, requests: &[usize], has_bus: bool) -> u64 {
        let mut all: Vec<WindowCounter> = (0..edges).map(|_| WindowCounter::default()).collect();
        let (mut counter, mut admitted) = (0, 0);
        for edge in requests {
            let window = &mut all[edge % edges];
            if window.used == window.granted && window.total < limit {
                let amount = (limit / RESERVATIONS).max(1);
                counter += amount;
                window.record_reservation(amount, has_bus.then_some(counter), limit);
            }
            if window.used < window.granted {
                window.used += 1;
                admitted += 1;
            }
            let status = window.status(limit, Duration::ZERO, Verdict::Admitted);
            assert!(status.remaining <= limit);
        }
        admitted
    }

    proptest! {
        #[test]
        fn edges_together_let_through_the_limit_or_a_little_less(
            limit in 1_u64..5_000,
            requests in prop::collection::vec(0_usize..3, 15_000),
        ) {
            let admitted = play(limit, 3, &requests, true);
            prop_assert!(admitted <= limit);
            let record_reservation = 3 * (limit / RESERVATIONS).max(1);
            prop_assert!(admitted + record_reservation >= limit, "{admitted} of {limit}");
        }
    }

    #[test]
    fn an_edge_alone_lets_through_exactly_the_limit_with_and_without_a_bus() {
        for limit in [1, 7, 120, 1_000] {
            for has_bus in [true, false] {
                assert_eq!(play(limit, 1, &[0; 2_000], has_bus), limit);
            }
        }
    }

    #[test]
    fn a_window_ends_when_the_next_begins() {
        let minute = Duration::from_secs(60);
        let at = |millis| window_at(Timestamp::from_millis(millis), minute);
        assert_eq!(at(0), (0, minute));
        assert_eq!(at(59_999), (0, Duration::from_millis(1)));
        assert_eq!(at(60_000), (1, minute));
        assert_ne!(identity("a", minute), identity("b", minute));
        assert_ne!(identity("a", minute), identity("a", minute * 2));
    }
}
