//! An entry of a run's log as a server-sent event.
//!
//! The id of an event is `<time of the entry>_<its number>`. The number has ten digits, so that ids sort as texts do, also
//! within one millisecond; it alone is the resume position.

use bytes::Bytes;
use quintet_contract::id::RunId;
use quintet_contract::run::{LogEntry, RunEvent, RunStreamEvent};
use quintet_contract::time::Timestamp;

/// What an event means for its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A checkpoint.
    Checkpoint,
    /// The last status of the run: nothing comes after it.
    End,
    /// Anything else.
    Other,
}

impl Kind {
    pub(crate) fn of(fact: &RunEvent) -> Self {
        match fact {
            RunEvent::Checkpoint { .. } => Self::Checkpoint,
            RunEvent::Status { status, .. } if status.is_final() => Self::End,
            RunEvent::Status { .. }
            | RunEvent::Node { .. }
            | RunEvent::Output { .. }
            | RunEvent::Progress { .. }
            | RunEvent::Log { .. }
            | RunEvent::Unknown => Self::Other,
        }
    }
}

/// An entry, encoded for all clients.
#[derive(Debug)]
pub(crate) struct EncodedEvent {
    /// Its number in the log.
    pub(crate) n: u64,
    /// When it happened.
    pub(crate) at: Timestamp,
    /// The message in the stream that holds it.
    pub(crate) sequence: u64,
    /// What it means.
    pub(crate) kind: Kind,
    /// The event; empty for an entry of a newer version, which is not sent.
    pub(crate) bytes: Bytes,
}

/// Writes an entry.
pub(crate) fn encode(run_id: RunId, sequence: u64, entry: &LogEntry) -> EncodedEvent {
    let id = format!("{}_{:010}", entry.at, entry.n);
    let event = RunStreamEvent::of(run_id, &entry.fact);
    EncodedEvent {
        n: entry.n,
        at: entry.at,
        sequence,
        kind: Kind::of(&entry.fact),
        bytes: event.map_or_else(Bytes::new, |event| event_text(&event, Some(&id))),
    }
}

/// A server-sent event: its name is the event's type, its data the bare content.
pub(crate) fn event_text(event: &RunStreamEvent, id: Option<&str>) -> Bytes {
    let text = serde_json::to_string(event).unwrap_or_default();
    let parts = text.strip_prefix(r#"{"type":""#).and_then(|rest| {
        let (name, data) = rest.split_once(r#"","data":"#)?;
        Some((name, data.strip_suffix('}')?))
    });
    let (name, data) = parts.expect("type and content of an event stand in this order");
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use quintet_bus::{new_checkpoint_id, new_run_id};
    use quintet_contract::event::LogStream;
    use quintet_contract::id::NodeId;
    use quintet_contract::job::Attempt;
    use quintet_contract::run::{Checkpoint, NodeEvent, RunStatus};
    use serde_json::{Value, json};

    use super::*;

    /// Every kind of fact.
    fn facts(run_id: RunId, at: Timestamp) -> Vec<(&'static str, RunEvent)> {
        let (node_id, attempt) = (NodeId::parse("a").unwrap(), Attempt(1));
        let data = json!({"type\":\"": "\",\"data\":{}"})
            .as_object()
            .unwrap()
            .clone();
        let status = |status| RunEvent::Status {
            status,
            error: None,
            output: None,
        };
        let checkpoint = Checkpoint {
            id: new_checkpoint_id(),
            run_id,
            ts: at,
            kind: "half\n".to_owned(),
            data: Some(json!({"x": 1})),
            node_id: None,
            blob: None,
        };
        vec![
            ("status", status(RunStatus::Running)),
            ("status", status(RunStatus::Failed)),
            (
                "node",
                RunEvent::Node {
                    node: NodeEvent::default(),
                },
            ),
            ("checkpoint", RunEvent::Checkpoint { checkpoint }),
            (
                "output",
                RunEvent::Output {
                    node_id: node_id.clone(),
                    attempt,
                    output: data.clone(),
                },
            ),
            (
                "progress",
                RunEvent::Progress {
                    node_id: node_id.clone(),
                    attempt,
                    data,
                },
            ),
            (
                "log",
                RunEvent::Log {
                    node_id,
                    attempt,
                    stream: LogStream::Stderr,
                    line: "a \"line\" \u{2028}\r\n".to_owned(),
                },
            ),
        ]
    }

    #[test]
    fn every_event_has_its_name_an_id_that_sorts_and_bare_data() {
        let (run_id, at) = (new_run_id(), Timestamp::from_millis(1_704_067_200_005));
        let mut last = String::new();
        for (n, (name, fact)) in (9..).zip(facts(run_id, at)) {
            let entry = LogEntry {
                n,
                at,
                fact: fact.clone(),
                report: None,
            };
            let encoded = encode(run_id, 77, &entry);
            let text = std::str::from_utf8(&encoded.bytes).unwrap();
            let id = format!("2024-01-01T00:00:00.005Z_{n:010}");
            assert!(id > last, "{id} comes after {last}");
            let data = text
                .strip_prefix(&format!("event: {name}\nid: {id}\ndata: "))
                .and_then(|rest| rest.strip_suffix("\n\n"))
                .unwrap_or_else(|| panic!("{text}"));
            assert!(!data.contains(['\n', '\r']), "one line");
            let data: Value = serde_json::from_str(data).unwrap();
            let event = serde_json::to_value(RunStreamEvent::of(run_id, &fact).unwrap()).unwrap();
            assert_eq!(data, event["data"]);
            assert_eq!(data["runId"], json!(run_id));
            last = id;
        }
        let entry = LogEntry {
            n: 1,
            at,
            fact: RunEvent::Unknown,
            report: None,
        };
        assert!(encode(run_id, 1, &entry).bytes.is_empty());
    }
}
