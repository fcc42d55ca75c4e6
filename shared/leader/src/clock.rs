//! The clock of a leader: the wall clock at the start, then only forward, whatever is done to the wall clock.

use std::time::Duration;

use quintet_bus::now;
use quintet_contract::time::Timestamp;
use tokio::time::Instant;

/// A point in time as a core counts it.
pub trait Moment: Copy + Ord + Send + 'static {
    /// This moment for the time that has passed since the clock was started.
    fn at(clock: &Clock, elapsed: Duration) -> Self;

    /// When a timer for this moment fires: never before it.
    fn instant(self, clock: &Clock) -> Instant;
}

/// Time for one core.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Timestamp,
    start: Instant,
}

impl Clock {
    /// Starts with the wall clock as it is now.
    pub fn start() -> Self {
        Self {
            wall: now(),
            start: Instant::now(),
        }
    }

    /// What the wall clock showed at the start.
    pub fn wall(&self) -> Timestamp {
        self.wall
    }

    /// The time now.
    pub fn now<T: Moment>(&self) -> T {
        T::at(self, self.start.elapsed())
    }
}

/// Wall-clock time that never goes back.
impl Moment for Timestamp {
    fn at(clock: &Clock, elapsed: Duration) -> Self {
        clock.wall.after(elapsed)
    }

    fn instant(self, clock: &Clock) -> Instant {
        // A timestamp counts whole milliseconds: the timer fires late rather than early.
        clock.start + self.since(clock.wall) + Duration::from_millis(1)
    }
}

/// Time since the start, exact: for cores that pace something faster than milliseconds.
impl Moment for Duration {
    fn at(_: &Clock, elapsed: Duration) -> Self {
        elapsed
    }

    fn instant(self, clock: &Clock) -> Instant {
        clock.start + self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_never_fires_before_its_moment() {
        let clock = Clock {
            wall: Timestamp::from_millis(1_000),
            start: Instant::now(),
        };
        for millis in [1_000, 1_001, 5_000] {
            let due = Timestamp::from_millis(millis);
            let elapsed = due.instant(&clock) - clock.start;
            assert!(Timestamp::at(&clock, elapsed) >= due);
        }
        let due = Duration::from_micros(16_667);
        assert_eq!(Duration::at(&clock, due.instant(&clock) - clock.start), due);
    }

    #[test]
    fn a_moment_before_the_start_is_due_at_once() {
        let clock = Clock {
            wall: Timestamp::from_millis(1_000),
            start: Instant::now(),
        };
        let due = Timestamp::from_millis(10).instant(&clock);
        assert!(due <= clock.start + Duration::from_millis(1));
    }
}
