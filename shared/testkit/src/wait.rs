//! Waiting for a condition with a deadline. Everything in a test that takes time goes through here, so this is the
//! only sleep in the tests, and every failure reports what was awaited and what was seen last.

use std::fmt::{self, Display};
use std::time::Duration;

use tokio::time::Instant;

/// First pause between two checks; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// Longest pause between two checks: long enough to leave the cores to what is awaited.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What one look at a condition gave: the value awaited, or a description of what was there instead.
pub trait Observation {
    /// What the wait returns once the condition holds.
    type Value;

    /// The value, or what was seen instead of it.
    fn into_result(self) -> Result<Self::Value, String>;
}

impl Observation for bool {
    type Value = ();

    fn into_result(self) -> Result<(), String> {
        if self {
            Ok(())
        } else {
            Err("false".to_owned())
        }
    }
}

impl<T> Observation for Option<T> {
    type Value = T;

    fn into_result(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Display> Observation for Result<T, E> {
    type Value = T;

    fn into_result(self) -> Result<T, String> {
        // The alternate form prints the whole chain of an anyhow error and is the plain one for a string.
        self.map_err(|seen| format!("{seen:#}"))
    }
}

/// The condition did not hold before the deadline.
#[derive(Clone, PartialEq, Eq)]
pub struct Timeout {
    what: String,
    deadline: Duration,
    checks: u32,
    seen: String,
}

impl Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            deadline,
            checks,
            seen,
        } = self;
        write!(
            f,
            "waited {deadline:?} for {what}, in vain; checked {checks} times, last state: {seen}"
        )
    }
}

// A test fails by unwrap or by returning the error: both print Debug, so Debug is the sentence.
impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl std::error::Error for Timeout {}

/// Looks again and again until `condition` holds and returns its value, or fails after `deadline`.
///
/// The condition returns a `bool`, an `Option`, or a `Result` whose error describes what is there instead. A look that
/// hangs is given up at the deadline.
///
/// ```
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), quintet_testkit::Timeout> {
/// let mut checks = 0;
/// let third = quintet_testkit::wait_for("a third look", Duration::from_secs(5), async || {
///     checks += 1;
///     if checks < 3 { Err(format!("attempt {checks}")) } else { Ok(checks) }
/// })
/// .await?;
/// assert_eq!(third, 3);
/// # Ok(()) }
/// ```
pub async fn wait_for<O, F>(
    what: &str,
    deadline: Duration,
    mut condition: F,
) -> Result<O::Value, Timeout>
where
    O: Observation,
    F: AsyncFnMut() -> O,
{
    let mut wait = Wait::new(what, deadline);
    loop {
        if let Some(value) = wait.check(condition()).await? {
            return Ok(value);
        }
    }
}

/// The loop of [`wait_for`], taken apart: for spawned tasks, because the compiler cannot yet prove that the future of
/// a borrowing async closure may move between threads.
#[derive(Debug)]
pub struct Wait {
    what: String,
    deadline: Duration,
    end: Instant,
    pause: Duration,
    checks: u32,
    seen: String,
}

impl Wait {
    /// Starts the clock.
    pub fn new(what: impl Into<String>, deadline: Duration) -> Self {
        Self {
            what: what.into(),
            deadline,
            end: Instant::now() + deadline,
            pause: FIRST_PAUSE,
            checks: 0,
            seen: "nothing: the first check never came back".to_owned(),
        }
    }

    /// Looks once: the value, or nothing after a short pause, or a failure once the deadline has passed.
    pub async fn check<O: Observation>(
        &mut self,
        check: impl Future<Output = O>,
    ) -> Result<Option<O::Value>, Timeout> {
        if let Ok(observation) = tokio::time::timeout_at(self.end, check).await {
            self.checks += 1;
            match observation.into_result() {
                Ok(value) => return Ok(Some(value)),
                Err(instead) => self.seen = instead,
            }
        }
        let now = Instant::now();
        if now >= self.end {
            return Err(Timeout {
                what: self.what.clone(),
                deadline: self.deadline,
                checks: self.checks,
                seen: self.seen.clone(),
            });
        }
        tokio::time::sleep_until((now + self.pause).min(self.end)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failed_wait_reports_what_was_awaited_and_what_was_seen_last() {
        let mut checks = 0;
        let failure = wait_for(
            "the agent to be ready",
            Duration::from_secs(2),
            async || {
                checks += 1;
                Err::<(), _>(format!("agent is starting ({})", checks.min(7)))
            },
        )
        .await
        .unwrap_err()
        .to_string();
        assert!(
            failure.contains("waited 2s for the agent to be ready"),
            "{failure}"
        );
        assert!(
            failure.contains("last state: agent is starting (7)"),
            "{failure}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_ends_at_the_deadline() {
        let start = Instant::now();
        let failure = wait_for("an answer", Duration::from_secs(3), async || {
            std::future::pending::<bool>().await
        })
        .await
        .unwrap_err()
        .to_string();
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        assert!(failure.contains("never came back"), "{failure}");
    }
}
