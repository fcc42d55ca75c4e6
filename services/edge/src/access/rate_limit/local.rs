//! The local rate limit: requests per second of one caller, by the name of its key, else by its address.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use quintet_contract::error::ErrorCode;

use crate::error::HttpError;

/// Checks between two sweeps of callers that have been quiet.
const SWEEP_EVERY: u32 = 10_000;

pub(crate) struct LocalRateLimit {
    limiter: DefaultKeyedRateLimiter<String>,
    checks: AtomicU32,
    per_second: NonZeroU32,
}

impl LocalRateLimit {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        let limiter = RateLimiter::keyed(Quota::per_second(per_second));
        Self {
            limiter,
            checks: AtomicU32::new(0),
            per_second,
        }
    }

    pub(crate) fn check(&self, caller: &str) -> Result<(), HttpError> {
        if self.checks.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&caller.to_owned()).map_err(|until| {
            let wait = until.wait_time_from(governor::clock::DefaultClock::default().now());
            let text = format!(
                "more than {} requests per second; try again in {} ms",
                self.per_second,
                wait.as_millis() + 1
            );
            HttpError::new(ErrorCode::RateLimited, text)
        })
    }
}
