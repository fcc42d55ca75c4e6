//! Run workers: they take tasks, report step by step, each report until it is answered, and acknowledge at the end.

use quintet_contract::id::{CheckpointId, NodeId, RunId, WorkerId};
use quintet_contract::job::Attempt;
use quintet_contract::task::{RunReport, Task, Verdict, WorkerEvent};
use rand::Rng;
use serde_json::json;

use super::{Millis, Requester, SimEvent, World};

const TICK: Millis = 150;
const CAPACITY: usize = 2;
const ACK_WAIT: Millis = 10_000;
const REPORT_AGAIN: Millis = 1_000;

pub(crate) struct Worker {
    index: usize,
    life: u64,
    pub(crate) frozen_until: Millis,
    held: Vec<HeldTask>,
    reports: u64,
}

#[derive(Clone, Debug)]
struct HeldTask {
    key: u64,
    task: Task,
    delivered: u32,
    attempt: u32,
    seq: u64,
    steps_left: u32,
    /// The report that is in flight: its number here, when it was sent, its content.
    open: Option<(u64, Millis, RunReport, CheckpointId)>,
    /// Its last report was answered, or it is no longer ours.
    is_over: bool,
}

impl Worker {
    pub(crate) fn new(index: usize) -> Self {
        Self {
            index,
            life: 0,
            frozen_until: 0,
            held: Vec::new(),
            reports: 0,
        }
    }

    pub(crate) fn crash(&mut self) -> u64 {
        self.held.clear();
        self.life += 1;
        self.life
    }

    pub(crate) fn cancel(&mut self, run: RunId, node: &NodeId, attempt: u32) {
        for held in &mut self.held {
            let is_meant =
                held.task.run_id == run && held.task.node_id == *node && held.attempt == attempt;
            if is_meant {
                held.is_over = true;
            }
        }
    }

    /// Its tasks in flight, for messages.
    pub(crate) fn shown(&self) -> String {
        format!("{:?}", self.held)
    }

    fn name(&self) -> WorkerId {
        WorkerId::parse(format!("w{}.{}", self.index, self.life)).unwrap()
    }
}

impl World {
    pub(super) fn worker_tick(&mut self, index: usize, life: u64) {
        if self.workers[index].life != life {
            return;
        }
        let frozen = self.workers[index].frozen_until - self.now;
        if frozen > 0 {
            self.after(frozen, SimEvent::WorkerTick(index, life));
            return;
        }
        self.after(TICK, SimEvent::WorkerTick(index, life));
        let mut held = std::mem::take(&mut self.workers[index].held);
        for one in &mut held {
            self.advance(index, one);
        }
        for one in held.iter().filter(|one| one.is_over) {
            // The acknowledgement may be lost: then the task comes again.
            if !self.has_faults() || self.rng.random_bool(0.9) {
                self.queue.retain(|queued| queued.key != one.key);
            }
        }
        held.retain(|one| !one.is_over);
        while held.len() < CAPACITY {
            let now = self.now;
            let Some(queued) = self
                .queue
                .iter_mut()
                .find(|queued| queued.visible_at <= now)
            else {
                break;
            };
            queued.visible_at = now + ACK_WAIT;
            queued.delivered += 1;
            held.push(HeldTask {
                key: queued.key,
                task: queued.task.clone(),
                delivered: queued.delivered,
                attempt: 0,
                seq: 0,
                steps_left: 0,
                open: None,
                is_over: false,
            });
        }
        self.workers[index].held = held;
    }

    fn advance(&mut self, index: usize, held: &mut HeldTask) {
        if held.is_over {
            return;
        }
        // Still at it.
        if let Some(queued) = self.queue.iter_mut().find(|queued| queued.key == held.key) {
            queued.visible_at = queued.visible_at.max(self.now + ACK_WAIT);
        }
        let is_due = match &held.open {
            Some((_, sent, _, _)) => self.now - sent >= REPORT_AGAIN,
            None => self.rng.random_bool(0.5),
        };
        if !is_due {
            return;
        }
        if held.open.is_none() {
            let event = self.next_event(held);
            self.workers[index].reports += 1;
            let report = RunReport {
                run_id: held.task.run_id,
                node_id: held.task.node_id.clone(),
                worker: self.workers[index].name(),
                attempt: Attempt(held.attempt),
                seq: held.seq,
                event,
            };
            let id = CheckpointId::from_uuid(self.id());
            self.trace(|| {
                let number = self.workers[index].reports;
                let RunReport { node_id, attempt, seq, event, .. } = &report;
                format!("worker {index}: report {number} of task {}: {node_id} {attempt}.{seq} {event:?}", held.key)
            });
            held.open = Some((self.workers[index].reports, self.now, report, id));
        }
        if let Some((number, sent, report, id)) = &mut held.open {
            *sent = self.now;
            let requester = Requester::Worker(index, self.workers[index].life, *number);
            let request = Box::new((report.clone(), *id));
            self.send(SimEvent::Request(requester, request));
        }
    }

    fn next_event(&mut self, held: &mut HeldTask) -> WorkerEvent {
        if held.attempt == 0 {
            return WorkerEvent::Take {
                delivered: held.delivered,
                sequence: held.key,
            };
        }
        held.seq += 1;
        if held.steps_left > 0 {
            held.steps_left -= 1;
            let at = json!(held.steps_left);
            return match held.steps_left % 2 {
                0 => WorkerEvent::Checkpoint {
                    name: None,
                    data: Some(at),
                },
                _ => WorkerEvent::Output {
                    data: json!({"at": at}).as_object().cloned().unwrap_or_default(),
                },
            };
        }
        if self.rng.random_bool(0.1) {
            return WorkerEvent::Failed {
                error: "bad luck".to_owned(),
                retryable: true,
            };
        }
        WorkerEvent::Succeeded { output: None }
    }

    pub(super) fn verdict(
        &mut self,
        index: usize,
        life: u64,
        number: u64,
        verdict: Option<Verdict>,
    ) {
        let steps = self.rng.random_range(0..4);
        let worker = &mut self.workers[index];
        if worker.life != life {
            return;
        }
        let Some(held) = worker
            .held
            .iter_mut()
            .find(|held| held.open.as_ref().is_some_and(|(open, ..)| *open == number))
        else {
            return;
        };
        let Some((_, _, report, _)) = held.open.take() else {
            return;
        };
        match verdict {
            Some(Verdict::Granted { attempt, .. }) => {
                held.attempt = attempt.0;
                held.steps_left = steps;
                let (run, node) = (report.run_id, &report.node_id);
                self.rules
                    .begins(run, node, attempt.0, report.worker.clone());
            }
            Some(Verdict::Ok | Verdict::Refused { .. }) => {
                held.is_over = matches!(
                    report.event,
                    WorkerEvent::Succeeded { .. } | WorkerEvent::Failed { .. }
                );
            }
            Some(Verdict::Gone { .. }) | None => held.is_over = true,
        }
    }
}
