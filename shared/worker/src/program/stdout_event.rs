//! Events of a program: a line of its standard output is an event when it is a JSON object whose `type` names one, with
//! its content beside the type or under `data`. Every other line is a line of output.

use quintet_contract::event::LogStream;
use quintet_contract::run::MAX_CHECKPOINT_BYTES;
use quintet_contract::{JsonObject, nesting};
use serde_json::Value;

/// Longest line that is read as an event: the largest checkpoint, and room for what is around it.
pub const MAX_EVENT_BYTES: usize = MAX_CHECKPOINT_BYTES + 4 * 1024;

/// An event of a program.
#[derive(Clone, Debug, PartialEq)]
pub enum ProgramEvent {
    /// It can continue from here.
    Checkpoint {
        /// What the checkpoint is called.
        name: Option<String>,
        /// What it needs to continue.
        data: Option<Value>,
    },
    /// It put something out.
    Output(JsonObject),
    /// How far it is.
    Progress(JsonObject),
    /// A log line, sent as an event.
    Log {
        /// Standard error for the level `error`.
        stream: LogStream,
        /// The text.
        line: String,
    },
    /// It is still at it.
    Heartbeat,
    /// Why it is about to fail.
    Error {
        /// The message of the failure.
        message: Option<String>,
        /// Whether another attempt may help.
        retryable: Option<bool>,
    },
    /// An event that cannot be stored, and why.
    Unusable(String),
}

impl ProgramEvent {
    /// Reads a line; `None` when it is no event.
    pub fn read(line: &[u8]) -> Option<Self> {
        // Most lines of most programs end here.
        if line.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        let mut fields: JsonObject = serde_json::from_slice(line).ok()?;
        let read = match fields.get("type")?.as_str()? {
            "checkpoint" => checkpoint,
            "output" => |fields| Self::Output(content(fields)),
            "progress" => |fields| Self::Progress(content(fields)),
            "log" => log,
            "error" => error,
            "heartbeat" => |_| Self::Heartbeat,
            _ => return None,
        };
        fields.remove("type");
        if !nesting::is_bounded_object(&fields) {
            let levels = nesting::MAX_LEVELS;
            return Some(Self::Unusable(format!(
                "an event was nested deeper than {levels} levels and is lost"
            )));
        }
        Some(read(fields))
    }
}

/// The content of an event, in either form.
fn content(mut fields: JsonObject) -> JsonObject {
    match fields.remove("data") {
        Some(Value::Object(data)) => data,
        Some(data) => {
            fields.insert("data".to_owned(), data);
            fields
        }
        None => fields,
    }
}

fn checkpoint(mut fields: JsonObject) -> ProgramEvent {
    let name = take_text(&mut fields, "name");
    let data = match fields.remove("data") {
        Some(data) => Some(data),
        None if fields.is_empty() => None,
        None => Some(Value::Object(fields)),
    };
    ProgramEvent::Checkpoint { name, data }
}

fn log(fields: JsonObject) -> ProgramEvent {
    let mut fields = content(fields);
    let line = take_text(&mut fields, "line").or_else(|| take_text(&mut fields, "message"));
    let level = take_text(&mut fields, "level").unwrap_or_default();
    let stream = if level.eq_ignore_ascii_case("error") {
        LogStream::Stderr
    } else {
        LogStream::Stdout
    };
    let line = line.unwrap_or_else(|| Value::Object(fields).to_string());
    ProgramEvent::Log { stream, line }
}

fn error(fields: JsonObject) -> ProgramEvent {
    let mut fields = content(fields);
    let message = take_text(&mut fields, "message").or_else(|| take_text(&mut fields, "error"));
    ProgramEvent::Error {
        message,
        retryable: fields.get("retryable").and_then(Value::as_bool),
    }
}

fn take_text(fields: &mut JsonObject, name: &str) -> Option<String> {
    match fields.remove(name) {
        Some(Value::String(text)) => Some(text),
        Some(other) => {
            fields.insert(name.to_owned(), other);
            None
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(line: &str) -> Option<ProgramEvent> {
        ProgramEvent::read(line.as_bytes())
    }

    fn object(value: Value) -> JsonObject {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn the_content_of_an_event_stands_beside_its_type_or_under_data() {
        let wanted = ProgramEvent::Output(object(json!({"rows": 5})));
        assert_eq!(read(r#"{"type":"output","rows":5}"#), Some(wanted.clone()));
        assert_eq!(
            read(r#" {"type":"output","data":{"rows":5}} "#),
            Some(wanted)
        );
        let checkpoint = |name: Option<&str>, data| {
            let name = name.map(str::to_owned);
            Some(ProgramEvent::Checkpoint { name, data })
        };
        assert_eq!(
            read(r#"{"type":"checkpoint","name":"epoch","data":[1,2]}"#),
            checkpoint(Some("epoch"), Some(json!([1, 2])))
        );
        assert_eq!(
            read(r#"{"type":"checkpoint","step":3}"#),
            checkpoint(None, Some(json!({"step": 3})))
        );
        assert_eq!(read(r#"{"type":"checkpoint"}"#), checkpoint(None, None));
        assert_eq!(
            read(r#"{"type":"heartbeat"}"#),
            Some(ProgramEvent::Heartbeat)
        );
    }

    #[test]
    fn logs_have_a_level_and_errors_a_message() {
        let line = |text: &str, stream| {
            let line = text.to_owned();
            Some(ProgramEvent::Log { stream, line })
        };
        assert_eq!(
            read(r#"{"type":"log","message":"hi"}"#),
            line("hi", LogStream::Stdout)
        );
        assert_eq!(
            read(r#"{"type":"log","level":"ERROR","line":"oh"}"#),
            line("oh", LogStream::Stderr)
        );
        assert_eq!(
            read(r#"{"type":"error","error":"no disk","retryable":true}"#),
            Some(ProgramEvent::Error {
                message: Some("no disk".to_owned()),
                retryable: Some(true)
            })
        );
    }

    #[test]
    fn everything_else_is_output() {
        for line in [
            "",
            "hello",
            "{",
            "{}",
            r#"{"type":5}"#,
            r#"{"type":"dance"}"#,
            r#"[{"type":"output"}]"#,
            r#"{"type":"output"} and more"#,
        ] {
            assert_eq!(read(line), None, "{line}");
        }
        let deep = format!(
            r#"{{"type":"output","a":{}1{}}}"#,
            "[".repeat(40),
            "]".repeat(40)
        );
        assert!(matches!(read(&deep), Some(ProgramEvent::Unusable(_))));
    }

    proptest! {
        #[test]
        fn reading_never_panics(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut line = line;
            let _ = ProgramEvent::read(&line);
            line.insert(0, b'{');
            let _ = ProgramEvent::read(&line);
        }
    }
}
