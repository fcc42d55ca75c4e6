//! Token bucket: the frames that may be forwarded. It refills at the current rate, and more slowly after the display
//! has refused one.

use std::time::Duration;

use quintet_contract::frame::Fps;

/// How much more slowly the bucket refills after a refusal.
const PENALTY: f64 = 4.0;

/// Tokens, as many as the rate at most; each forwarded frame takes one.
#[derive(Clone, Debug)]
pub struct Bucket {
    fps: Fps,
    tokens: f64,
    at: Duration,
    /// Until when it refills slowly.
    penalty_until: Duration,
}

impl Bucket {
    /// A full bucket.
    pub fn new(fps: Fps, now: Duration) -> Self {
        Self {
            fps,
            tokens: fps.get(),
            at: now,
            penalty_until: Duration::ZERO,
        }
    }

    /// The rate.
    pub fn fps(&self) -> Fps {
        self.fps
    }

    /// Changes the rate, and with it how much there is room for.
    pub fn set_fps(&mut self, fps: Fps, now: Duration) {
        self.refill(now);
        self.fps = fps;
        self.tokens = self.tokens.min(fps.get());
    }

    /// Whether there is a token for a frame.
    pub fn has_token(&mut self, now: Duration) -> bool {
        self.refill(now);
        // Sums of parts of a token are a little below it at times.
        self.tokens >= 1.0 - 1e-9
    }

    /// Takes a token; the caller has seen that there is one.
    pub fn take(&mut self) {
        self.tokens = (self.tokens - 1.0).max(0.0);
    }

    /// The display refused a frame and wants to be left alone for so long.
    pub fn refused(&mut self, wait: Duration, now: Duration) {
        self.refill(now);
        self.penalty_until = self.penalty_until.max(now + wait);
    }

    /// Until when it refills slowly, if it does.
    pub fn penalty_until(&self, now: Duration) -> Option<Duration> {
        (self.penalty_until > now).then_some(self.penalty_until)
    }

    fn refill(&mut self, now: Duration) {
        let end_of_slow = self.penalty_until.clamp(self.at, now.max(self.at));
        let slow = end_of_slow - self.at;
        let fast = now.saturating_sub(end_of_slow);
        let seconds = slow.as_secs_f64() / PENALTY + fast.as_secs_f64();
        self.tokens = (self.tokens + seconds * self.fps.get()).min(self.fps.get());
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fps(fps: f64) -> Fps {
        Fps::new(fps).unwrap()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn taken(bucket: &mut Bucket, now: Duration) -> usize {
        let mut taken = 0;
        while bucket.has_token(now) {
            bucket.take();
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_second_admits_as_many_frames_as_the_rate_after_a_first_burst() {
        let mut bucket = Bucket::new(fps(10.0), ms(0));
        assert_eq!(taken(&mut bucket, ms(0)), 10);
        assert_eq!(taken(&mut bucket, ms(99)), 0);
        let later: usize = (1..=100)
            .map(|tick| taken(&mut bucket, ms(tick * 100)))
            .sum();
        assert_eq!(later, 100);
        assert_eq!(
            taken(&mut bucket, ms(60_000)),
            10,
            "it holds no more than one second"
        );
    }

    #[test]
    fn a_refusal_slows_it_to_a_quarter_until_the_display_has_room() {
        let mut bucket = Bucket::new(fps(40.0), ms(0));
        taken(&mut bucket, ms(0));
        bucket.refused(ms(1000), ms(0));
        assert_eq!(bucket.penalty_until(ms(999)), Some(ms(1000)));
        assert_eq!(taken(&mut bucket, ms(1000)), 10);
        assert_eq!(bucket.penalty_until(ms(1000)), None);
        assert_eq!(taken(&mut bucket, ms(1500)), 20);
    }

    #[test]
    fn a_lower_rate_holds_at_once() {
        let mut bucket = Bucket::new(fps(60.0), ms(0));
        bucket.set_fps(fps(5.0), ms(0));
        assert_eq!(taken(&mut bucket, ms(0)), 5);
        bucket.set_fps(fps(60.0), ms(0));
        assert_eq!(
            taken(&mut bucket, ms(0)),
            0,
            "a higher one gives nothing away"
        );
        assert_eq!(taken(&mut bucket, ms(500)), 30);
    }
}
