//! Events of a job that are kept in a stream: log lines and notable events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::JobId;
use crate::job::Attempt;
use crate::time::Timestamp;

/// Longest log line in bytes; agents cut longer ones.
pub const MAX_LOG_LINE_BYTES: usize = 8 * 1024;

/// Which of a program's outputs a line came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LogStream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
    /// Written by the agent, not by the program: for example that lines were dropped.
    Agent,
    /// Another source, named by a newer version.
    #[serde(other)]
    Unknown,
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// When the agent read it.
    pub at: Timestamp,
    /// Where it came from.
    #[serde(default)]
    pub stream: LogStream,
    /// The text without its line end.
    pub line: String,
}

/// Consecutive lines of one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobLog {
    /// The job.
    pub job_id: JobId,
    /// Which placement; older agents leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
}

/// Something notable that happened to a job, such as progress, a mute, a stall, a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobEvent {
    /// The job.
    pub job_id: JobId,
    /// What happened, for example `progress`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One sentence for people.
    pub message: String,
    /// Numbers and more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
    /// When.
    pub ts: Timestamp,
}
