//! How many tasks may be in hand at once, of all queues together.

use std::sync::Arc;

use tokio::sync::watch;

use crate::metrics;

/// The slots of a worker; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    count: usize,
    free: Arc<watch::Sender<usize>>,
}

/// A slot that is taken; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot(Slots);

impl Slots {
    pub(crate) fn new(count: usize) -> Self {
        let free = Arc::new(watch::Sender::new(count));
        Self { count, free }
    }

    /// How many are free; changes when one is given back, not when one is taken.
    pub(crate) fn free(&self) -> watch::Receiver<usize> {
        self.free.subscribe()
    }

    /// Takes a slot if one is free.
    pub(crate) fn take(&self) -> Option<Slot> {
        let mut left = None;
        self.free.send_if_modified(|free| {
            left = free.checked_sub(1);
            *free = left.unwrap_or(*free);
            // Whoever waits for room need not know that there is less of it.
            false
        });
        left.map(|left| {
            metrics::slots_used(self.count - left);
            Slot(self.clone())
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.free.send_modify(|free| *free += 1);
        metrics::slots_used(self.0.count - *self.0.free.borrow());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_is_given_back_is_seen_and_can_be_taken_again() {
        let slots = Slots::new(1);
        let mut free = slots.free();
        let slot = slots.take().unwrap();
        assert!(slots.take().is_none());
        assert!(!free.has_changed().unwrap());
        drop(slot);
        assert!(free.has_changed().unwrap());
        assert_eq!(*free.borrow_and_update(), 1);
        assert!(slots.take().is_some());
    }
}
