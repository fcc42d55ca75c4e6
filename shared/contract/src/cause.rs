//! Causes: which piece of work a record was made for, so that one piece of work can be followed through all kinds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{JobId, NodeId, RunId};

/// The kinds of work that cause other work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CauseKind {
    /// A durable run.
    Run,
    /// A node of a run; its id is `<run>/<node>`.
    Node,
    /// A job.
    Job,
    /// A kind of a newer version.
    #[serde(other)]
    Unknown,
}

/// The piece of work that a record was made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct CausedBy {
    /// Its kind.
    pub kind: CauseKind,
    /// Its id, unique within its kind.
    pub id: String,
}

impl CausedBy {
    /// A run, such as the one that another run continues.
    pub fn run(run: RunId) -> Self {
        Self {
            kind: CauseKind::Run,
            id: run.to_string(),
        }
    }

    /// A node of a run.
    pub fn node(run: RunId, node: &NodeId) -> Self {
        Self {
            kind: CauseKind::Node,
            id: format!("{run}/{node}"),
        }
    }

    /// A job.
    pub fn job(job: &JobId) -> Self {
        Self {
            kind: CauseKind::Job,
            id: job.to_string(),
        }
    }
}

/// Id of a distributed trace: 32 hexadecimal digits, as in a W3C `traceparent`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TraceId(String);

/// Longest `traceparent` that is kept: 55 bytes in the version of today, and some for a later one.
const MAX_TRACEPARENT_BYTES: usize = 64;

/// Whether a text is a W3C `traceparent` that names a trace, and short enough to be stored with a record.
pub fn is_traceparent(text: &str) -> bool {
    text.len() <= MAX_TRACEPARENT_BYTES && TraceId::of_traceparent(text).is_some()
}

impl TraceId {
    /// The id in a `traceparent`; none where that is no such header or names no trace.
    pub fn of_traceparent(traceparent: &str) -> Option<Self> {
        let id = traceparent.split('-').nth(1)?;
        let is_id = id.len() == 32
            && id.bytes().all(|byte| byte.is_ascii_hexdigit())
            && id.bytes().any(|byte| byte != b'0');
        is_id.then(|| Self(id.to_ascii_lowercase()))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_is_read_from_a_traceparent() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let traceparent = format!("00-{id}-00f067aa0ba902b7-01");
        assert_eq!(TraceId::of_traceparent(&traceparent).unwrap().as_str(), id);
        assert!(is_traceparent(&traceparent));
        let endless = format!("{traceparent}{}", "0".repeat(60_000));
        assert!(!is_traceparent(&endless), "it would be stored");
        for other in [
            "",
            "00",
            "00-xyz-1-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceId::of_traceparent(other), None, "{other}");
        }
    }
}
