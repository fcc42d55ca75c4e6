//! The active runs of a shard. One in which nothing happens for a while is kept as it would be stored, which
//! takes a tenth of the memory: a hundred thousand runs may sleep or wait for people.

use std::borrow::Cow;
use std::collections::HashMap;

use quintet_contract::id::RunId;
use quintet_contract::run::{RunRecord, RunStatus};
use quintet_contract::time::Timestamp;

use crate::core::active::Active;

/// Runs by their id.
#[derive(Debug, Default)]
pub(crate) struct Runs(HashMap<RunId, RunSlot>);

#[derive(Debug)]
enum RunSlot {
    Loaded(Box<Active>),
    Passivated(Box<Passivated>),
}

/// A run that waits.
#[derive(Debug)]
struct Passivated {
    status: RunStatus,
    owner: Option<Box<str>>,
    last_at: Timestamp,
    /// Its record in MessagePack.
    record: Box<[u8]>,
}

impl Passivated {
    fn of(active: &Active) -> Option<Self> {
        let run = active.run();
        Some(Self {
            status: run.status,
            owner: run.owner.as_deref().map(Box::from),
            last_at: active.last_at(),
            record: rmp_serde::to_vec_named(&active.record()).ok()?.into(),
        })
    }

    fn unpacked(&self) -> Active {
        let record: RunRecord = rmp_serde::from_slice(&self.record)
            .expect("what was written from a record a moment ago is a record");
        Active::reloaded(record, self.last_at)
    }
}

impl Runs {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn contains(&self, id: &RunId) -> bool {
        self.0.contains_key(id)
    }

    /// Takes a run out, to do something with it.
    pub(crate) fn remove(&mut self, id: &RunId) -> Option<Active> {
        Some(match self.0.remove(id)? {
            RunSlot::Loaded(active) => *active,
            RunSlot::Passivated(passivated) => passivated.unpacked(),
        })
    }

    pub(crate) fn insert(&mut self, active: Active) {
        self.0
            .insert(active.id(), RunSlot::Loaded(Box::new(active)));
    }

    /// The same for a run that was settled; it is passivated if that changes nothing about it.
    pub(crate) fn passivate_if_quiet(&mut self, active: Active) {
        let passivated = active.may_be_passivated().then(|| Passivated::of(&active));
        match passivated.flatten() {
            Some(passivated) => {
                let slot = RunSlot::Passivated(Box::new(passivated));
                self.0.insert(active.id(), slot);
            }
            None => self.insert(active),
        }
    }

    /// A run to look at.
    pub(crate) fn get(&self, id: &RunId) -> Option<Cow<'_, Active>> {
        Some(match self.0.get(id)? {
            RunSlot::Loaded(active) => Cow::Borrowed(active),
            RunSlot::Passivated(passivated) => Cow::Owned(passivated.unpacked()),
        })
    }

    #[cfg(test)]
    pub(crate) fn passivated(&self) -> usize {
        let slots = self.0.values();
        slots
            .filter(|slot| matches!(slot, RunSlot::Passivated(_)))
            .count()
    }

    /// A run of which something may not be stored yet.
    pub(crate) fn awake_mut(&mut self, id: &RunId) -> Option<&mut Active> {
        match self.0.get_mut(id)? {
            RunSlot::Loaded(active) => Some(active),
            RunSlot::Passivated(_) => None,
        }
    }

    /// A run to change; it is to be settled again.
    pub(crate) fn get_mut(&mut self, id: &RunId) -> Option<&mut Active> {
        let slot = self.0.get_mut(id)?;
        if let RunSlot::Passivated(passivated) = slot {
            *slot = RunSlot::Loaded(Box::new(passivated.unpacked()));
        }
        match slot {
            RunSlot::Loaded(active) => Some(active),
            RunSlot::Passivated(_) => None,
        }
    }

    pub(crate) fn status(&self, id: &RunId) -> Option<RunStatus> {
        Some(match self.0.get(id)? {
            RunSlot::Loaded(active) => active.status(),
            RunSlot::Passivated(passivated) => passivated.status,
        })
    }

    /// Every run with its status and its owner.
    pub(crate) fn all(&self) -> impl Iterator<Item = (RunId, RunStatus, Option<&str>)> {
        self.0.iter().map(|(id, slot)| match slot {
            RunSlot::Loaded(active) => (*id, active.status(), active.run().owner.as_deref()),
            RunSlot::Passivated(passivated) => {
                (*id, passivated.status, passivated.owner.as_deref())
            }
        })
    }
}
