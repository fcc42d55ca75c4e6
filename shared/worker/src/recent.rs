//! The newest keys that were seen, bounded: what makes a repeated message harmless without a list that
//! grows for ever.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

/// Remembers the newest `capacity` keys.
#[derive(Clone, Debug)]
pub struct Recent<K> {
    known: HashSet<K>,
    order: VecDeque<K>,
    capacity: usize,
}

impl<K: Clone + Eq + Hash> Recent<K> {
    /// An empty memory for at most `capacity` keys.
    pub fn new(capacity: usize) -> Self {
        Self {
            known: HashSet::new(),
            order: VecDeque::new(),
            capacity,
        }
    }

    /// Remembers a key. Whether it was new.
    pub fn insert(&mut self, key: K) -> bool {
        if !self.known.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    /// Whether the key is remembered.
    pub fn contains(&self, key: &K) -> bool {
        self.known.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_keys_are_remembered_and_the_oldest_forgotten() {
        let mut recent = Recent::new(2);
        assert!(recent.insert(1));
        assert!(!recent.insert(1));
        assert!(recent.insert(2));
        assert!(recent.insert(3));
        assert!(!recent.contains(&1));
        assert!(recent.contains(&2) && recent.contains(&3));
    }
}
