//! Requests of clients about runs: one function per request. Requests may be refused; what was stored is not taken
//! back.

use std::collections::BTreeMap;

use quintet_contract::cause::{CausedBy, TraceId};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::{NodeId, RunId};
use quintet_contract::nesting;
use quintet_contract::plan::{MAX_PLAN_BYTES, Plan, PlanView, Problem};
use quintet_contract::reply::RequestId;
use quintet_contract::run::{
    Checkpoint, MAX_CHECKPOINT_BYTES, MAX_CHECKPOINT_TYPE_BYTES, NodeEvent, NodeState, NodeStatus,
    Run, RunEvent, RunMode, RunPrivate, RunRecord, RunStatus,
};
use quintet_contract::run_api::{
    AddCheckpoint, CancelReply, CheckpointReply, CompleteRun, CreateRun, DecideGate, Decision,
    ListRuns, MAX_RUNS_PAGE, RunPage, RunReply,
};
use quintet_contract::time::Timestamp;
use serde_json::{Value, json};

use crate::core::active::{Active, Urgency, bytes_of, bytes_of_object};
use crate::core::event::{Action, RunWrite, Traceparent};
use crate::core::{Core, Effects, plan};

/// Most bytes of a run's metadata as JSON.
const MAX_METADATA_BYTES: usize = 64 * 1024;
/// Longest name and owner in bytes.
const MAX_NAME_BYTES: usize = 256;
/// Runs of a page without a limit.
const DEFAULT_PAGE: u32 = 50;

/// What a plan would do, or everything that is wrong with it.
pub(crate) fn plan_view(value: &Value, mode: RunMode) -> Result<PlanView, ErrorReply> {
    let plan = plan::checked(value, mode).map_err(|problems| invalid_plan(&problems))?;
    Ok(plan::view(&plan, mode))
}

fn invalid_plan(problems: &[Problem]) -> ErrorReply {
    ErrorReply::new(ErrorCode::ValidationFailed, "invalid plan").with(
        "problems",
        serde_json::to_value(problems).unwrap_or_default(),
    )
}

fn not_found() -> ErrorReply {
    ErrorReply::new(ErrorCode::NotFound, "run not found")
}

/// A status cannot follow another.
fn invalid_transition(from: RunStatus, to: RunStatus) -> ErrorReply {
    ErrorReply::new(ErrorCode::Conflict, "invalid status transition")
        .with("from", from.as_str())
        .with("to", to.as_str())
}

impl Core {
    pub(super) fn create(
        &mut self,
        request: RequestId<RunReply>,
        (create, traceparent): (CreateRun, Traceparent),
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let id = create.run_id;
        if self.runs.contains(&id) || self.ended.contains_key(&id) {
            // The same request once more.
            self.answer_with_run(request, id, effects);
            return;
        }
        let (run, plan) = match self.new_run(create, now) {
            Ok(new) => new,
            Err(error) => {
                effects.act(Action::Reply(request.reply(Err(error))));
                return;
            }
        };
        let record = RunRecord {
            caused_by: run.retry_of.map(CausedBy::run),
            trace_id: traceparent.as_deref().and_then(TraceId::of_traceparent),
            run: Run { plan, ..run },
            private: RunPrivate {
                traceparent,
                ..RunPrivate::default()
            },
        };
        let mut active = Active::new(record);
        effects.write(RunWrite(id, active.first_write()));
        self.with(active, now, effects, |reconciler| reconciler.reconcile());
        self.answer_with_run(request, id, effects);
    }

    fn new_run(
        &self,
        create: CreateRun,
        now: Timestamp,
    ) -> Result<(Run, Option<Plan>), ErrorReply> {
        if !self.allows(create.mode) {
            return Err(ErrorReply::new(
                ErrorCode::Unavailable,
                "no Kubernetes cluster is configured here; give the runners KUBECONFIG or K8S_IN_CLUSTER, or use mode queue",
            ));
        }
        let plan = match &create.plan {
            None => None,
            Some(plan) => {
                Some(plan::checked(plan, create.mode).map_err(|problems| invalid_plan(&problems))?)
            }
        };
        if create.mode == RunMode::K8s && plan.is_none() {
            return Err(ErrorReply::invalid("plan", "mode k8s needs a plan"));
        }
        let inputs = create.inputs.as_ref().map_or(0, bytes_of_object);
        let bytes = inputs + create.plan.as_ref().map_or(0, bytes_of);
        if bytes > MAX_PLAN_BYTES {
            let text = format!(
                "a plan with its inputs may take {MAX_PLAN_BYTES} bytes, this one takes {bytes}"
            );
            return Err(ErrorReply::new(ErrorCode::PayloadTooLarge, text));
        }
        if create.metadata.as_ref().map_or(0, bytes_of_object) > MAX_METADATA_BYTES {
            let text = format!("metadata may take {MAX_METADATA_BYTES} bytes");
            return Err(ErrorReply::new(ErrorCode::PayloadTooLarge, text));
        }
        for (field, object) in [("inputs", &create.inputs), ("metadata", &create.metadata)] {
            if let Some(object) = object {
                nesting::check(field, object)?;
            }
        }
        for (field, text) in [("name", &create.name), ("owner", &create.owner)] {
            if text
                .as_ref()
                .is_some_and(|text| text.len() > MAX_NAME_BYTES)
            {
                let text = format!("{field} may be {MAX_NAME_BYTES} bytes long");
                return Err(ErrorReply::invalid(field, text));
            }
        }
        let nodes = plan.as_ref().map(|plan| {
            let mut states: BTreeMap<NodeId, NodeState> = plan
                .nodes
                .iter()
                .filter_map(|node| NodeId::parse(&node.id).ok())
                .map(|id| (id, NodeState::default()))
                .collect();
            // What an earlier run finished is not done again.
            for (id, state) in create.finished {
                let is_planned = states.contains_key(&id);
                if is_planned && state.status == NodeStatus::Succeeded {
                    states.insert(id, state);
                }
            }
            states
        });
        let run = Run {
            id: create.run_id,
            mode: create.mode,
            name: create.name,
            status: RunStatus::Pending,
            created_at: now,
            started_at: None,
            ended_at: None,
            owner: create.owner,
            metadata: create.metadata,
            inputs: create.inputs,
            plan: None,
            nodes,
            error: None,
            output: None,
            retry_of: create.retry_of,
        };
        Ok((run, plan))
    }

    /// Answers with a run as it is now, once that is stored.
    pub(super) fn answer_with_run(
        &mut self,
        request: RequestId<RunReply>,
        id: RunId,
        effects: &mut Effects,
    ) {
        let action = self.get(request, id);
        self.reply_when_stored(request, action, [id], effects);
    }

    fn get(&self, request: RequestId<RunReply>, id: RunId) -> Action {
        let outcome = match self.runs.get(&id) {
            Some(active) => Ok(RunReply {
                run: active.shown(),
                entries: active.entries(),
            }),
            None if self.ended.contains_key(&id) => return Action::Read(request, id),
            None => Err(not_found()),
        };
        Action::Reply(request.reply(outcome))
    }

    pub(super) fn list(&self, request: RequestId<RunPage>, list: &ListRuns) -> Action {
        let limit = list.limit.unwrap_or(DEFAULT_PAGE).min(MAX_RUNS_PAGE) as usize;
        let is_before = |id: &RunId| list.before.is_none_or(|before| *id < before);
        let is_wanted = |status: RunStatus, owner: Option<&str>| {
            list.status.is_none_or(|wanted| wanted == status)
                && list
                    .owner
                    .as_deref()
                    .is_none_or(|wanted| owner == Some(wanted))
        };
        let mut active: Vec<RunId> = self
            .runs
            .all()
            .filter(|(id, status, owner)| is_before(id) && is_wanted(*status, *owner))
            .map(|(id, _, _)| id)
            .collect();
        active.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        active.truncate(limit);
        let mut ended: Vec<RunId> = self
            .ended
            .iter()
            .rev()
            .filter(|(id, ended)| is_before(id) && is_wanted(ended.status, ended.owner.as_deref()))
            .map(|(id, _)| *id)
            .take(limit)
            .collect();
        // The newest of both together.
        let mut newest = [&active[..], &ended].concat();
        newest.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        if let Some(first_beyond) = newest.get(limit) {
            active.retain(|id| id > first_beyond);
            ended.retain(|id| id > first_beyond);
        }
        let active = active.iter().filter_map(|id| self.runs.get(id));
        let active = active.map(|active| active.listed()).collect();
        Action::List(request, active, ended)
    }

    pub(super) fn cancel(
        &mut self,
        request: RequestId<CancelReply>,
        id: RunId,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if let Err(error) = self.may_become(id, RunStatus::Canceled) {
            effects.act(Action::Reply(request.reply(Err(error))));
            return;
        }
        if let Some(active) = self.runs.remove(&id) {
            self.with(active, now, effects, |reconciler| {
                reconciler.end(RunStatus::Canceled, None)
            });
        }
        let reply = request.reply(Ok(CancelReply {
            ok: true,
            status: RunStatus::Canceled,
        }));
        self.reply_when_stored(request, Action::Reply(reply), [id], effects);
    }

    fn may_become(&self, id: RunId, next: RunStatus) -> Result<(), ErrorReply> {
        let status = match (self.runs.status(&id), self.ended.get(&id)) {
            (Some(status), _) => status,
            (None, Some(ended)) => ended.status,
            (None, None) => return Err(not_found()),
        };
        if status.may_become(next) {
            Ok(())
        } else {
            Err(invalid_transition(status, next))
        }
    }

    pub(super) fn checkpoint(
        &mut self,
        request: RequestId<CheckpointReply>,
        add: AddCheckpoint,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let (run, id) = (add.run_id, add.checkpoint_id);
        match self.new_checkpoint(add, now) {
            Err(error) => effects.act(Action::Reply(request.reply(Err(error)))),
            Ok(fact) => {
                if let Some(fact) = fact
                    && let Some(active) = self.runs.get_mut(&run)
                {
                    active.remember(id);
                    active.push(fact, None, Urgency::Now, now);
                    self.touched.insert(run);
                }
                let reply = request.reply(Ok(CheckpointReply { checkpoint_id: id }));
                self.reply_when_stored(request, Action::Reply(reply), [run], effects);
            }
        }
    }

    /// The entry for a checkpoint; none when it is in the log already.
    fn new_checkpoint(
        &self,
        add: AddCheckpoint,
        now: Timestamp,
    ) -> Result<Option<RunEvent>, ErrorReply> {
        let Some(active) = self.runs.get(&add.run_id) else {
            return Err(match self.ended.get(&add.run_id) {
                Some(ended) => has_ended(ended.status),
                None => not_found(),
            });
        };
        if active.knows(add.checkpoint_id) {
            return Ok(None);
        }
        if active.status().is_final() {
            return Err(has_ended(active.status()));
        }
        let kind = add.kind.trim();
        if kind.is_empty() || kind.len() > MAX_CHECKPOINT_TYPE_BYTES {
            return Err(ErrorReply::new(
                ErrorCode::BadRequest,
                "invalid checkpoint type",
            ));
        }
        if let Some(data) = &add.data {
            if bytes_of(data) > MAX_CHECKPOINT_BYTES {
                let text = format!("a checkpoint may take {MAX_CHECKPOINT_BYTES} bytes");
                return Err(ErrorReply::new(ErrorCode::PayloadTooLarge, text));
            }
            if !nesting::is_bounded(data) {
                let text = format!("data is nested deeper than {} levels", nesting::MAX_LEVELS);
                return Err(ErrorReply::new(ErrorCode::BadRequest, "validation failed")
                    .with("details", json!([text])));
            }
        }
        let checkpoint = Checkpoint {
            id: add.checkpoint_id,
            run_id: add.run_id,
            ts: now,
            kind: kind.to_owned(),
            data: add.data,
            node_id: None,
            blob: add.blob,
        };
        Ok(Some(RunEvent::Checkpoint { checkpoint }))
    }

    pub(super) fn complete(
        &mut self,
        request: RequestId<RunReply>,
        complete: CompleteRun,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let id = complete.run_id;
        if let Err(error) = self.may_complete(&complete) {
            effects.act(Action::Reply(request.reply(Err(error))));
            return;
        }
        if let Some(active) = self.runs.get_mut(&id) {
            let fact = RunEvent::Status {
                status: complete.status,
                error: complete.error,
                output: complete.output,
            };
            active.push(fact, None, Urgency::Now, now);
            self.touched.insert(id);
        }
        self.answer_with_run(request, id, effects);
    }

    fn may_complete(&self, complete: &CompleteRun) -> Result<(), ErrorReply> {
        let is_outcome = matches!(complete.status, RunStatus::Completed | RunStatus::Failed);
        if !is_outcome {
            return Err(ErrorReply::new(ErrorCode::BadRequest, "validation failed")
                .with("details", json!(["status must be completed or failed"])));
        }
        let has_plan = self
            .runs
            .get(&complete.run_id)
            .is_some_and(|active| active.plan.is_some());
        if has_plan {
            let text = "this run has a plan, which decides how it ends";
            return Err(ErrorReply::new(ErrorCode::Conflict, text));
        }
        let output = complete.output.as_ref();
        if output
            .is_some_and(|output| bytes_of(output) > MAX_PLAN_BYTES || !nesting::is_bounded(output))
            || complete
                .error
                .as_ref()
                .is_some_and(|error| error.len() > MAX_METADATA_BYTES)
        {
            let text = format!(
                "output may take {MAX_PLAN_BYTES} bytes and {} levels",
                nesting::MAX_LEVELS
            );
            return Err(ErrorReply::new(ErrorCode::PayloadTooLarge, text));
        }
        self.may_become(complete.run_id, complete.status)
    }

    pub(super) fn decide(
        &mut self,
        request: RequestId<RunReply>,
        decide: DecideGate,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let id = decide.run_id;
        if let Err(error) = self.may_decide(&decide) {
            effects.act(Action::Reply(request.reply(Err(error))));
            return;
        }
        if let Some(active) = self.runs.get_mut(&id) {
            let is_approved = decide.decision == Decision::Approve;
            let mut output = json!({"decision": decide.decision});
            for (field, name) in [("by", &decide.by), ("actor", &decide.actor)] {
                if let Some(name) = name {
                    output[field] = json!(name);
                }
            }
            let attempt = active
                .state(decide.node_id.as_str())
                .map(|state| state.attempt)
                .unwrap_or_default();
            let node = NodeEvent {
                node_id: decide.node_id,
                status: if is_approved {
                    NodeStatus::Succeeded
                } else {
                    NodeStatus::Failed
                },
                attempt,
                error: (!is_approved).then(|| match (&decide.by, &decide.actor) {
                    (Some(by), Some(actor)) => format!("rejected by {by} for {actor}"),
                    (Some(by), None) => format!("rejected by {by}"),
                    (None, _) => "rejected".to_owned(),
                }),
                output: output.as_object().cloned(),
                failed_attempt: !is_approved,
                ..NodeEvent::default()
            };
            active.push(RunEvent::Node { node }, None, Urgency::Now, now);
            self.touched.insert(id);
        }
        self.answer_with_run(request, id, effects);
    }

    fn may_decide(&self, decide: &DecideGate) -> Result<(), ErrorReply> {
        for (field, name) in [("by", &decide.by), ("actor", &decide.actor)] {
            let length = name.as_ref().map_or(0, String::len);
            if length > quintet_contract::id::MAX_NAME_BYTES {
                let text = format!("{field} is too long with {length} bytes");
                return Err(ErrorReply::new(ErrorCode::ValidationFailed, text));
            }
        }
        let Some(active) = self.runs.get(&decide.run_id) else {
            return Err(match self.ended.get(&decide.run_id) {
                Some(ended) => has_ended(ended.status),
                None => not_found(),
            });
        };
        let id = decide.node_id.as_str();
        let is_gate = active
            .plan
            .as_ref()
            .and_then(|plan| super::active::find(&plan.nodes, id))
            .is_some_and(|node| node.kind == "gate");
        let state = active.state(id).map(|state| state.status);
        if is_gate && state == Some(NodeStatus::Waiting) {
            return Ok(());
        }
        let text = format!("{id} is no gate that waits");
        Err(ErrorReply::new(ErrorCode::Conflict, text))
    }
}

fn has_ended(status: RunStatus) -> ErrorReply {
    ErrorReply::new(ErrorCode::Conflict, "the run has ended").with("status", status.as_str())
}
