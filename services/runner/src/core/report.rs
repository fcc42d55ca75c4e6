//! Reports of workers: grants, progress, duplicates and late reports.
//!
//! A report counts when it is of the attempt that the node has now, from the worker that has it, with a number higher
//! than the last. A grant is in the log before it is given, so that an attempt is begun by one worker only. Older runners
//! gave it before that: then the node is found queued, and the first report shows the grant.

use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::event::{LogStream, MAX_LOG_LINE_BYTES};
use quintet_contract::id::{CheckpointId, NodeId};
use quintet_contract::job::Attempt;
use quintet_contract::plan::Node;
use quintet_contract::run::{
    Checkpoint, MAX_CHECKPOINT_BYTES, MAX_CHECKPOINT_TYPE_BYTES, MAX_OUTPUT_BYTES,
    MAX_OUTPUTS_BYTES, NodeEvent, NodeStatus, ReportMark, RunEvent,
};
use quintet_contract::task::{MAX_LINES, RunReport, Verdict, WorkerEvent};

use crate::core::active::{Urgency, bytes_of, bytes_of_object, find};
use crate::core::event::Action;
use crate::core::reconciler::{Failure, Reconciler, heartbeat_of};

/// What a checkpoint of a node is called that its worker did not name.
const CHECKPOINT: &str = "checkpoint";
/// Attempts of a node beyond its retries: so often its worker may vanish before the node itself is blamed.
const MAX_VANISHED: u32 = 50;

/// The verdict on a report, and whether the node's last checkpoint must be read from the log for it.
pub(crate) struct Reply {
    pub(crate) verdict: Verdict,
    pub(crate) resume_from_log: bool,
}

impl From<Verdict> for Reply {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            resume_from_log: false,
        }
    }
}

fn gone(reason: &str) -> Reply {
    Verdict::Gone {
        reason: reason.to_owned(),
    }
    .into()
}

impl Reconciler<'_> {
    /// Takes in one report about this run.
    pub(crate) fn report(&mut self, report: RunReport, checkpoint: CheckpointId) -> Reply {
        if self.active.status().is_final() {
            return gone("the run has ended");
        }
        let Some(plan) = self.active.plan.clone() else {
            return gone("the run has no plan");
        };
        let Some(node) = find(&plan.nodes, report.node_id.as_str()) else {
            return gone("the plan has no such node");
        };
        if let WorkerEvent::Take {
            delivered,
            sequence,
        } = report.event
        {
            return self.take(node, &report, (sequence, delivered));
        }
        let Some(state) = self.active.state(report.node_id.as_str()) else {
            return gone("the node has not begun");
        };
        match state.status {
            // Granted by an older runner that died before it had stored that.
            NodeStatus::Queued | NodeStatus::Running if report.attempt > state.attempt => {
                self.record_grant(&report, report.attempt);
            }
            NodeStatus::Running => {}
            NodeStatus::Queued | NodeStatus::Waiting | NodeStatus::Pending => {
                return gone("another attempt is on its way");
            }
            NodeStatus::Succeeded
            | NodeStatus::Failed
            | NodeStatus::Skipped
            | NodeStatus::Canceled => {
                return self.verdict_after_end(&report);
            }
        }
        let id = report.node_id.clone();
        let attempt = self
            .active
            .state(id.as_str())
            .map_or(Attempt(0), |state| state.attempt);
        let private = self.active.private(id.as_str());
        let is_theirs = private.is_some_and(|private| {
            private
                .worker
                .as_ref()
                .is_none_or(|worker| *worker == report.worker)
        });
        if attempt != report.attempt || !is_theirs {
            return gone("another worker has this node now");
        }
        let known = private.map_or(0, |private| private.reports);
        self.active.last_seen.insert(id.clone(), self.now);
        if let Some(task) = self.active.tasks.get_mut(id.as_str()) {
            task.check_at = self.now.after(task.wait);
        }
        if matches!(report.event, WorkerEvent::Heartbeat) || report.seq <= known {
            return Verdict::Ok.into();
        }
        let mark = ReportMark {
            node_id: id.clone(),
            attempt,
            seq: report.seq,
        };
        match self.event(node, mark, report.event, checkpoint) {
            Ok(()) => Verdict::Ok.into(),
            Err(reason) => Verdict::Refused { reason }.into(),
        }
    }

    /// The node has ended: the last report of its last attempt was received already; whatever else comes is too late.
    fn verdict_after_end(&self, report: &RunReport) -> Reply {
        let state = self.active.state(report.node_id.as_str());
        let is_last = state.is_some_and(|state| state.attempt == report.attempt);
        match (&report.event, is_last) {
            (WorkerEvent::Succeeded { .. } | WorkerEvent::Failed { .. }, true) => {
                Verdict::Ok.into()
            }
            _ => gone("the node has ended"),
        }
    }

    fn take(&mut self, node: &Node, report: &RunReport, delivery: (u64, u32)) -> Reply {
        let id = &report.node_id;
        let Some(state) = self.active.state(id.as_str()) else {
            return gone("the node has not begun");
        };
        let (status, attempt) = (state.status, state.attempt);
        let granted = match status {
            NodeStatus::Queued => attempt.next(),
            NodeStatus::Running => {
                let private = self.active.private(id.as_str());
                let holder = private.and_then(|private| private.worker.clone());
                let before = self.active.delivered.get(id.as_str()).copied();
                if holder.as_ref() == Some(&report.worker)
                    && before.is_none_or(|before| before == delivery)
                {
                    // The answer was lost, perhaps together with the runner that gave it.
                    return self.granted(node, id, attempt);
                }
                let last_seen = self.active.last_seen.get(id.as_str()).copied();
                let silence =
                    last_seen.map_or(Duration::MAX, |last_seen| self.now.since(last_seen));
                // The same task can be in the queue twice; a second copy takes nothing from the worker that has it.
                let is_again = delivery.1 > 1;
                if !is_again && silence < self.ack_wait {
                    return gone("another worker has this node");
                }
                if let Some(holder) = holder.filter(|holder| *holder != report.worker) {
                    let run = self.active.id();
                    self.acts
                        .push(Action::Cancel(holder, run, id.clone(), attempt));
                }
                attempt.next()
            }
            NodeStatus::Pending | NodeStatus::Waiting => {
                return gone("it is not time for this node");
            }
            NodeStatus::Succeeded
            | NodeStatus::Failed
            | NodeStatus::Skipped
            | NodeStatus::Canceled => return gone("the node has ended"),
        };
        let retries = node.retry.unwrap_or_default().max;
        if granted.0 > retries.saturating_add(MAX_VANISHED) {
            let text =
                format!("its worker vanished {MAX_VANISHED} times; see what it does to them");
            let failure = Failure {
                error: text,
                is_retryable: false,
            };
            self.fail_attempt(node, id, attempt, failure);
            return gone("the node has failed");
        }
        self.active.delivered.insert(id.clone(), delivery);
        self.record_grant(report, granted);
        self.granted(node, id, granted)
    }

    fn record_grant(&mut self, report: &RunReport, attempt: Attempt) {
        self.active
            .last_seen
            .insert(report.node_id.clone(), self.now);
        let task = match report.event {
            WorkerEvent::Take { sequence, .. } if sequence > 0 => Some(sequence),
            _ => None,
        };
        self.track_enqueued(&report.node_id, task);
        let node = NodeEvent {
            node_id: report.node_id.clone(),
            status: NodeStatus::Running,
            attempt,
            worker: Some(report.worker.clone()),
            task,
            ..NodeEvent::default()
        };
        self.active
            .push(RunEvent::Node { node }, None, Urgency::Now, self.now);
    }

    fn granted(&self, node: &Node, id: &NodeId, attempt: Attempt) -> Reply {
        let private = self.active.private(id.as_str());
        Reply {
            verdict: Verdict::Granted {
                attempt,
                resume_state: private.and_then(|private| private.resume_state.clone()),
                heartbeat_ms: heartbeat_of(node),
            },
            resume_from_log: private.is_some_and(|private| private.resume_in_log),
        }
    }

    fn event(
        &mut self,
        node: &Node,
        mark: ReportMark,
        event: WorkerEvent,
        checkpoint: CheckpointId,
    ) -> Result<(), String> {
        let attempt = mark.attempt;
        let node_id = mark.node_id.clone();
        let id = &mark.node_id.clone();
        let (fact, urgency) = match event {
            WorkerEvent::Checkpoint { name, data } => {
                let bytes = data.as_ref().map_or(0, bytes_of);
                if bytes > MAX_CHECKPOINT_BYTES {
                    return Err(format!(
                        "a checkpoint may take {MAX_CHECKPOINT_BYTES} bytes, this one takes {bytes}"
                    ));
                }
                let name = name
                    .as_deref()
                    .map(str::trim)
                    .filter(|name| !name.is_empty() && name.len() <= MAX_CHECKPOINT_TYPE_BYTES);
                let checkpoint = Checkpoint {
                    id: checkpoint,
                    run_id: self.active.id(),
                    ts: self.now,
                    kind: name.unwrap_or(CHECKPOINT).to_owned(),
                    data,
                    node_id: Some(node_id),
                    blob: None,
                };
                (RunEvent::Checkpoint { checkpoint }, Urgency::Now)
            }
            WorkerEvent::Output { data } => {
                self.check_output(id, &data)?;
                let output = data;
                (
                    RunEvent::Output {
                        node_id,
                        attempt,
                        output,
                    },
                    Urgency::Now,
                )
            }
            WorkerEvent::Progress { data } => {
                if bytes_of_object(&data) > MAX_OUTPUT_BYTES {
                    return Err("this progress is too large".to_owned());
                }
                (
                    RunEvent::Progress {
                        node_id,
                        attempt,
                        data,
                    },
                    Urgency::Lazy,
                )
            }
            WorkerEvent::Log { stream, line } => match self.log(id, attempt, stream, line) {
                Some(fact) => (fact, Urgency::Lazy),
                None => return Ok(()),
            },
            WorkerEvent::Succeeded { output } => {
                if let Some(Err(error)) =
                    output.as_ref().map(|output| self.check_output(id, output))
                {
                    let failure = Failure {
                        error,
                        is_retryable: false,
                    };
                    self.fail_attempt(node, id, attempt, failure);
                    return Ok(());
                }
                let node = NodeEvent {
                    node_id,
                    status: NodeStatus::Succeeded,
                    attempt,
                    output,
                    ..NodeEvent::default()
                };
                (RunEvent::Node { node }, Urgency::Now)
            }
            WorkerEvent::Failed { error, retryable } => {
                let failure = Failure {
                    error,
                    is_retryable: retryable,
                };
                self.fail_attempt(node, id, attempt, failure);
                return Ok(());
            }
            // Answered before, or of a newer version.
            WorkerEvent::Take { .. } | WorkerEvent::Heartbeat | WorkerEvent::Unknown => {
                return Ok(());
            }
        };
        self.active.push(fact, Some(mark), urgency, self.now);
        Ok(())
    }

    fn check_output(&self, id: &NodeId, output: &JsonObject) -> Result<(), String> {
        let before = self
            .active
            .state(id.as_str())
            .and_then(|state| state.output.as_ref());
        let mut merged = before.cloned().unwrap_or_default();
        merged.extend(output.clone());
        let bytes = bytes_of_object(&merged);
        if bytes > MAX_OUTPUT_BYTES {
            return Err(format!(
                "the output of a node may have {MAX_OUTPUT_BYTES} bytes, this one has {bytes}; write large data elsewhere and \
                 output its location"
            ));
        }
        if !quintet_contract::nesting::is_bounded_object(&merged) {
            return Err("its output is nested too deeply".to_owned());
        }
        let all = self.active.weight + bytes;
        if all > MAX_OUTPUTS_BYTES {
            return Err(format!(
                "the outputs of a run may have {MAX_OUTPUTS_BYTES} bytes in all, with this they would have {all}"
            ));
        }
        Ok(())
    }

    /// A line of output, as long as not too many were kept.
    fn log(
        &self,
        id: &NodeId,
        attempt: Attempt,
        stream: LogStream,
        mut line: String,
    ) -> Option<RunEvent> {
        let kept = self
            .active
            .private(id.as_str())
            .map_or(0, |private| private.lines);
        let (stream, line) = match kept {
            kept if kept < MAX_LINES => {
                let mut end = MAX_LOG_LINE_BYTES.min(line.len());
                while !line.is_char_boundary(end) {
                    end -= 1;
                }
                line.truncate(end);
                (stream, line)
            }
            MAX_LINES => (
                LogStream::Agent,
                format!("further lines of this node are not kept: {MAX_LINES} are the most"),
            ),
            _ => return None,
        };
        Some(RunEvent::Log {
            node_id: id.clone(),
            attempt,
            stream,
            line,
        })
    }
}
