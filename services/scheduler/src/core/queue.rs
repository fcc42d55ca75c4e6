//! Queue: jobs that wait for an agent, ordered by priority, then age, in classes of equal demand.
//!
//! All jobs of a class can go to the same agents, so a class whose head finds none is skipped as a whole:
//! a hundred thousand jobs that no agent can serve cost as much as one, and block no other. Such a class is closed:
//! until an agent comes free or announces more capabilities, another look would find the same.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use quintet_contract::id::JobId;
use quintet_contract::time::Timestamp;

/// The class of a job: its demand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Class {
    /// Requirements and executor, in one canonical text.
    pub(super) demand: String,
    /// A job that agents have rejected has backoffs of its own, hence a class of its own.
    pub(super) alone: Option<JobId>,
}

/// A job's place in its class: first is next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    priority: Reverse<i32>,
    created_at: Timestamp,
    /// The job.
    pub(super) id: JobId,
}

impl Rank {
    pub(super) fn new(priority: i32, created_at: Timestamp, id: JobId) -> Self {
        Self {
            priority: Reverse(priority),
            created_at,
            id,
        }
    }
}

/// The waiting jobs.
#[derive(Debug, Default)]
pub(super) struct Queue {
    classes: BTreeMap<Class, BTreeSet<Rank>>,
    /// Classes that none of the agents that were free then can serve are not here.
    open: BTreeSet<Class>,
    candidates: HashMap<JobId, (Class, Rank)>,
}

impl Queue {
    pub(super) fn insert(&mut self, class: Class, rank: Rank) {
        self.remove(&rank.id);
        self.candidates
            .insert(rank.id.clone(), (class.clone(), rank.clone()));
        let ranks = self.classes.entry(class.clone()).or_default();
        if ranks.is_empty() {
            self.open.insert(class);
        }
        ranks.insert(rank);
    }

    pub(super) fn remove(&mut self, id: &JobId) {
        if let Some((class, rank)) = self.candidates.remove(id)
            && let Some(ranks) = self.classes.get_mut(&class)
        {
            ranks.remove(&rank);
            if ranks.is_empty() {
                self.classes.remove(&class);
                self.open.remove(&class);
            }
        }
    }

    /// The next job of every class, best first.
    pub(super) fn heads(&self) -> BTreeSet<(Rank, Class)> {
        self.heads_of(self.classes.keys())
    }

    /// The same without the closed classes.
    pub(super) fn open_heads(&self) -> BTreeSet<(Rank, Class)> {
        self.heads_of(self.open.iter())
    }

    fn heads_of<'q>(&self, classes: impl Iterator<Item = &'q Class>) -> BTreeSet<(Rank, Class)> {
        let heads = classes.filter_map(|class| Some((self.head(class)?, class.clone())));
        heads.collect()
    }

    pub(super) fn is_open(&self, class: &Class) -> bool {
        self.open.contains(class)
    }

    /// None of the agents that are free can serve this class.
    pub(super) fn close(&mut self, class: &Class) {
        self.open.remove(class);
    }

    /// The next job of one class.
    pub(super) fn head(&self, class: &Class) -> Option<Rank> {
        self.classes
            .get(class)
            .and_then(|ranks| ranks.first().cloned())
    }

    /// Every waiting job, in no particular order.
    pub(super) fn ids(&self) -> impl Iterator<Item = &JobId> {
        self.candidates.keys()
    }

    pub(super) fn len(&self) -> usize {
        self.candidates.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> JobId {
        JobId::parse(text).unwrap()
    }

    #[test]
    fn the_head_is_the_highest_priority_then_the_oldest() {
        let mut queue = Queue::default();
        let class = Class {
            demand: String::new(),
            alone: None,
        };
        for (name, priority, at) in [("a", 0, 1), ("b", 5, 3), ("c", 5, 2)] {
            queue.insert(
                class.clone(),
                Rank::new(priority, Timestamp::from_millis(at), id(name)),
            );
        }
        let mut order = Vec::new();
        while let Some(rank) = queue.head(&class) {
            order.push(rank.id.to_string());
            queue.remove(&rank.id);
        }
        assert_eq!(order, ["c", "b", "a"]);
        assert!(queue.is_empty());
    }
}
