//! Ticker: when the active worker is ticked.
//!
//! Ticks lie on a grid: one that is late does not make the next one late. Ticks that were missed are not made up for.

use std::time::Duration;

use quintet_contract::frame::{Fps, Thousandths};

/// The plan of ticks.
#[derive(Clone, Copy, Debug)]
pub struct Ticker {
    every: Duration,
    /// When the active worker became that; none while no worker is active.
    since: Option<Duration>,
    due: Duration,
}

impl Ticker {
    /// No worker is ticked.
    pub fn new(fps: Fps) -> Self {
        Self {
            every: fps.frame(),
            since: None,
            due: Duration::ZERO,
        }
    }

    /// A worker became the active one, and is ticked at once.
    pub fn begin(&mut self, now: Duration) {
        self.since = Some(now);
        self.due = now;
    }

    /// No worker is active any more.
    pub fn end(&mut self) {
        self.since = None;
    }

    /// Changes the rate; the new one holds from the last tick on.
    pub fn set_fps(&mut self, fps: Fps, now: Duration) {
        let last = self.due.saturating_sub(self.every);
        self.every = fps.frame();
        self.due = (last + self.every).max(now);
    }

    /// There are no ticks before this.
    pub fn pause_until(&mut self, until: Duration) {
        self.due = self.due.max(until);
    }

    /// When the next tick is due.
    pub fn due(&self) -> Option<Duration> {
        self.since.map(|_| self.due)
    }

    /// The time of the tick that is due now, in seconds since the worker became the active one.
    pub fn tick(&mut self, now: Duration) -> Option<Thousandths> {
        let since = self.since?;
        let late = now.checked_sub(self.due)?;
        let missed = late.as_nanos() / self.every.as_nanos().max(1);
        // Whatever was missed in an hour at the highest rate fits.
        let steps = u32::try_from(missed).unwrap_or(u32::MAX).saturating_add(1);
        self.due += self.every.saturating_mul(steps);
        let t = now.saturating_sub(since);
        Some(Thousandths(
            i64::try_from(t.as_millis()).unwrap_or(i64::MAX),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticker(fps: f64) -> Ticker {
        Ticker::new(Fps::new(fps).unwrap())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn ten_minutes_of_late_wake_ups_do_not_drift() {
        for fps in [1.0, 7.0, 30.0, 60.0] {
            let mut ticker = ticker(fps);
            ticker.begin(ms(0));
            let (mut ticks, mut lateness, mut now) = (0_u32, 0, ms(0));
            while now < Duration::from_secs(600) {
                lateness = (lateness * 5 + 3) % 8;
                now = ticker.due().unwrap() + ms(lateness);
                ticks += u32::from(ticker.tick(now).is_some());
            }
            let wanted = 600.0 * fps;
            assert!((f64::from(ticks) - wanted).abs() <= 1.0, "{ticks} at {fps}");
        }
    }

    #[test]
    fn what_was_missed_is_not_made_up_for_and_the_grid_stays() {
        let mut ticker = ticker(10.0);
        ticker.begin(ms(1000));
        assert_eq!(ticker.tick(ms(1000)), Some(Thousandths(0)));
        assert_eq!(ticker.tick(ms(1099)), None);
        assert_eq!(ticker.tick(ms(1550)), Some(Thousandths(550)));
        assert_eq!(ticker.tick(ms(1551)), None);
        assert_eq!(ticker.due(), Some(ms(1600)));
        ticker.end();
        assert_eq!((ticker.due(), ticker.tick(ms(5000))), (None, None));
    }

    #[test]
    fn a_new_rate_holds_at_once() {
        let mut ticker = ticker(1.0);
        ticker.begin(ms(0));
        ticker.tick(ms(0));
        ticker.set_fps(Fps::new(20.0).unwrap(), ms(500));
        assert_eq!(ticker.due(), Some(ms(500)));
        ticker.tick(ms(500));
        assert_eq!(ticker.due(), Some(ms(550)));
        ticker.pause_until(ms(1500));
        assert_eq!(ticker.tick(ms(1499)), None);
        assert!(ticker.tick(ms(1500)).is_some());
    }
}
