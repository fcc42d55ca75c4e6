//! The store: records and logs, both written by compare and swap.

use std::collections::BTreeMap;

use quintet_contract::id::RunId;
use quintet_contract::run::RunEvent;
use quintet_contract::run::{LogEntry, RunLogBatch, RunRecord, RunStatus};

/// A write in flight.
#[derive(Clone, Debug)]
pub(crate) enum StoreWrite {
    Record {
        run: RunId,
        expected: u64,
        record: Box<RunRecord>,
    },
    Log {
        run: RunId,
        expected: u64,
        events: RunLogBatch,
    },
}

/// The outcome of a write.
#[derive(Clone, Debug)]
pub(crate) enum Applied {
    Record(RunId, u64),
    Log(RunId, u64),
    Refused,
}

#[derive(Default)]
pub(crate) struct Store {
    sequence: u64,
    pub(crate) records: BTreeMap<RunId, (u64, RunRecord)>,
    pub(crate) logs: BTreeMap<RunId, Vec<(u64, RunLogBatch)>>,
}

impl Store {
    pub(crate) fn apply(&mut self, write: StoreWrite) -> Applied {
        match write {
            StoreWrite::Record {
                run,
                expected,
                record,
            } => {
                if self.records.get(&run).map_or(0, |(revision, _)| *revision) != expected {
                    return Applied::Refused;
                }
                self.sequence += 1;
                self.records.insert(run, (self.sequence, *record));
                Applied::Record(run, self.sequence)
            }
            StoreWrite::Log {
                run,
                expected,
                events,
            } => {
                if self.last(run) != expected {
                    return Applied::Refused;
                }
                self.sequence += 1;
                self.logs
                    .entry(run)
                    .or_default()
                    .push((self.sequence, events));
                Applied::Log(run, self.sequence)
            }
        }
    }

    pub(crate) fn last(&self, run: RunId) -> u64 {
        let log = self.logs.get(&run);
        log.and_then(|log| log.last())
            .map_or(0, |(sequence, _)| *sequence)
    }

    pub(crate) fn entries(&self, run: RunId) -> impl Iterator<Item = (u64, &LogEntry)> {
        self.logs
            .get(&run)
            .into_iter()
            .flatten()
            .flat_map(|(sequence, events)| events.entries.iter().map(|entry| (*sequence, entry)))
    }

    /// Whether the log of a run holds its end.
    pub(crate) fn has_ended(&self, run: RunId) -> bool {
        let is_end = |entry: &LogEntry| matches!(&entry.fact, RunEvent::Status { status, .. } if status.is_final());
        self.entries(run).any(|(_, entry)| is_end(entry))
    }

    pub(crate) fn all_ended(&self) -> bool {
        let is_over = |(_, record): &(u64, RunRecord)| record.run.status.is_final();
        self.records.values().all(is_over)
    }

    pub(crate) fn status(&self, run: RunId) -> Option<RunStatus> {
        self.records.get(&run).map(|(_, record)| record.run.status)
    }
}
