//! The log of a run in its stream: append, replay, and the last checkpoint of a node.

use quintet_bus::{Bus, BusError, PendingStore, PublishError};
use quintet_contract::id::{NodeId, RunId};
use quintet_contract::run::{LogEntry, RunEvent, RunLogBatch};
use quintet_contract::subject::RunLog;
use quintet_contract::topology::stream;
use serde_json::Value;

/// Appends to the log of a run, whose newest message must have the sequence `last`.
pub(crate) async fn append(
    bus: &Bus,
    run: RunId,
    events: &RunLogBatch,
    last: u64,
) -> Result<PendingStore, PublishError> {
    bus.append(&RunLog { run }, events, last).await
}

/// The entries of a run's log from a sequence of the stream on, each with the sequence of its message.
pub(crate) async fn replay(
    bus: &Bus,
    run: RunId,
    from: u64,
) -> Result<Vec<(u64, LogEntry)>, BusError> {
    let log = stream::run_logs(bus.prefix());
    let subject = RunLog { run };
    let replay = bus.replay(log, &subject, from, usize::MAX).await?;
    let messages = replay.messages.into_iter();
    let entries = messages.flat_map(|(sequence, _, events)| {
        let entries = events.entries.into_iter();
        entries.map(move |entry| (sequence, entry))
    });
    Ok(entries.collect())
}

/// The data of the last checkpoint of a node.
pub(crate) async fn last_checkpoint(
    bus: &Bus,
    run: RunId,
    node: &NodeId,
) -> Result<Option<Value>, BusError> {
    let entries = replay(bus, run, 0).await?;
    for (_, entry) in entries.into_iter().rev() {
        if let RunEvent::Checkpoint { checkpoint } = entry.fact
            && checkpoint.node_id.as_ref() == Some(node)
        {
            return Ok(checkpoint.data);
        }
    }
    Ok(None)
}
