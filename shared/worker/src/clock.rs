//! Time for the contact rule: it continues while the machine sleeps.
//!
//! The usual monotonic clock stands still during a suspend on Linux, so a laptop that slept for an hour
//! would believe that it had a reply from its scheduler a second ago, while its jobs were started elsewhere long
//! since. CLOCK_BOOTTIME counts the sleep; every step of the link compares it first, before anything else
//! is done. Timers still run on the monotonic clock, so the link also wakes up often to look.

use std::time::Duration;

/// Time since the machine was started, including the time that it slept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// The moment this long after the start; for tests and simulations.
    pub const fn from_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// Time from the start of the machine to this moment.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// This moment moved forward.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// Time from `earlier` to this moment, zero when `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The current moment.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn moment() -> Moment {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Moment(Duration::new(seconds, nanos))
}

/// The current moment. Elsewhere the monotonic clock counts sleep, or there is nothing better.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn moment() -> Moment {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    Moment(START.get_or_init(std::time::Instant::now).elapsed())
}
