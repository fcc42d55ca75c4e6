//! What is in hand: where a command finds its task, and where a task that comes again waits for its earlier self.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quintet_contract::id::{NodeId, RunId};
use quintet_contract::job::Attempt;

use crate::outbox::{Account, Stop};

type Key = (RunId, NodeId);

/// Every task in hand, by its run and node: one at a time of each.
#[derive(Debug, Default)]
pub(crate) struct Desk(Mutex<HashMap<Key, Place>>);

#[derive(Debug)]
struct Place {
    account: Arc<Account>,
    /// An attempt that was canceled before its grant was heard.
    canceled: Option<Attempt>,
}

/// A task's place on the desk, left when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    desk: Arc<Desk>,
    key: Key,
    account: Arc<Account>,
}

impl Desk {
    /// Takes the place of a task. While an earlier delivery of it has the place, its account is given instead: the new
    /// one waits for its end, so that no node ever runs twice here.
    pub(crate) fn sit(self: &Arc<Self>, account: &Arc<Account>) -> Result<Seat, Arc<Account>> {
        let key = (account.run_id, account.node_id.clone());
        match self.places().entry(key.clone()) {
            Entry::Occupied(taken) => Err(taken.get().account.clone()),
            Entry::Vacant(free) => {
                free.insert(Place {
                    account: account.clone(),
                    canceled: None,
                });
                let (desk, account) = (self.clone(), account.clone());
                Ok(Seat { desk, key, account })
            }
        }
    }

    /// Stops an attempt, if it is here.
    pub(crate) fn cancel(&self, run_id: RunId, node_id: NodeId, attempt: Attempt) {
        let mut places = self.places();
        let Some(place) = places.get_mut(&(run_id, node_id)) else {
            return;
        };
        match place.account.attempt() {
            Attempt(0) => place.canceled = Some(attempt),
            found if found == attempt => place.account.stop(Stop::Canceled),
            _ => {}
        }
    }

    /// Stops everything.
    pub(crate) fn stop_all(&self) {
        for place in self.places().values() {
            place.account.stop(Stop::Drained);
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Key, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Notes which attempt was granted; one that was canceled meanwhile is stopped at once.
    pub(crate) fn grant(&self, attempt: Attempt) {
        let places = self.desk.places();
        self.account.grant(attempt);
        let canceled = places.get(&self.key).and_then(|place| place.canceled);
        if canceled == Some(attempt) {
            self.account.stop(Stop::Canceled);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.desk.places().remove(&self.key);
        self.account.end();
    }
}

#[cfg(test)]
mod tests {
    use quintet_contract::id::WorkerId;
    use quintet_worker::output::LogLimits;
    use tokio::sync::mpsc;

    use super::*;

    fn account(key: &Key) -> Arc<Account> {
        let (outbox, _) = mpsc::channel(1);
        let worker = WorkerId::parse("w").unwrap();
        Account::new(key.clone(), worker, outbox, LogLimits::default())
    }

    fn key() -> Key {
        (quintet_bus::new_run_id(), NodeId::default())
    }

    fn stopped(account: &Account) -> Option<Stop> {
        account.stopping().borrow().clone()
    }

    #[test]
    fn a_task_that_comes_again_waits_until_the_first_has_left() {
        let (desk, key) = (Arc::new(Desk::default()), key());
        let (first, second) = (account(&key), account(&key));
        let seat = desk.sit(&first).unwrap();
        let earlier = desk.sit(&second).unwrap_err();
        assert!(!earlier.has_ended());
        drop(seat);
        assert!(earlier.has_ended());
        assert!(desk.sit(&second).is_ok());
    }

    #[test]
    fn only_the_attempt_that_is_meant_is_canceled_also_when_its_grant_comes_later() {
        let (desk, key) = (Arc::new(Desk::default()), key());
        let (run, node) = key.clone();
        let account = account(&key);
        let seat = desk.sit(&account).unwrap();
        desk.cancel(run, node.clone(), Attempt(2));
        seat.grant(Attempt(1));
        assert_eq!(stopped(&account), None);
        desk.cancel(run, node.clone(), Attempt(2));
        assert_eq!(stopped(&account), None);
        seat.grant(Attempt(2));
        assert_eq!(stopped(&account), Some(Stop::Canceled));
    }
}
