//! `noop`: takes a slot and does nothing, for tests and benchmarks. No process, only a timer.

use std::time::Duration;

use quintet_contract::JsonObject;

use super::fields;

const MILLISECOND: Duration = Duration::from_millis(1);

/// How long to do nothing, and how it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoopPlan {
    /// Ends well after this; without it the job runs until it is stopped.
    pub(crate) duration: Option<Duration>,
    /// Fails after this, if it has not ended before.
    pub(crate) fail_after: Option<Duration>,
}

/// How a noop ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoopEnd {
    /// As it should.
    Done,
    /// As it was asked to.
    Failed,
}

pub(super) fn plan(config: &JsonObject) -> Result<NoopPlan, String> {
    Ok(NoopPlan {
        duration: fields::duration(config, "durationMs", MILLISECOND)?,
        fail_after: fields::duration(config, "failAfterMs", MILLISECOND)?,
    })
}

impl NoopPlan {
    /// When it ends by itself, and how; `None` when it does not.
    pub(crate) fn end(&self) -> Option<(Duration, NoopEnd)> {
        let done = self.duration.map(|after| (after, NoopEnd::Done));
        let failed = self.fail_after.map(|after| (after, NoopEnd::Failed));
        match (done, failed) {
            (Some(done), Some(failed)) => Some(if failed.0 < done.0 { failed } else { done }),
            (done, failed) => done.or(failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_by_whatever_comes_first() {
        let plan = |duration: Option<u64>, fail: Option<u64>| NoopPlan {
            duration: duration.map(Duration::from_millis),
            fail_after: fail.map(Duration::from_millis),
        };
        let at = Duration::from_millis;
        assert_eq!(plan(None, None).end(), None);
        assert_eq!(plan(Some(5), None).end(), Some((at(5), NoopEnd::Done)));
        assert_eq!(plan(Some(5), Some(3)).end(), Some((at(3), NoopEnd::Failed)));
        assert_eq!(plan(Some(5), Some(8)).end(), Some((at(5), NoopEnd::Done)));
        assert_eq!(plan(None, Some(8)).end(), Some((at(8), NoopEnd::Failed)));
    }
}
