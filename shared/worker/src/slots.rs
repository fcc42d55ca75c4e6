//! Slots: how much a worker does at once.

use std::sync::Arc;

use metrics::Gauge;
use tokio::sync::watch;

/// The slots of a worker; clones share them.
///
/// ```
/// use quintet_worker::Slots;
///
/// let slots = Slots::new(1, metrics::Gauge::noop());
/// let slot = slots.take().expect("one is free");
/// assert!(slots.take().is_none());
/// drop(slot);
/// assert_eq!(slots.used(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct Slots {
    count: usize,
    free: Arc<watch::Sender<usize>>,
    /// Shows how many are in use.
    gauge: Gauge,
}

/// A slot that is taken; free again when it is dropped.
#[derive(Debug)]
pub struct Slot(Slots);

impl Slots {
    /// So many, all free; the gauge shows how many are in use.
    pub fn new(count: usize, gauge: Gauge) -> Self {
        let free = Arc::new(watch::Sender::new(count));
        Self { count, free, gauge }
    }

    /// How many are free; changes when one is released, not when one is taken.
    pub fn free(&self) -> watch::Receiver<usize> {
        self.free.subscribe()
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// How many are in use.
    pub fn used(&self) -> usize {
        self.count - *self.free.borrow()
    }

    /// Takes a slot if one is free.
    pub fn take(&self) -> Option<Slot> {
        let mut left = None;
        self.free.send_if_modified(|free| {
            left = free.checked_sub(1);
            *free = left.unwrap_or(*free);
            // A worker that waits for a free slot need not know that there is one less.
            false
        });
        left.map(|left| {
            self.gauge.set((self.count - left) as f64);
            Slot(self.clone())
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.free.send_modify(|free| *free += 1);
        self.0.gauge.set(self.0.used() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_slot_is_seen_and_can_be_taken_again() {
        let slots = Slots::new(1, Gauge::noop());
        let mut free = slots.free();
        let slot = slots.take().unwrap();
        assert!(slots.take().is_none());
        assert_eq!(slots.used(), 1);
        assert!(!free.has_changed().unwrap());
        drop(slot);
        assert!(free.has_changed().unwrap());
        assert_eq!(*free.borrow_and_update(), 1);
        assert!(slots.take().is_some());
    }
}
