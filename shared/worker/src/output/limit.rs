//! Rate limit of the lines and bytes of one job: two token buckets.

use tokio::time::Instant;

/// How much output of one job is kept; the rest is dropped, and counted in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Lines per second, also as a burst.
    pub lines_per_second: u32,
    /// Bytes per second, also as a burst.
    pub bytes_per_second: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            lines_per_second: 1000,
            bytes_per_second: 1024 * 1024,
        }
    }
}

/// Two buckets; a line needs one unit of the first and its length of the second.
#[derive(Debug)]
pub struct Limiter {
    limits: LogLimits,
    lines: f64,
    bytes: f64,
    filled: Instant,
}

impl Limiter {
    /// Two full buckets.
    pub fn new(limits: LogLimits, now: Instant) -> Self {
        Self {
            limits,
            lines: f64::from(limits.lines_per_second),
            bytes: f64::from(limits.bytes_per_second),
            filled: now,
        }
    }

    /// Whether a line of this length may pass now.
    pub fn allows(&mut self, length: usize, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        let fill = |level: f64, rate: u32| {
            let rate = f64::from(rate);
            (level + elapsed * rate).min(rate)
        };
        self.lines = fill(self.lines, self.limits.lines_per_second);
        self.bytes = fill(self.bytes, self.limits.bytes_per_second);
        // A line longer than the whole bucket passes a full one; else it never would.
        let bytes = (length as f64).min(f64::from(self.limits.bytes_per_second));
        if self.lines < 1.0 || self.bytes < bytes {
            return false;
        }
        self.lines -= 1.0;
        self.bytes -= bytes;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let limits = LogLimits {
            lines_per_second: 10,
            bytes_per_second: 1000,
        };
        let start = Instant::now();
        let mut limiter = Limiter::new(limits, start);
        let passed = |limiter: &mut Limiter, length, at| {
            (0..100).filter(|_| limiter.allows(length, at)).count()
        };
        assert_eq!(passed(&mut limiter, 1, start), 10);
        assert_eq!(
            passed(&mut limiter, 1, start + Duration::from_millis(500)),
            5
        );
        assert_eq!(
            passed(&mut limiter, 500, start + Duration::from_secs(60)),
            2
        );
        assert_eq!(
            passed(&mut limiter, 9999, start + Duration::from_secs(90)),
            1
        );
    }
}
