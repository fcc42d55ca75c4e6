//! The wall clock and fresh ids: the one place where either comes from.
//!
//! Cores take both as arguments, so that tests and the simulation decide them.

use std::time::{SystemTime, UNIX_EPOCH};

use quintet_contract::id::{AgentSession, JobId, MessageId};
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
