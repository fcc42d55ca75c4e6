//! Election from the point of view of one candidate: whether it may take over, or why not. Pure.
//!
//! ```text
//!   campaigning ── not refused for a while ──▶ standby ◀─────────────┐
//!        └── the lease cannot be tried for ──▶ unreachable ── not refused for a while
//! ```
//!
//! The lease itself is in the bus. What is decided here is what the candidate reports about itself, and whether it looks
//! for another server.

use std::time::Duration;

use tokio::time::Instant;

/// How a candidate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateStatus {
    /// It has just begun to try.
    Campaigning,
    /// It tries, and another process holds the lease.
    Standby,
    /// The lease cannot even be tried for: this server, or most of its cluster, does not answer.
    Unreachable,
}

/// One campaign for a lease.
#[derive(Clone, Copy, Debug)]
pub struct Election {
    standby_after: Duration,
    status: CandidateStatus,
    decides_at: Instant,
}

impl Election {
    /// Begins to try; a candidate that fails at nothing for `standby_after` stands by.
    pub fn begin(standby_after: Duration, now: Instant) -> Self {
        Self {
            standby_after,
            status: CandidateStatus::Campaigning,
            decides_at: now + standby_after,
        }
    }

    /// How the candidate stands.
    pub fn status(&self) -> CandidateStatus {
        self.status
    }

    /// When [`Election::stand_by`] is due, if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        match self.status {
            CandidateStatus::Campaigning | CandidateStatus::Unreachable => Some(self.decides_at),
            CandidateStatus::Standby => None,
        }
    }

    /// The lease can be tried for, and is another's.
    pub fn stand_by(&mut self) {
        self.status = CandidateStatus::Standby;
    }

    /// The lease could not be tried for. Whether that is news.
    pub fn fail(&mut self, now: Instant) -> bool {
        let is_new = self.status != CandidateStatus::Unreachable;
        self.status = CandidateStatus::Unreachable;
        self.decides_at = now + self.standby_after;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(2);

    #[test]
    fn a_candidate_that_fails_at_nothing_stands_by() {
        let start = Instant::now();
        let mut election = Election::begin(WAIT, start);
        assert_eq!(election.deadline(), Some(start + WAIT));
        election.stand_by();
        assert_eq!(
            (election.status(), election.deadline()),
            (CandidateStatus::Standby, None)
        );
    }

    #[test]
    fn a_failure_is_news_once_and_is_over_when_none_followed_for_a_while() {
        let start = Instant::now();
        let mut election = Election::begin(WAIT, start);
        assert!(election.fail(start));
        let later = start + Duration::from_secs(1);
        assert!(!election.fail(later));
        assert_eq!(election.status(), CandidateStatus::Unreachable);
        assert_eq!(election.deadline(), Some(later + WAIT));
        election.stand_by();
        assert!(election.fail(later + WAIT), "it is news again");
    }
}
