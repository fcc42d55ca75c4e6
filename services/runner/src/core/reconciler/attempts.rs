//! Attempts that a worker has, or should have: their limits, their tasks in the queue, and what follows a failure.

use std::time::Duration;

use quintet_contract::id::NodeId;
use quintet_contract::job::Attempt;
use quintet_contract::plan::{Backoff, Node, Retry};
use quintet_contract::run::{NodeEvent, NodeStatus};

use super::{Failure, Nesting, Pass, Reconciler, is_own};
use crate::core::active::QueuedTask;
use crate::core::event::Action;

/// Longest time between two polls for a task that waits for a worker.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(600);

impl Reconciler<'_> {
    /// A node that a worker has: neither too long nor without a heartbeat.
    pub(super) fn watch_over(&mut self, node: &Node, id: &NodeId, pass: &mut Pass) {
        let Some(state) = self.active.state(id.as_str()) else {
            return;
        };
        let (attempt, started) = (state.attempt, state.started_at.unwrap_or(self.now));
        let last_seen = self.active.last_seen.get(id.as_str()).copied();
        let limits = [
            (node.timeout_ms, started, "took longer than"),
            (
                node.heartbeat_timeout_ms,
                last_seen.unwrap_or(started),
                "sent no heartbeat for",
            ),
        ];
        for (limit, since, what) in limits {
            let Some(limit) = limit else { continue };
            let end = since.after(Duration::from_millis(limit));
            if end > self.now {
                pass.due_at(end);
                continue;
            }
            self.stop(id);
            let failure = Failure {
                error: format!("it {what} {limit} ms"),
                is_retryable: true,
            };
            self.fail_attempt(node, id, attempt, failure);
            pass.has_changed = true;
            return;
        }
    }

    /// The task of a node is in a queue, or soon will be.
    pub(crate) fn track_enqueued(&mut self, id: &NodeId, sequence: Option<u64>) {
        let wait = self.ack_wait * 3;
        let task = QueuedTask {
            sequence,
            check_at: self.now.after(wait),
            wait,
        };
        self.active.tasks.insert(id.clone(), task);
    }

    /// A task without reports must be in its queue. One that was acknowledged although its node has not ended, by a
    /// worker with a wrong answer or a defect, is dispatched again.
    pub(super) fn verify_enqueued(
        &mut self,
        node: &Node,
        id: &NodeId,
        nesting: &Nesting,
        pass: &mut Pass,
    ) {
        if is_own(node, self.active.run().mode) {
            return;
        }
        let Some(mut task) = self.active.tasks.get(id.as_str()).copied() else {
            return;
        };
        if task.check_at > self.now {
            pass.due_at(task.check_at);
            return;
        }
        let is_running = self.status_of(id.as_str()) == NodeStatus::Running;
        match task.sequence {
            Some(sequence) => {
                let run = self.active.id();
                self.acts
                    .push(Action::VerifyEnqueued(run, id.clone(), sequence));
            }
            // Its worker was learnt of from a report.
            None if is_running => {
                self.dispatch(node, id, nesting);
                return;
            }
            // It is still being stored.
            None => {}
        }
        task.wait = (task.wait * 2).min(MAX_CHECK_INTERVAL);
        task.check_at = self.now.after(task.wait);
        pass.due_at(task.check_at);
        self.active.tasks.insert(id.clone(), task);
    }

    /// A task is in its queue.
    pub(crate) fn dispatched(&mut self, id: &NodeId, sequence: u64) {
        if let Some(task) = self.active.tasks.get_mut(id.as_str()) {
            task.sequence = task.sequence.or(Some(sequence));
        }
    }

    /// The task of a node cannot be stored in its queue.
    pub(crate) fn task_rejected(&mut self, id: &NodeId, error: String) {
        if self.status_of(id.as_str()) == NodeStatus::Queued {
            let attempt = self.fact(id).attempt;
            self.fail(id, attempt, error);
        }
    }

    /// A task is no longer in its queue.
    pub(crate) fn task_missing(&mut self, id: &NodeId, sequence: u64) {
        let Some(plan) = self.active.plan.clone() else {
            return;
        };
        let task = self.active.tasks.get(id.as_str());
        if task.is_none_or(|task| task.sequence != Some(sequence)) {
            return;
        }
        let Some((node, nesting)) = self.locate(&plan.nodes, id.as_str(), Nesting::default())
        else {
            return;
        };
        match self.status_of(id.as_str()) {
            NodeStatus::Queued => self.dispatch(node, id, &nesting),
            NodeStatus::Running => {
                self.stop(id);
                self.start_attempt(node, id, &nesting);
            }
            NodeStatus::Pending
            | NodeStatus::Waiting
            | NodeStatus::Succeeded
            | NodeStatus::Failed
            | NodeStatus::Skipped
            | NodeStatus::Canceled => {}
        }
    }

    /// An attempt failed: once more later, or that was it.
    pub(crate) fn fail_attempt(
        &mut self,
        node: &Node,
        id: &NodeId,
        attempt: Attempt,
        failure: Failure,
    ) {
        let Failure {
            error,
            is_retryable,
        } = failure;
        let failures = self
            .active
            .private(id.as_str())
            .map_or(0, |private| private.failures);
        let retry = node.retry.unwrap_or_default();
        if !is_retryable || failures >= retry.max {
            self.fail(id, attempt, error);
            return;
        }
        let due = self.now.after(backoff(retry, failures));
        self.node(NodeEvent {
            node_id: id.clone(),
            status: NodeStatus::Waiting,
            attempt,
            error: Some(self.cut(error)),
            due: Some(due),
            failed_attempt: true,
            ..NodeEvent::default()
        });
    }
}

/// How long to wait after so many failures before this one.
fn backoff(retry: Retry, failures: u32) -> Duration {
    let wait = match retry.kind {
        Backoff::Fixed => retry.backoff_ms,
        Backoff::Exponential => retry
            .backoff_ms
            .saturating_mul(1_u64.checked_shl(failures).unwrap_or(u64::MAX)),
    };
    Duration::from_millis(wait.min(retry.backoff_max_ms.max(retry.backoff_ms)))
}
