//! An owner of runs that the test scripts: it answers what edges ask about runs, and writes their logs.
//!
//! It stands in where a test must decide what a log holds: several entries in one message or in one millisecond, many
//! thousands, or the next one only after NATS was started again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::StreamExt;
use quintet_bus::{Bus, LinkState, PublishError, new_checkpoint_id, new_run_id, now};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::event::LogStream;
use quintet_contract::id::{NodeId, RunId};
use quintet_contract::job::Attempt;
use quintet_contract::run::{Checkpoint, LogEntry, Run, RunEvent, RunLogBatch, RunMode, RunStatus};
use quintet_contract::run_api::{
    CancelReply, CheckpointReply, CreateRun, ListRuns, RunPage, RunReply,
};
use quintet_contract::subject::{
    AddRunCheckpoint, CancelRun, CompleteRuns, CreateRuns, GetRun, ListRunsOf, RunLog,
};
use quintet_contract::time::Timestamp;
use quintet_contract::topology::stream;
use serde_json::Value;
use tokio::time::timeout;

use crate::TIMEOUT;

/// A run and how far its log goes.
#[derive(Clone, Debug)]
struct OwnedRun {
    run: Run,
    entries: u64,
    sequence: u64,
}

/// The owner of every run of a test; clones are the same.
#[derive(Clone, Debug)]
pub struct Owner {
    bus: Bus,
    runs: Arc<Mutex<BTreeMap<RunId, OwnedRun>>>,
}

/// Answers every request on a subject.
macro_rules! serve {
    ($owner:ident, $subject:ident, |$message:ident| $answer:expr) => {{
        let $owner = $owner.clone();
        let filter = $subject::filter($owner.bus.prefix(), None);
        let mut requests = $owner.bus.serve::<$subject>(filter, None).await.unwrap();
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let $message = request.message;
                let answer: Result<_, ErrorReply> = async { $answer }.await;
                match answer {
                    Ok(reply) => request.responder.ok(&reply).await,
                    Err(error) => request.responder.err(&error).await,
                }
            }
        });
    }};
}

impl Owner {
    /// Makes the streams and answers from now on.
    pub async fn start(bus: Bus) -> Self {
        bus.ensure_topology().await.unwrap();
        let owner = Self {
            bus,
            runs: Arc::default(),
        };
        serve!(owner, GetRun, |asked| owner.reply(asked.run_id));
        serve!(owner, ListRunsOf, |list| Ok(owner.page(&list)));
        serve!(owner, CreateRuns, |create| owner.create(create).await);
        serve!(owner, CancelRun, |asked| {
            let status = RunStatus::Canceled;
            owner.end(asked.run_id, status, None).await?;
            Ok(CancelReply { ok: true, status })
        });
        serve!(owner, CompleteRuns, |asked| {
            owner.end(asked.run_id, asked.status, asked.error).await?;
            owner.reply(asked.run_id)
        });
        serve!(owner, AddRunCheckpoint, |add| {
            let status = owner.reply(add.run_id)?.run.status;
            if status.is_final() {
                return Err(conflict(status, RunStatus::Running));
            }
            let checkpoint = Checkpoint {
                id: add.checkpoint_id,
                run_id: add.run_id,
                ts: now(),
                kind: add.kind,
                data: add.data,
                node_id: None,
                blob: add.blob,
            };
            let fact = RunEvent::Checkpoint { checkpoint };
            owner.log(add.run_id, now(), vec![fact]).await;
            Ok(CheckpointReply {
                checkpoint_id: add.checkpoint_id,
            })
        });
        owner.bus.flush().await.unwrap();
        owner
    }

    /// A running run.
    pub async fn run(&self) -> RunId {
        let run_id = new_run_id();
        let create = CreateRun {
            run_id,
            mode: RunMode::Queue,
            plan: None,
            inputs: None,
            name: None,
            metadata: None,
            owner: None,
            retry_of: None,
            finished: BTreeMap::new(),
        };
        self.create(create).await.unwrap();
        self.log(run_id, now(), vec![status(RunStatus::Running)])
            .await;
        run_id
    }

    /// Adds entries to the log of a run, as one message, and does so until NATS confirms it.
    pub async fn log(&self, run_id: RunId, at: Timestamp, facts: Vec<RunEvent>) {
        let (entries, sequence) = {
            let runs = self.runs();
            let held = &runs[&run_id];
            (held.entries, held.sequence)
        };
        let numbered = (entries + 1..).zip(&facts).map(|(n, fact)| LogEntry {
            n,
            at,
            fact: fact.clone(),
            report: None,
        });
        let entries: Vec<LogEntry> = numbered.collect();
        let last = entries.last().unwrap().n;
        let message = RunLogBatch { run_id, entries };
        let subject = RunLog { run: run_id };
        let stored = timeout(TIMEOUT, self.stored(&subject, &message, sequence));
        let sequence = stored.await.expect("NATS confirms an entry in time");
        let mut runs = self.runs();
        let held = runs.get_mut(&run_id).unwrap();
        (held.entries, held.sequence) = (last, sequence);
        for fact in facts {
            if let RunEvent::Status { status, .. } = fact {
                held.run.status = status;
            }
        }
    }

    /// Stores a message after the one at `last`, as often as it takes, and returns its place.
    async fn stored(&self, subject: &RunLog, message: &RunLogBatch, last: u64) -> u64 {
        let mut link = self.bus.link();
        loop {
            let connected = link.wait_for(|state| *state == LinkState::Connected);
            drop(connected.await.unwrap());
            let Ok(sent) = self.bus.append(subject, message, last).await else {
                continue;
            };
            match sent.await {
                Ok(sequence) => return sequence,
                Err(PublishError::Conflict { .. }) => {
                    // An earlier try was stored after all.
                    let stream = stream::run_logs(self.bus.prefix());
                    let newest = self
                        .bus
                        .last_for_subjects(stream, std::slice::from_ref(subject))
                        .await;
                    if let Some((_, sequence, _)) = newest.unwrap().first() {
                        return *sequence;
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// Ends a run.
    pub async fn end(
        &self,
        run_id: RunId,
        to: RunStatus,
        error: Option<String>,
    ) -> Result<(), ErrorReply> {
        let from = self.reply(run_id)?.run.status;
        if from.is_final() {
            return Err(conflict(from, to));
        }
        let fact = RunEvent::Status {
            status: to,
            error,
            output: None,
        };
        self.log(run_id, now(), vec![fact]).await;
        Ok(())
    }

    async fn create(&self, create: CreateRun) -> Result<RunReply, ErrorReply> {
        let run = Run {
            id: create.run_id,
            mode: create.mode,
            name: create.name,
            status: RunStatus::Pending,
            created_at: now(),
            started_at: None,
            ended_at: None,
            owner: create.owner,
            metadata: create.metadata,
            inputs: create.inputs,
            plan: None,
            nodes: None,
            error: None,
            output: None,
            retry_of: create.retry_of,
        };
        let held = OwnedRun {
            run,
            entries: 0,
            sequence: 0,
        };
        self.runs().insert(create.run_id, held);
        self.log(create.run_id, now(), vec![status(RunStatus::Pending)])
            .await;
        self.reply(create.run_id)
    }

    fn reply(&self, run_id: RunId) -> Result<RunReply, ErrorReply> {
        let runs = self.runs();
        let held = runs.get(&run_id);
        let held = held.ok_or_else(|| ErrorReply::new(ErrorCode::NotFound, "run not found"))?;
        Ok(RunReply {
            run: held.run.clone(),
            entries: held.entries,
        })
    }

    fn page(&self, _: &ListRuns) -> RunPage {
        RunPage { runs: Vec::new() }
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<RunId, OwnedRun>> {
        self.runs.lock().unwrap()
    }
}

/// A status as an entry.
pub fn status(status: RunStatus) -> RunEvent {
    RunEvent::Status {
        status,
        error: None,
        output: None,
    }
}

/// A checkpoint as an entry.
pub fn checkpoint(run_id: RunId, kind: &str, data: Value) -> RunEvent {
    RunEvent::Checkpoint {
        checkpoint: Checkpoint {
            id: new_checkpoint_id(),
            run_id,
            ts: now(),
            kind: kind.to_owned(),
            data: Some(data),
            node_id: None,
            blob: None,
        },
    }
}

/// A line of output as an entry.
pub fn line(text: impl Into<String>) -> RunEvent {
    RunEvent::Log {
        node_id: NodeId::parse("node").unwrap(),
        attempt: Attempt(1),
        stream: LogStream::Stdout,
        line: text.into(),
    }
}

fn conflict(from: RunStatus, to: RunStatus) -> ErrorReply {
    let reply = ErrorReply::new(ErrorCode::Conflict, "invalid status transition");
    reply.with("from", from.as_str()).with("to", to.as_str())
}
