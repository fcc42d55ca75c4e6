//! Group commits in flight: which may begin, which are complete, and what is done then. Pure.
//!
//! ```text
//!   begin ──▶ in flight ── every write confirmed ──▶ complete: its actions are done
//!                 └────── a write rejected ────────▶ complete: the core learns of the rejection instead
//! ```
//!
//! No two commits in flight write the same record, since the revision that the second would replace is not known yet.
//! The unit of a rejection is the step: what other steps of the same commit wanted is done.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use quintet_contract::error::ErrorReply;
use tokio::time::Instant;

use crate::effects::Rejection;

/// In which order commits complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One after the other, with so many in flight at most: actions wait for every commit before theirs, also when they
    /// write nothing. For cores whose memory is ahead of what is stored.
    Pipelined(usize),
    /// Each on its own: writes of one key follow each other, those of different keys go side by side, and actions
    /// without writes are done at once.
    PerKey,
}

/// What one step wants: records by key, and the actions that wait for them.
#[derive(Debug)]
pub struct Unit<K, A> {
    /// Keys of the records that the step writes.
    pub keys: Vec<K>,
    /// What is done then.
    pub then: Vec<A>,
}

/// Names one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(u64);

/// What may happen now, in this order.
#[derive(Debug, PartialEq)]
pub enum Done<K, A> {
    /// So many records of a commit were written since then.
    Committed(usize, Instant),
    /// An action whose writes are confirmed.
    Act(A),
    /// Records that were rejected.
    Rejected(Rejection<K, A>),
}

/// Commits in flight, oldest first.
#[derive(Debug)]
pub struct Commits<K, A> {
    order: Order,
    in_flight: VecDeque<Commit<K, A>>,
    writing: HashSet<K>,
    next: u64,
}

#[derive(Debug)]
struct Commit<K, A> {
    id: CommitId,
    missing: HashSet<K>,
    keys: Vec<K>,
    rejected: HashMap<K, ErrorReply>,
    units: Vec<Unit<K, A>>,
    began: Instant,
}

impl<K: Clone + Eq + Hash, A> Commits<K, A> {
    /// Nothing is in flight.
    pub fn new(order: Order) -> Self {
        Self {
            order,
            in_flight: VecDeque::new(),
            writing: HashSet::new(),
            next: 0,
        }
    }

    /// Whether a commit of these records may begin.
    pub fn may_begin(&self, keys: &[K]) -> bool {
        let has_room = match self.order {
            Order::Pipelined(depth) => self.in_flight.len() < depth,
            Order::PerKey => true,
        };
        has_room && keys.iter().all(|key| !self.writing.contains(key))
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Begins a commit of these records, each named once; see [`Commits::may_begin`].
    pub fn begin(&mut self, keys: Vec<K>, units: Vec<Unit<K, A>>, now: Instant) -> CommitId {
        let id = CommitId(self.next);
        self.next += 1;
        self.writing.extend(keys.iter().cloned());
        self.in_flight.push_back(Commit {
            id,
            missing: keys.iter().cloned().collect(),
            keys,
            rejected: HashMap::new(),
            units,
            began: now,
        });
        id
    }

    /// A record is stored.
    pub fn confirmed(&mut self, id: CommitId, key: &K) {
        if let Some(commit) = self.commit(id) {
            commit.missing.remove(key);
        }
    }

    /// A record was rejected.
    pub fn rejected(&mut self, id: CommitId, key: K, reply: ErrorReply) {
        if let Some(commit) = self.commit(id) {
            commit.missing.remove(&key);
            commit.rejected.insert(key, reply);
        }
    }

    /// Takes what may happen now.
    pub fn take_done(&mut self) -> Vec<Done<K, A>> {
        let mut done = Vec::new();
        match self.order {
            Order::Pipelined(_) => {
                while let Some(commit) = self.in_flight.pop_front_if(|it| it.missing.is_empty()) {
                    self.complete(commit, &mut done);
                }
            }
            Order::PerKey => {
                let (complete, in_flight): (VecDeque<_>, VecDeque<_>) =
                    std::mem::take(&mut self.in_flight)
                        .into_iter()
                        .partition(|commit| commit.missing.is_empty());
                self.in_flight = in_flight;
                for commit in complete {
                    self.complete(commit, &mut done);
                }
            }
        }
        done
    }

    /// Gives up everything in flight: it is not known what of it is stored, and what was to be done then is rejected.
    pub fn abandon(&mut self, reply: &ErrorReply) -> Vec<Rejection<K, A>> {
        self.writing.clear();
        let units = std::mem::take(&mut self.in_flight).into_iter();
        let units = units.flat_map(|commit| commit.units);
        let rejections = units.map(|Unit { keys, then }| Rejection {
            keys,
            withheld: then,
            reply: reply.clone(),
        });
        rejections.collect()
    }

    fn commit(&mut self, id: CommitId) -> Option<&mut Commit<K, A>> {
        self.in_flight.iter_mut().find(|commit| commit.id == id)
    }

    fn complete(&mut self, commit: Commit<K, A>, done: &mut Vec<Done<K, A>>) {
        for key in &commit.keys {
            self.writing.remove(key);
        }
        if !commit.keys.is_empty() {
            done.push(Done::Committed(commit.keys.len(), commit.began));
        }
        for Unit { keys, then } in commit.units {
            let rejected: Vec<K> = keys
                .into_iter()
                .filter(|key| commit.rejected.contains_key(key))
                .collect();
            let reply = rejected.first().and_then(|key| commit.rejected.get(key));
            match reply {
                None => done.extend(then.into_iter().map(Done::Act)),
                Some(reply) => done.push(Done::Rejected(Rejection {
                    reply: reply.clone(),
                    keys: rejected,
                    withheld: then,
                })),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Test = Commits<&'static str, u32>;

    fn unit(keys: &[&'static str], then: &[u32]) -> Unit<&'static str, u32> {
        Unit {
            keys: keys.to_vec(),
            then: then.to_vec(),
        }
    }

    fn acts(done: Vec<Done<&'static str, u32>>) -> Vec<u32> {
        let act = |done| match done {
            Done::Act(act) => Some(act),
            Done::Committed(..) => None,
            Done::Rejected(rejection) => panic!("{rejection:?}"),
        };
        done.into_iter().filter_map(act).collect()
    }

    fn too_large() -> ErrorReply {
        ErrorReply::new(
            quintet_contract::error::ErrorCode::PayloadTooLarge,
            "too large",
        )
    }

    #[test]
    fn nothing_is_done_before_its_writes_and_every_commit_before_it_are_confirmed() {
        let mut commits = Test::new(Order::Pipelined(4));
        let first = commits.begin(
            vec!["a", "b"],
            vec![unit(&["a"], &[1]), unit(&["b"], &[2])],
            Instant::now(),
        );
        let second = commits.begin(vec!["c"], vec![unit(&["c"], &[3])], Instant::now());
        let third = commits.begin(vec![], vec![unit(&[], &[4])], Instant::now());
        assert_ne!(second, third);
        commits.confirmed(second, &"c");
        commits.confirmed(first, &"b");
        assert!(commits.take_done().is_empty());
        commits.confirmed(first, &"a");
        assert_eq!(acts(commits.take_done()), [1, 2, 3, 4]);
        assert!(commits.is_empty());
    }

    #[test]
    fn a_record_is_in_one_commit_at_a_time_and_the_pipeline_has_a_depth() {
        let mut commits = Test::new(Order::Pipelined(2));
        let first = commits.begin(vec!["a"], vec![unit(&["a"], &[1])], Instant::now());
        assert!(!commits.may_begin(&["b", "a"]));
        assert!(commits.may_begin(&["b"]));
        commits.begin(vec!["b"], vec![unit(&["b"], &[2])], Instant::now());
        assert!(!commits.may_begin(&["c"]), "two are in flight");
        assert!(!commits.may_begin(&[]));
        commits.confirmed(first, &"a");
        assert_eq!(acts(commits.take_done()), [1]);
        assert!(commits.may_begin(&["a"]));
        assert!(!commits.may_begin(&["b"]));
    }

    #[test]
    fn with_an_order_per_key_others_do_not_wait() {
        let mut commits = Test::new(Order::PerKey);
        let first = commits.begin(vec!["a"], vec![unit(&["a"], &[1])], Instant::now());
        let second = commits.begin(vec!["b"], vec![unit(&["b"], &[2])], Instant::now());
        commits.begin(vec![], vec![unit(&[], &[3])], Instant::now());
        assert_eq!(acts(commits.take_done()), [3]);
        assert!(!commits.may_begin(&["a"]));
        commits.confirmed(second, &"b");
        assert_eq!(acts(commits.take_done()), [2]);
        commits.confirmed(first, &"a");
        assert_eq!(acts(commits.take_done()), [1]);
    }

    #[test]
    fn a_rejected_record_concerns_the_steps_that_wrote_it_alone() {
        let mut commits = Test::new(Order::Pipelined(4));
        let id = commits.begin(
            vec!["a", "b"],
            vec![
                unit(&["a"], &[1]),
                unit(&["a", "b"], &[2, 3]),
                unit(&[], &[4]),
            ],
            Instant::now(),
        );
        commits.rejected(id, "b", too_large());
        assert!(
            commits.take_done().is_empty(),
            "the other write is in flight"
        );
        commits.confirmed(id, &"a");
        let rejection = Rejection {
            keys: vec!["b"],
            withheld: vec![2, 3],
            reply: too_large(),
        };
        let mut done = commits.take_done();
        assert!(matches!(done.remove(0), Done::Committed(2, _)));
        assert_eq!(
            done,
            [Done::Act(1), Done::Rejected(rejection), Done::Act(4)]
        );
        assert!(commits.may_begin(&["a", "b"]));
    }

    #[test]
    fn what_is_abandoned_is_never_done() {
        let mut commits = Test::new(Order::PerKey);
        let id = commits.begin(vec!["a"], vec![unit(&["a"], &[1])], Instant::now());
        let retry = ErrorReply::unavailable("not confirmed");
        let rejections = commits.abandon(&retry);
        assert_eq!(
            (rejections.len(), &rejections[0].withheld[..]),
            (1, &[1][..])
        );
        commits.confirmed(id, &"a");
        assert!(commits.take_done().is_empty());
        assert!(commits.may_begin(&["a"]));
    }
}
