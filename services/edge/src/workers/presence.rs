//! The presence of workers: the last heartbeat of each, until its time to live is over.
//!
//! ```text
//!   heartbeat ──▶ present ──heartbeat──▶ present
//!                    │ goodbye · TTL over
//!                    ▼
//!                   gone
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use quintet_bus::{Bus, now};
use quintet_contract::id::WorkerId;
use quintet_contract::subject::WorkerHeartbeats;
use quintet_contract::time::Timestamp;
use quintet_contract::worker::{MAX_WORK_ITEMS, Worker, WorkerHeartbeat, WorkerKind};
use quintet_service::tasks::{ExitPolicy, Tasks};
use tokio::time::Instant;

use crate::live::topic::{relay, subscribe};
use crate::live::{Part, unpoisoned};

/// Most workers that are known at once; further ones are not listed.
const MAX_WORKERS: usize = 20_000;
/// Most models, queues and effects of a worker that are listed.
const MAX_NAMES: usize = 256;
/// Longest time to live that a worker may ask for.
const MAX_TTL: Duration = Duration::from_secs(600);

/// The workers that are present, by their heartbeats on the bus.
pub(crate) struct Presence {
    registry: Arc<Mutex<Registry>>,
}

impl Part for Presence {
    fn start(bus: &Bus, tasks: &Tasks) -> Self {
        let registry = Arc::<Mutex<Registry>>::default();
        let (bus, shared, stop) = (bus.clone(), registry.clone(), tasks.token());
        tasks.spawn("workers", ExitPolicy::Essential, async move {
            // One filter per kind: what agents and runners publish beside them is not received.
            let kinds = WorkerKind::ALL.iter().map(|kind| {
                let (bus, shared, stop) = (bus.clone(), shared.clone(), stop.clone());
                let filter = WorkerHeartbeats::filter(bus.prefix(), Some(kind), None);
                async move {
                    let deliveries = subscribe::<WorkerHeartbeats>(&bus, &filter).await;
                    relay(bus, filter, deliveries, stop, |delivery| {
                        let mut registry = unpoisoned(shared.lock());
                        registry.record(delivery.subject, delivery.message, Instant::now(), now());
                    })
                    .await;
                }
            });
            let _ = stop.run_until_cancelled(join_all(kinds)).await;
            Ok::<_, Infallible>(())
        });
        Self { registry }
    }
}

impl Presence {
    /// The workers that are present now, of one kind or of every kind, by kind and id.
    pub(crate) fn list(&self, kind: Option<WorkerKind>) -> Vec<Worker> {
        unpoisoned(self.registry.lock()).list(kind, Instant::now())
    }

    /// Shows a worker as drained or not, before its next heartbeat shows it.
    pub(crate) fn note_drain(&self, kind: WorkerKind, worker: &WorkerId, drain: bool) {
        let mut registry = unpoisoned(self.registry.lock());
        if let Some(present) = registry.0.get_mut(&(kind, worker.clone())) {
            present.heartbeat.draining = drain;
        }
    }
}

/// Every worker by its last heartbeat. Pure: time is passed in.
#[derive(Debug, Default)]
struct Registry(BTreeMap<(WorkerKind, WorkerId), Present>);

#[derive(Debug)]
struct Present {
    heartbeat: WorkerHeartbeat,
    seen_at: Timestamp,
    gone_at: Instant,
}

impl Registry {
    /// Takes over a heartbeat.
    fn record(
        &mut self,
        WorkerHeartbeats { kind, worker }: WorkerHeartbeats,
        mut heartbeat: WorkerHeartbeat,
        now: Instant,
        seen_at: Timestamp,
    ) {
        let key = (kind, worker);
        let earlier = self.0.get(&key);
        // Of two programs under one name the later one counts while it is present.
        let is_outdated = earlier.is_some_and(|present| {
            now < present.gone_at && heartbeat.session < present.heartbeat.session
        });
        if is_outdated {
            return;
        }
        if heartbeat.leaves {
            self.0.remove(&key);
            return;
        }
        if earlier.is_none() && self.0.len() >= MAX_WORKERS {
            self.0.retain(|_, present| now < present.gone_at);
            if self.0.len() >= MAX_WORKERS {
                return;
            }
        }
        heartbeat.work.truncate(MAX_WORK_ITEMS);
        heartbeat.queues.truncate(MAX_NAMES);
        heartbeat.models.truncate(MAX_NAMES);
        heartbeat.effects.truncate(MAX_NAMES);
        let ttl = heartbeat.ttl_ms.unwrap_or(kind.default_ttl_ms());
        let present = Present {
            heartbeat,
            seen_at,
            gone_at: now + Duration::from_millis(ttl).min(MAX_TTL),
        };
        self.0.insert(key, present);
    }

    fn list(&mut self, kind: Option<WorkerKind>, now: Instant) -> Vec<Worker> {
        self.0.retain(|_, present| now < present.gone_at);
        let present = self.0.iter();
        present
            .filter(|((of, _), _)| kind.is_none_or(|kind| kind == *of))
            .map(|((kind, id), present)| present.show(*kind, id, now))
            .collect()
    }
}

impl Present {
    fn show(&self, kind: WorkerKind, id: &WorkerId, now: Instant) -> Worker {
        let heartbeat = self.heartbeat.clone();
        let ttl = self.gone_at.saturating_duration_since(now).as_millis();
        Worker {
            state: heartbeat.state(),
            name: match heartbeat.name.is_empty() {
                true => id.to_string(),
                false => heartbeat.name,
            },
            id: id.clone(),
            kind,
            version: heartbeat.version,
            host: heartbeat.host,
            load: heartbeat.load,
            queues: heartbeat.queues,
            models: heartbeat.models,
            effects: heartbeat.effects,
            work: heartbeat.work,
            last_seen_at: self.seen_at,
            ttl_ms: u64::try_from(ttl).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use quintet_contract::worker::WorkerState;

    use super::*;

    fn heartbeat(session: &str) -> WorkerHeartbeat {
        WorkerHeartbeat {
            session: session.to_owned(),
            ttl_ms: Some(6_000),
            ..WorkerHeartbeat::default()
        }
    }

    fn record(registry: &mut Registry, heartbeat: WorkerHeartbeat, now: Instant) {
        let subject = WorkerHeartbeats {
            kind: WorkerKind::Run,
            worker: WorkerId::parse("w").unwrap(),
        };
        registry.record(subject, heartbeat, now, Timestamp::from_millis(0));
    }

    #[test]
    fn a_worker_is_listed_until_its_time_to_live_is_over_or_it_leaves() {
        let (mut registry, start) = (Registry::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        record(&mut registry, heartbeat("1"), at(0));
        let ttl = |registry: &mut Registry, now| {
            let list = registry.list(Some(WorkerKind::Run), now);
            list.first().map(|worker| worker.ttl_ms)
        };
        assert_eq!(ttl(&mut registry, at(1_000)), Some(5_000));
        record(&mut registry, heartbeat("1"), at(2_000));
        assert_eq!(ttl(&mut registry, at(7_999)), Some(1));
        assert_eq!(registry.list(Some(WorkerKind::Tts), at(7_999)), []);
        assert_eq!(ttl(&mut registry, at(8_000)), None);
        record(&mut registry, heartbeat("1"), at(9_000));
        let goodbye = WorkerHeartbeat {
            leaves: true,
            ..heartbeat("1")
        };
        record(&mut registry, goodbye, at(9_000));
        assert_eq!(ttl(&mut registry, at(9_000)), None);
    }

    #[test]
    fn the_later_of_two_programs_under_one_name_counts_while_it_is_present() {
        let (mut registry, start) = (Registry::default(), Instant::now());
        let draining = WorkerHeartbeat {
            draining: true,
            ..heartbeat("2")
        };
        record(&mut registry, draining, start);
        let goodbye = WorkerHeartbeat {
            leaves: true,
            ..heartbeat("1")
        };
        record(&mut registry, heartbeat("1"), start);
        record(&mut registry, goodbye, start);
        let state = |registry: &mut Registry, now| registry.list(None, now)[0].state;
        assert_eq!(state(&mut registry, start), WorkerState::Draining);
        let later = start + Duration::from_secs(6);
        record(&mut registry, heartbeat("1"), later);
        assert_eq!(state(&mut registry, later), WorkerState::Ready);
    }
}
