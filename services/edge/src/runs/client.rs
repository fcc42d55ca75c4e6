//! The client of the runners: one function per request. Which runner is asked follows from the id of the run.
//!
//! Every request may be sent again, since ids are made here. Where a repetition is rejected because the first request had
//! arrived after all, it counts as done.

use std::time::Duration;

use axum::extract::FromRef;
use futures::future::try_join_all;
use quintet_bus::{RequestError, new_run_id};
use quintet_contract::bucket::{RunKey, Runs};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::{RunId, RunShard};
use quintet_contract::run::{NodeStatus, Run, RunStatus};
use quintet_contract::run_api::{
    AddCheckpoint, CompleteRun, CreateRun, DecideGate, Decision, ListRuns, MAX_RUNS_PAGE,
    PlanReply, PlanRun, RunRef, RunReply,
};
use quintet_contract::subject::{
    AddRunCheckpoint, CancelRun, CompleteRuns, CreateRuns, DecideGates, GetRun, ListRunsOf,
    PlanRuns, Request,
};

use super::payloads;
use crate::error::HttpError;
use crate::state::App;

/// How long the first answer to a request that changes a run may take before it is asked again.
const FIRST_TIMEOUT: Duration = Duration::from_secs(2);

/// The answer of a runner to a request that changes a run.
enum Outcome<T> {
    /// It is done.
    Done(T),
    /// It is refused, but the request had been sent before without an answer: perhaps it was done then.
    RejectedOnRetry(ErrorReply),
}

/// What handlers ask about runs.
#[derive(Clone)]
pub(crate) struct RunsClient {
    app: App,
}

impl FromRef<App> for RunsClient {
    fn from_ref(app: &App) -> Self {
        Self { app: app.clone() }
    }
}

impl RunsClient {
    pub(crate) async fn plan_run(&self, plan: &PlanRun) -> Result<PlanReply, HttpError> {
        self.app.request(&PlanRuns {}, plan).await
    }

    pub(crate) async fn create_run(&self, create: &CreateRun) -> Result<Run, HttpError> {
        let shard = RunShard::of(create.run_id);
        Ok(self.app.request(&CreateRuns { shard }, create).await?.run)
    }

    /// A run as its owner knows it; as it is stored, when it has ended.
    pub(crate) async fn run(&self, run_id: RunId) -> Result<RunReply, HttpError> {
        let subject = GetRun {
            shard: RunShard::of(run_id),
        };
        let message = RunRef { run_id };
        let asked = self
            .app
            .bus
            .request(&subject, &message, FIRST_TIMEOUT)
            .await;
        let error = match asked {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        let stored = self.stored_run(run_id).await;
        if is_unknown(&error) {
            return stored?.ok_or_else(run_not_found);
        }
        match stored {
            Ok(Some(ended)) if ended.run.status.is_final() => Ok(ended),
            // What is stored of a run that has not ended may be old: only its owner knows.
            Ok(_) | Err(_) => match self.app.request(&subject, &message).await {
                Err(error) if error.reply.code == ErrorCode::NotFound => {
                    self.stored_run(run_id).await?.ok_or_else(run_not_found)
                }
                answer => answer,
            },
        }
    }

    async fn stored_run(&self, run_id: RunId) -> Result<Option<RunReply>, HttpError> {
        let found = self.app.bus.bucket::<Runs>().get(&RunKey(run_id)).await?;
        Ok(found.map(|found| RunReply {
            run: found.record.run,
            entries: found.record.private.entries,
        }))
    }

    /// The newest runs of every shard, as many of each as are asked for.
    pub(crate) async fn list_runs(&self, list: &ListRuns) -> Result<Vec<Vec<Run>>, HttpError> {
        let pages = RunShard::all().map(|shard| self.list_shard(shard, list));
        try_join_all(pages).await
    }

    /// Runs with much metadata may not fit into one answer: then they are asked for in smaller parts.
    async fn list_shard(&self, shard: RunShard, list: &ListRuns) -> Result<Vec<Run>, HttpError> {
        let wanted = list.limit.unwrap_or(MAX_RUNS_PAGE);
        let (mut runs, mut part) = (Vec::new(), wanted.min(MAX_RUNS_PAGE));
        let mut before = list.before;
        loop {
            let found = u32::try_from(runs.len()).unwrap_or(u32::MAX);
            let limit = part.min(wanted.saturating_sub(found));
            let next = ListRuns {
                limit: Some(limit),
                before,
                ..list.clone()
            };
            let page = match self.app.request(&ListRunsOf { shard }, &next).await {
                Err(error) if error.reply.code == ErrorCode::PayloadTooLarge && limit > 1 => {
                    part = limit / 2;
                    continue;
                }
                page => page?,
            };
            let is_last = page.runs.len() < limit as usize;
            runs.extend(page.runs);
            if is_last || runs.len() >= wanted as usize {
                return Ok(runs);
            }
            before = runs.last().map(|run| run.id);
        }
    }

    pub(crate) async fn cancel_run(&self, run_id: RunId) -> Result<RunStatus, HttpError> {
        let subject = CancelRun {
            shard: RunShard::of(run_id),
        };
        let wanted = RunStatus::Canceled;
        match self
            .change(run_id, &subject, &RunRef { run_id }, wanted)
            .await?
        {
            Outcome::Done(reply) => Ok(reply.status),
            Outcome::RejectedOnRetry(refusal) => {
                self.confirm_done(run_id, refusal, |run| run.status == wanted)
                    .await?;
                Ok(wanted)
            }
        }
    }

    pub(crate) async fn add_checkpoint(&self, add: AddCheckpoint) -> Result<(), HttpError> {
        let add = match payloads::needs_offload(&add)? {
            None => add,
            Some(data) => {
                // What the runner would refuse is not stored first.
                let status = self.run(add.run_id).await?.run.status;
                if status.is_final() {
                    return Err(bad_transition(status, RunStatus::Running));
                }
                payloads::offload(&self.app.bus, add, &data).await?
            }
        };
        let subject = AddRunCheckpoint {
            shard: RunShard::of(add.run_id),
        };
        match self
            .change(add.run_id, &subject, &add, RunStatus::Running)
            .await?
        {
            Outcome::Done(_) => Ok(()),
            Outcome::RejectedOnRetry(refusal) => Err(refusal.into()),
        }
    }

    pub(crate) async fn complete_run(&self, complete: &CompleteRun) -> Result<Run, HttpError> {
        let run_id = complete.run_id;
        let subject = CompleteRuns {
            shard: RunShard::of(run_id),
        };
        let wanted = complete.status;
        match self.change(run_id, &subject, complete, wanted).await? {
            Outcome::Done(reply) => Ok(reply.run),
            Outcome::RejectedOnRetry(refusal) => {
                self.confirm_done(run_id, refusal, |run| run.status == wanted)
                    .await
            }
        }
    }

    pub(crate) async fn decide_gate(&self, decide: &DecideGate) -> Result<Run, HttpError> {
        let run_id = decide.run_id;
        let subject = DecideGates {
            shard: RunShard::of(run_id),
        };
        match self
            .change(run_id, &subject, decide, RunStatus::Running)
            .await?
        {
            Outcome::Done(reply) => Ok(reply.run),
            Outcome::RejectedOnRetry(refusal) => {
                let wanted = match decide.decision {
                    Decision::Approve => NodeStatus::Succeeded,
                    Decision::Reject => NodeStatus::Failed,
                };
                let is_decided = |run: &Run| {
                    let nodes = run.nodes.as_ref();
                    let node = nodes.and_then(|nodes| nodes.get(&decide.node_id));
                    node.is_some_and(|node| node.status == wanted)
                };
                self.confirm_done(run_id, refusal, is_decided).await
            }
        }
    }

    /// A new run that continues where an ended one stopped.
    pub(crate) async fn retry_run(&self, run_id: RunId) -> Result<Run, HttpError> {
        let old = self.run(run_id).await?.run;
        if !old.status.is_final() {
            let hint = "only a run that has ended can be continued; cancel it first";
            return Err(bad_transition(old.status, RunStatus::Pending).hint(hint));
        }
        let finished = old.nodes.unwrap_or_default().into_iter();
        let plan = old.plan.map(serde_json::to_value).transpose();
        let create = CreateRun {
            run_id: new_run_id(),
            mode: old.mode,
            plan: plan.map_err(|error| HttpError::new(ErrorCode::Internal, error.to_string()))?,
            inputs: old.inputs,
            name: old.name,
            metadata: old.metadata,
            owner: old.owner,
            retry_of: Some(run_id),
            finished: finished
                .filter(|(_, node)| node.status == NodeStatus::Succeeded)
                .collect(),
        };
        self.create_run(&create).await
    }

    /// Asks the owner of a run to change it. A run that it does not know has ended, or never was.
    async fn change<S: Request>(
        &self,
        run_id: RunId,
        subject: &S,
        message: &S::Message,
        to: RunStatus,
    ) -> Result<Outcome<S::Reply>, HttpError> {
        let first = self.app.bus.request(subject, message, FIRST_TIMEOUT).await;
        let is_unanswered = |error: &RequestError| {
            matches!(error, RequestError::Timeout { .. }) || error.is_worth_retrying()
        };
        let (answer, is_retry) = match first {
            Err(error) if is_unanswered(&error) => {
                let patience = self.app.config.request_timeout;
                let again = self.app.bus.request_until(subject, message, patience).await;
                (again, true)
            }
            answer => (answer, false),
        };
        match answer {
            Ok(reply) => Ok(Outcome::Done(reply)),
            Err(RequestError::Refused(reply)) if reply.code == ErrorCode::NotFound => {
                let stored = self.stored_run(run_id).await?;
                Err(match stored.map(|stored| stored.run.status) {
                    None => run_not_found(),
                    Some(ended) if ended.is_final() && is_retry => {
                        let refusal = bad_transition(ended, to).reply;
                        return Ok(Outcome::RejectedOnRetry(refusal));
                    }
                    Some(ended) if ended.is_final() => bad_transition(ended, to),
                    Some(_) => reply.into(),
                })
            }
            Err(RequestError::Refused(reply)) if is_retry && reply.code == ErrorCode::Conflict => {
                Ok(Outcome::RejectedOnRetry(reply))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The run, if it is now as was asked for; else the refusal.
    async fn confirm_done(
        &self,
        run_id: RunId,
        refusal: ErrorReply,
        is_done: impl Fn(&Run) -> bool,
    ) -> Result<Run, HttpError> {
        let run = self.run(run_id).await?.run;
        if is_done(&run) {
            return Ok(run);
        }
        Err(refusal.into())
    }
}

/// No such run.
pub(crate) fn run_not_found() -> HttpError {
    HttpError::new(ErrorCode::NotFound, "run not found")
}

/// No such gate: the name cannot be that of a node.
pub(crate) fn no_gate(node: &str) -> HttpError {
    let node: String = node.chars().take(MAX_NODE_CHARS).collect();
    let error = HttpError::new(ErrorCode::Conflict, "no waiting gate");
    error.hint(format!(
        "{node:?} is no node of this run that waits for a decision"
    ))
}

/// Characters of a name that are shown in an error.
const MAX_NODE_CHARS: usize = 64;

fn bad_transition(from: RunStatus, to: RunStatus) -> HttpError {
    let reply = ErrorReply::new(ErrorCode::Conflict, "invalid status transition");
    let reply = reply.with("from", from.as_str()).with("to", to.as_str());
    reply.into()
}

fn is_unknown(error: &RequestError) -> bool {
    matches!(error, RequestError::Refused(reply) if reply.code == ErrorCode::NotFound)
}
