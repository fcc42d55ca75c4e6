//! Writes that the store rejects: too large, or not allowed. Only their run is concerned.
//!
//! ```text
//!   first record ──▶ its creation is refused
//!   several entries ──▶ written one by one ──▶ a checkpoint of a client: refused
//!                                        └──▶ anything else: stored without what makes it large, and the run fails
//!   last record ──▶ stored without outputs
//! ```

use std::collections::hash_map::Entry;

use quintet_contract::error::ErrorReply;
use quintet_contract::id::RunId;
use quintet_contract::run::RunStatus;
use quintet_contract::time::Timestamp;

use crate::core::active::{Consequence, Deferred};
use crate::core::event::{Action, Answer, Rejection};
use crate::core::{Core, Effects, Pending};

impl Core {
    pub(super) fn write_rejected(
        &mut self,
        rejection: Rejection,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        // What waits for an entry waits in its run; so none of this depends on the write.
        effects.then.extend(rejection.withheld);
        for run in rejection.keys {
            self.run_rejected(run, &rejection.reply, now, effects);
        }
    }

    fn run_rejected(
        &mut self,
        run: RunId,
        why: &ErrorReply,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(mut active) = self.runs.remove(&run) else {
            return;
        };
        match active.rejected(now) {
            Consequence::Retry => {}
            Consequence::Refuse(deferred) => self.refuse(deferred, why, effects),
            Consequence::Fail(requests) => {
                self.refuse_requests(requests, why, effects);
                let error = format!("what happened in it cannot be stored: {}", why.error);
                self.with(active, now, effects, |reconciler| {
                    if !reconciler.active.status().is_final() {
                        reconciler.end(RunStatus::Failed, Some(error));
                    }
                });
                return;
            }
            Consequence::GiveUp(deferred) => {
                self.refuse(deferred, why, effects);
                self.forget(run, effects);
                return;
            }
        }
        self.runs.insert(active);
        self.touched.insert(run);
    }

    /// Refuses what clients want stored. Workers, whose reports were processed, wait until that is stored.
    fn refuse_requests(&mut self, requests: Vec<u64>, why: &ErrorReply, effects: &mut Effects) {
        for request in requests {
            let is_of_client = |pending: &mut Pending| !is_of_worker(&pending.action);
            if let Entry::Occupied(mut pending) = self.pending.entry(request)
                && is_of_client(pending.get_mut())
            {
                effects.act(refused(pending.remove().action, why));
            }
        }
    }

    /// Refuses requests; what was reported by workers is not refused, since it was processed.
    fn refuse(&mut self, deferred: Vec<Deferred>, why: &ErrorReply, effects: &mut Effects) {
        for deferred in deferred {
            let Deferred::Reply(request) = deferred else {
                continue;
            };
            let Some(Pending { action, .. }) = self.pending.remove(&request) else {
                continue;
            };
            effects.act(refused(action, why));
        }
    }
}

fn is_of_worker(action: &Action) -> bool {
    match action {
        Action::Reply(reply) => matches!(reply.answer(), Answer::Reports(_)),
        Action::ReplyWithResume(..) => true,
        _ => false,
    }
}

/// The refusal of a client's request, in place of its answer. What answers a worker stays as it is.
fn refused(action: Action, why: &ErrorReply) -> Action {
    match action {
        action if is_of_worker(&action) => action,
        Action::Reply(reply) => Action::Reply(reply.refused(why.clone())),
        Action::Read(request, _) => Action::Reply(request.reply(Err(why.clone()))),
        Action::List(request, ..) => Action::Reply(request.reply(Err(why.clone()))),
        action => action,
    }
}
