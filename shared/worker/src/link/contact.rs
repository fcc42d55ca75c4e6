//! The contact rule, by which a job never runs twice.
//!
//! The owner gives an agent's restartable jobs away when it has not seen it for the heartbeat timeout and
//! some slack. The agent cannot know when its owner last saw it, but it knows when it *sent* the newest
//! message that was acknowledged, which is earlier. So it stops those jobs when that moment is further back
//! than the timeout. Finding that the pool has no leader is as good as an answer: no scheduler can give jobs away
//! then, and a new leader waits a whole timeout before it declares anyone lost.

use std::time::Duration;

use crate::clock::Moment;

/// What the agent must know about its contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Too long without: fence.
    Lost,
    /// There is contact again.
    Regained,
}

/// When the owner is last known to have seen the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contact {
    /// Never welcomed: there are no jobs to fence.
    Never,
    /// Seen at least then.
    Since(Moment),
    /// The agent was notified to fence itself.
    Fenced(Moment),
}

impl Contact {
    /// A message sent at `sent` was acknowledged. An acknowledgement that comes too late changes nothing.
    pub(super) fn acknowledged(
        &mut self,
        sent: Moment,
        now: Moment,
        limit: Duration,
    ) -> Option<Change> {
        match *self {
            Self::Never => *self = Self::Since(sent),
            Self::Since(before) => *self = Self::Since(before.max(sent)),
            Self::Fenced(_) if now.since(sent) > limit => {}
            Self::Fenced(_) => {
                *self = Self::Since(sent);
                return Some(Change::Regained);
            }
        }
        None
    }

    /// When the silence becomes too long.
    pub(super) fn ends_at(&self, limit: Duration) -> Option<Moment> {
        match *self {
            Self::Never => None,
            Self::Since(seen) | Self::Fenced(seen) => Some(seen.after(limit)),
        }
    }

    /// Whether the silence has become too long; reported once.
    pub(super) fn check(&mut self, now: Moment, limit: Duration) -> Option<Change> {
        match *self {
            Self::Since(seen) if now.since(seen) > limit => {
                *self = Self::Fenced(seen);
                Some(Change::Lost)
            }
            Self::Never | Self::Since(_) | Self::Fenced(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Moment {
        Moment::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn silence_fences_once_and_only_a_fresh_answer_ends_it() {
        let mut contact = Contact::Never;
        assert_eq!(contact.check(at(100), LIMIT), None);
        assert_eq!(contact.acknowledged(at(100), at(101), LIMIT), None);
        assert_eq!(contact.check(at(110), LIMIT), None);
        assert_eq!(contact.check(at(111), LIMIT), Some(Change::Lost));
        assert_eq!(contact.check(at(112), LIMIT), None, "reported once");
        assert_eq!(contact.acknowledged(at(101), at(112), LIMIT), None, "stale");
        assert_eq!(
            contact.acknowledged(at(111), at(112), LIMIT),
            Some(Change::Regained)
        );
        assert_eq!(contact.check(at(122), LIMIT), Some(Change::Lost));
    }

    #[test]
    fn an_older_answer_does_not_take_newer_contact_back() {
        let mut contact = Contact::Since(at(50));
        contact.acknowledged(at(45), at(51), LIMIT);
        assert_eq!(contact, Contact::Since(at(50)));
    }
}
