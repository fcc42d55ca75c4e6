//! The wall clock and fresh ids: the one place where either comes from.
//!
//! Cores take both as arguments, so that tests and the simulation decide them.

use std::time::{SystemTime, UNIX_EPOCH};

use quintet_contract::id::{AgentSession, CheckpointId, JobId, MessageId, RunId, RunShard};
use quintet_contract::time::Timestamp;
use uuid::Uuid;

/// The wall-clock time.
pub fn now() -> Timestamp {
    // A clock before 1970 is a machine without a clock: the epoch is as good as any time then.
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// A fresh id for a message.
pub fn new_message_id() -> MessageId {
    MessageId::from_uuid(Uuid::now_v7())
}

/// A fresh id for an agent's session.
pub fn new_session() -> AgentSession {
    AgentSession::from_uuid(Uuid::now_v7())
}

/// A fresh id for a job.
pub fn new_job_id() -> JobId {
    JobId::from_uuid(Uuid::now_v7())
}

/// A fresh id for a run.
pub fn new_run_id() -> RunId {
    RunId::from_uuid(Uuid::now_v7())
}

/// A fresh id for a run in a given shard.
pub fn new_run_id_in(shard: RunShard) -> RunId {
    let mut bytes = Uuid::now_v7().into_bytes();
    let [.., last] = &mut bytes;
    // The same bits as before, but for those of the shard.
    *last = *last - *last % RunShard::COUNT + shard.number();
    RunId::from_uuid(Uuid::from_bytes(bytes))
}

/// A fresh id for a checkpoint.
pub fn new_checkpoint_id() -> CheckpointId {
    CheckpointId::from_uuid(Uuid::now_v7())
}
