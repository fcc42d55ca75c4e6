//! Live views: what changes, watched once for all clients of this edge. Kinds of work bring their own parts ([`Part`]), each
//! started when it is first used and shared from then on; what is of no kind is here.

pub(crate) mod log_reader;
pub(crate) mod retry;
pub(crate) mod topic;
pub(crate) mod write_pacer;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, LockResult, Mutex, PoisonError};

use quintet_bus::Bus;
use quintet_service::tasks::Tasks;

use self::write_pacer::{WritePacer, WritePacers};

/// What a kind of work shares between its clients.
pub(crate) trait Part: Send + Sync + 'static {
    /// Starts it; called once.
    fn start(bus: &Bus, tasks: &Tasks) -> Self;
}

/// The parts of all kinds; clones are the same.
#[derive(Clone)]
pub(crate) struct Live(Arc<Inner>);

struct Inner {
    bus: Bus,
    tasks: Tasks,
    pacers: WritePacers,
    parts: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Live {
    pub(crate) fn new(bus: Bus, tasks: Tasks) -> Self {
        Self(Arc::new(Inner {
            bus,
            tasks,
            pacers: WritePacers::default(),
            parts: Mutex::default(),
        }))
    }

    /// The part of this type; the first call starts it.
    pub(crate) fn part<P: Part>(&self) -> Arc<P> {
        let mut parts = unpoisoned(self.0.parts.lock());
        let part = parts
            .entry(TypeId::of::<P>())
            .or_insert_with(|| Arc::new(P::start(&self.0.bus, &self.0.tasks)));
        let part = part.clone().downcast::<P>();
        part.expect("a part is stored under its own type")
    }

    /// Paces the writes to one more client.
    pub(crate) fn pacer(&self) -> WritePacer {
        self.0.pacers.register()
    }
}

/// A lock whose holder panicked is as good as any: every change under it is complete in itself.
pub(crate) fn unpoisoned<T>(lock: LockResult<T>) -> T {
    lock.unwrap_or_else(PoisonError::into_inner)
}
