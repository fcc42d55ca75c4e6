//! What must hold, whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use quintet_contract::id::{CheckpointId, NodeId, RunId, WorkerId};
use quintet_contract::run::{LogEntry, NodeStatus, RunEvent, RunStatus};
use quintet_contract::subject::Prefix;
use quintet_contract::task::Task;
use quintet_leader::Core as _;
use quintet_runner::core::{Action, Core, CoreConfig, Event, RunWrite, StoredRun};
use std::time::Duration;

use super::store::Store;
use super::{Client, ClientRequest, Millis, at};

#[derive(Default)]
pub(crate) struct Rules {
    /// The holder of the lease and its end; kept here since it is no rule of its own.
    pub(crate) lease: Option<(usize, Millis)>,
    runs: BTreeMap<RunId, Seen>,
    acknowledged: Vec<(RunId, CheckpointId)>,
    /// Which worker began an attempt.
    begun: BTreeMap<(RunId, NodeId, u32), WorkerId>,
}

#[derive(Default)]
struct Seen {
    n: u64,
    at: i64,
    status: RunStatus,
    nodes: BTreeMap<NodeId, (NodeStatus, u32)>,
    checkpoints: BTreeSet<CheckpointId>,
    reports: BTreeSet<(NodeId, u32, u64)>,
}

impl Rules {
    pub(crate) fn acknowledged(&mut self, run: RunId, checkpoint: CheckpointId) {
        self.acknowledged.push((run, checkpoint));
    }

    /// A worker begins an attempt that it was granted: it is the only one, and the grant is in the log.
    pub(crate) fn begins(&mut self, run: RunId, node: &NodeId, attempt: u32, worker: WorkerId) {
        let logged = self.runs.get(&run).and_then(|seen| seen.nodes.get(node));
        assert!(
            logged.is_some_and(|(_, logged)| *logged >= attempt),
            "{node} of {run} begins attempt {attempt} before that is stored: {logged:?}"
        );
        let before = self
            .begun
            .insert((run, node.clone(), attempt), worker.clone());
        assert!(
            before.as_ref().is_none_or(|before| *before == worker),
            "attempt {attempt} of {node} of {run} is begun by {worker} and by {before:?}"
        );
    }

    /// A task goes to its queue: that its node is queued is in the log, and with it all that was before.
    pub(crate) fn dispatched(&self, task: &Task) {
        let seen = self.runs.get(&task.run_id);
        let status = seen.and_then(|seen| seen.nodes.get(&task.node_id));
        assert!(
            status.is_some(),
            "{} of {} is dispatched before anything about it is stored",
            task.node_id,
            task.run_id
        );
        let outputs = task
            .context
            .keys()
            .filter_map(|need| NodeId::parse(need.as_str()).ok());
        for need in outputs {
            let status = seen.and_then(|seen| seen.nodes.get(&need));
            assert!(
                status.is_none_or(|(status, _)| status.is_final()),
                "{} of {} is dispatched before {need} is stored",
                task.node_id,
                task.run_id
            );
        }
    }

    /// One more entry is in a log.
    pub(crate) fn logged(&mut self, run: RunId, entry: &LogEntry) {
        let seen = self.runs.entry(run).or_default();
        assert_eq!(
            entry.n,
            seen.n + 1,
            "the log of a run has no gaps and no repeats"
        );
        seen.n = entry.n;
        assert!(entry.at.as_millis() >= seen.at, "ids of events sort");
        seen.at = entry.at.as_millis();
        assert!(
            !seen.status.is_final(),
            "nothing happens after the end: {entry:?}"
        );
        match &entry.fact {
            RunEvent::Status { status, .. } => {
                assert!(
                    seen.status.may_become(*status),
                    "{} to {status}",
                    seen.status
                );
                seen.status = *status;
            }
            RunEvent::Node { node } => {
                let before = seen.nodes.entry(node.node_id.clone()).or_default();
                assert!(
                    !before.0.is_final(),
                    "{} ended {:?} and is now {:?}",
                    node.node_id,
                    before.0,
                    node.status
                );
                assert!(node.attempt.0 >= before.1, "attempts only grow");
                *before = (node.status, node.attempt.0);
            }
            RunEvent::Checkpoint { checkpoint } => {
                assert!(
                    seen.checkpoints.insert(checkpoint.id),
                    "a checkpoint is in the log once"
                );
            }
            RunEvent::Output { .. }
            | RunEvent::Progress { .. }
            | RunEvent::Log { .. }
            | RunEvent::Unknown => {}
        }
        if let Some(mark) = &entry.report {
            let key = (mark.node_id.clone(), mark.attempt.0, mark.seq);
            assert!(
                seen.reports.insert(key),
                "a report is in the log once: {mark:?}"
            );
        }
    }

    /// A record with what the log holds after it, and the first record with the whole log, agree.
    pub(crate) fn replays_alike(&self, store: &Store, now: Millis) {
        let config = || CoreConfig {
            prefix: Prefix::default(),
            task_ack_wait: Duration::from_secs(10),
            run_retention: Duration::from_secs(3600),
            has_kubernetes: false,
        };
        for (run, (_, record)) in &store.records {
            if record.run.status.is_final() {
                continue;
            }
            let log = |from: u64| {
                let entries = store
                    .entries(*run)
                    .filter(move |(sequence, _)| *sequence > from);
                entries
                    .map(|(sequence, entry)| (sequence, entry.clone()))
                    .collect()
            };
            let ready = |log| {
                let record = record.clone();
                let stored = vec![StoredRun { record, log }];
                let (mut core, mut effects) = Core::restore(config(), stored, at(now));
                let mut tasks = BTreeSet::new();
                // Everything is stored at once.
                for sequence in 1_000_000_000.. {
                    tasks.extend(effects.then.into_iter().filter_map(|action| match action {
                        Action::Dispatch(_, task) => Some(task.node_id),
                        _ => None,
                    }));
                    let Some(RunWrite(run, _)) = effects.writes.pop() else {
                        break;
                    };
                    effects = core.step(Event::Written(run, sequence), at(now));
                    effects.extend(core.reconcile(at(now)));
                }
                tasks
            };
            assert_eq!(
                ready(log(0)),
                ready(log(record.private.log_sequence)),
                "what is ready does not depend on what is read"
            );
        }
    }

    pub(crate) fn at_the_end(&self, store: &Store, clients: &[Client]) {
        for client in clients {
            assert!(client.is_answered, "never answered: {:?}", client.request);
            let (ClientRequest::Create(create), true) = (&client.request, client.is_answered)
            else {
                continue;
            };
            let status = store.status(create.run_id);
            assert!(
                status.is_some_and(RunStatus::is_final),
                "a run that was created ends, {} is {status:?}",
                create.run_id
            );
            assert_eq!(
                status,
                self.runs.get(&create.run_id).map(|seen| seen.status),
                "the last record agrees with the log"
            );
        }
        for (run, checkpoint) in &self.acknowledged {
            let is_kept = self
                .runs
                .get(run)
                .is_some_and(|seen| seen.checkpoints.contains(checkpoint));
            assert!(is_kept, "an acknowledged checkpoint is in the log");
        }
        for seen in self.runs.values() {
            if seen.status == RunStatus::Completed {
                let is_done = |status: &NodeStatus| {
                    matches!(status, NodeStatus::Succeeded | NodeStatus::Skipped)
                };
                assert!(seen.nodes.values().all(|(status, _)| is_done(status)));
            }
        }
    }
}
