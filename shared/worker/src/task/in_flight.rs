//! Tasks in flight: commands find their task here, and a redelivered task waits for its earlier delivery.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quintet_contract::cause::CausedBy;
use quintet_contract::id::{NodeId, RunId};
use quintet_contract::job::Attempt;
use quintet_contract::worker::{MAX_WORK_ITEMS, WorkItem};

use super::task_reporter::{Stop, TaskReporter};

type Key = (RunId, NodeId);

/// Every task in flight, by its run and node: one at a time of each.
///
/// It holds [`TaskReporter`]s and nothing else: what it decides, by attempts and grants, is the protocol of run tasks.
#[derive(Debug, Default)]
pub struct InFlight(Mutex<HashMap<Key, Claim>>);

#[derive(Debug)]
struct Claim {
    reporter: Arc<TaskReporter>,
    /// An attempt that was canceled before its grant came.
    canceled: Option<Attempt>,
}

/// The claim of a delivery on its task, released when this is dropped.
#[derive(Debug)]
pub struct InFlightGuard {
    in_flight: Arc<InFlight>,
    key: Key,
    reporter: Arc<TaskReporter>,
}

impl InFlight {
    /// Claims a task. While an earlier delivery of it holds the claim, its reporter is returned instead: the new
    /// one waits for its end, so that no node ever runs twice here.
    pub fn try_claim(
        self: &Arc<Self>,
        reporter: &Arc<TaskReporter>,
    ) -> Result<InFlightGuard, Arc<TaskReporter>> {
        let key = (reporter.run_id, reporter.node_id.clone());
        match self.claims().entry(key.clone()) {
            Entry::Occupied(taken) => Err(taken.get().reporter.clone()),
            Entry::Vacant(free) => {
                free.insert(Claim {
                    reporter: reporter.clone(),
                    canceled: None,
                });
                let (in_flight, reporter) = (self.clone(), reporter.clone());
                Ok(InFlightGuard {
                    in_flight,
                    key,
                    reporter,
                })
            }
        }
    }

    /// Stops an attempt, if it is here.
    pub fn cancel(&self, run_id: RunId, node_id: NodeId, attempt: Attempt) {
        let mut claims = self.claims();
        let Some(claim) = claims.get_mut(&(run_id, node_id)) else {
            return;
        };
        match claim.reporter.attempt() {
            Attempt(0) => claim.canceled = Some(attempt),
            found if found == attempt => claim.reporter.stop(Stop::Canceled),
            _ => {}
        }
    }

    /// Stops everything.
    pub fn stop_all(&self) {
        for claim in self.claims().values() {
            claim.reporter.stop(Stop::Drained);
        }
    }

    /// What is worked on, for a heartbeat: at most [`MAX_WORK_ITEMS`] tasks.
    pub fn work(&self) -> Vec<WorkItem> {
        let claims = self.claims();
        let items = claims.iter().take(MAX_WORK_ITEMS);
        let items = items.map(|((run, node), claim)| WorkItem {
            work: CausedBy::node(*run, node),
            attempt: Some(claim.reporter.attempt()).filter(|attempt| *attempt != Attempt(0)),
        });
        items.collect()
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<Key, Claim>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlightGuard {
    /// Notes which attempt was granted; one that was canceled meanwhile is stopped at once.
    pub fn grant(&self, attempt: Attempt) {
        let claims = self.in_flight.claims();
        self.reporter.grant(attempt);
        let canceled = claims.get(&self.key).and_then(|claim| claim.canceled);
        if canceled == Some(attempt) {
            self.reporter.stop(Stop::Canceled);
        }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.in_flight.claims().remove(&self.key);
        self.reporter.end();
    }
}

#[cfg(test)]
mod tests {
    use quintet_contract::id::WorkerId;
    use tokio::sync::mpsc;

    use super::*;
    use crate::output::LogLimits;

    fn reporter(key: &Key) -> Arc<TaskReporter> {
        let (outbox, _) = mpsc::channel(1);
        let worker = WorkerId::parse("w").unwrap();
        TaskReporter::new(key.clone(), worker, outbox, LogLimits::default())
    }

    fn key() -> Key {
        (quintet_bus::new_run_id(), NodeId::default())
    }

    fn stopped(reporter: &TaskReporter) -> Option<Stop> {
        reporter.stopping().borrow().clone()
    }

    #[test]
    fn a_task_that_comes_again_waits_until_the_first_has_left() {
        let (in_flight, key) = (Arc::new(InFlight::default()), key());
        let (first, second) = (reporter(&key), reporter(&key));
        let guard = in_flight.try_claim(&first).unwrap();
        let earlier = in_flight.try_claim(&second).unwrap_err();
        assert!(!earlier.has_ended());
        drop(guard);
        assert!(earlier.has_ended());
        assert!(in_flight.try_claim(&second).is_ok());
    }

    #[test]
    fn only_the_attempt_that_is_meant_is_canceled_also_when_its_grant_comes_later() {
        let (in_flight, key) = (Arc::new(InFlight::default()), key());
        let (run, node) = key.clone();
        let reporter = reporter(&key);
        let guard = in_flight.try_claim(&reporter).unwrap();
        in_flight.cancel(run, node.clone(), Attempt(2));
        guard.grant(Attempt(1));
        assert_eq!(stopped(&reporter), None);
        in_flight.cancel(run, node.clone(), Attempt(2));
        assert_eq!(stopped(&reporter), None);
        guard.grant(Attempt(2));
        assert_eq!(stopped(&reporter), Some(Stop::Canceled));
    }

    #[test]
    fn a_heartbeat_names_what_is_in_flight_with_its_attempt() {
        let (in_flight, key) = (Arc::new(InFlight::default()), key());
        let guard = in_flight.try_claim(&reporter(&key)).unwrap();
        let item = |attempt| WorkItem {
            work: CausedBy::node(key.0, &key.1),
            attempt,
        };
        assert_eq!(in_flight.work(), [item(None)]);
        guard.grant(Attempt(3));
        assert_eq!(in_flight.work(), [item(Some(Attempt(3)))]);
        drop(guard);
        assert_eq!(in_flight.work(), []);
    }
}
