//! Events for accounting: their kind, and their approximate size.

use quintet_contract::JsonObject;
use quintet_contract::task::WorkerEvent;
use serde_json::Value;

/// Bytes that a report has around its content, about.
pub(super) const OVERHEAD_BYTES: usize = 192;

/// What an answer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Heartbeat,
    Log,
    Content,
}

impl EventKind {
    pub(super) const fn of(event: &WorkerEvent) -> Self {
        match event {
            WorkerEvent::Heartbeat => Self::Heartbeat,
            WorkerEvent::Log { .. } => Self::Log,
            WorkerEvent::Take { .. }
            | WorkerEvent::Checkpoint { .. }
            | WorkerEvent::Output { .. }
            | WorkerEvent::Progress { .. }
            | WorkerEvent::Succeeded { .. }
            | WorkerEvent::Failed { .. }
            | WorkerEvent::Unknown => Self::Content,
        }
    }
}

/// About how many bytes an event is in a message.
pub(super) fn size(event: &WorkerEvent) -> usize {
    let content = match event {
        WorkerEvent::Take { .. } | WorkerEvent::Heartbeat | WorkerEvent::Unknown => 0,
        WorkerEvent::Checkpoint { name, data } => {
            name.as_ref().map_or(0, String::len) + data.as_ref().map_or(0, size_of_value)
        }
        WorkerEvent::Output { data } | WorkerEvent::Progress { data } => size_of_object(data),
        WorkerEvent::Log { line, .. } => line.len(),
        WorkerEvent::Succeeded { output } => output.as_ref().map_or(0, size_of_object),
        WorkerEvent::Failed { error, .. } => error.len(),
    };
    OVERHEAD_BYTES + content
}

fn size_of_object(object: &JsonObject) -> usize {
    let fields = object.iter();
    fields
        .map(|(name, value)| name.len() + 5 + size_of_value(value))
        .sum()
}

fn size_of_value(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 1,
        Value::Number(_) => 9,
        Value::String(text) => text.len() + 5,
        Value::Array(items) => 5 + items.iter().map(size_of_value).sum::<usize>(),
        Value::Object(fields) => 5 + size_of_object(fields),
    }
}
