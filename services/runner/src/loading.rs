//! Loading a shard: its records, and of runs that have not ended what their logs hold beyond their records.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt};
use quintet_bus::{Bus, BusError};
use quintet_contract::bucket::{RunKey, Runs};
use quintet_contract::id::{RunId, RunShard};
use quintet_contract::subject::RunLog;
use quintet_contract::topology::stream;
use quintet_leader::ReloadReason;

use crate::core::StoredRun;
use crate::outbound::Position;
use crate::runlog;

/// Logs read at once.
const LOGS_AT_ONCE: usize = 64;

/// The runs of a shard, and where each is stored.
pub(crate) struct Loaded {
    pub(crate) runs: Vec<StoredRun>,
    pub(crate) positions: HashMap<RunId, Position>,
}

/// Loads a shard.
pub(crate) async fn load(bus: &Bus, shard: RunShard) -> Result<Loaded, ReloadReason> {
    let records = bus.bucket::<Runs>();
    let records = records.load_of(&RunKey::filter(shard)).await?;
    let mut positions: HashMap<RunId, Position> = HashMap::new();
    let mut runs = Vec::with_capacity(records.entries.len());
    let mut open = Vec::new();
    for (RunKey(run), found) in records.entries {
        if !found.record.run.status.is_final() {
            let position = Position {
                revision: found.revision,
                sequence: 0,
            };
            positions.insert(run, position);
            open.push(RunLog { run });
        }
        runs.push(StoredRun {
            record: found.record,
            log: Vec::new(),
        });
    }
    let log = stream::run_logs(bus.prefix());
    for (RunLog { run }, sequence, _) in bus.last_for_subjects(log, &open).await? {
        positions.entry(run).or_default().sequence = sequence;
    }
    let runs = futures::stream::iter(runs)
        .map(|stored| {
            let position = positions.get(&stored.record.run.id);
            let last = position.map_or(0, |position| position.sequence);
            with_log(bus, stored, last)
        })
        .buffer_unordered(LOGS_AT_ONCE)
        .try_collect()
        .await?;
    Ok(Loaded { runs, positions })
}

/// Adds what the log of a run holds beyond its record, up to this sequence.
async fn with_log(bus: &Bus, mut stored: StoredRun, last: u64) -> Result<StoredRun, BusError> {
    let known = stored.record.private.log_sequence;
    if last > known {
        stored.log = runlog::replay(bus, stored.record.run.id, known + 1).await?;
    }
    Ok(stored)
}
