//! Looks at the bus: `quintet tap` and `quintet decode`.

use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use futures::StreamExt;
use futures::stream::select_all;
use quintet_bus::{Tapped, now, to_json_text};
use quintet_service::settings::Setting;
use serde_json::{Value, json};

use crate::cli::exit::Outcome;
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::nats::connect;
use crate::settings::{Flags, Groups, nats, shared};

/// Bytes of a message that cannot be decoded which are shown.
const SHOWN_BYTES: usize = 64;

/// The settings by which the bus is found.
#[derive(Clone, Debug)]
pub(crate) struct TapGroups;

impl Groups for TapGroups {
    fn tables() -> Vec<&'static [Setting]> {
        vec![nats::TABLE, shared::DATA_DIR]
    }
}

#[derive(Args)]
pub(crate) struct DecodeCommand;

#[derive(Args)]
pub(crate) struct TapCommand {
    /// Subjects, with NATS wildcards; everything of ours without any
    filters: Vec<String>,
    #[command(flatten)]
    flags: Flags<TapGroups>,
}

/// Prints what passes by until it is interrupted.
pub(super) async fn tap(command: TapCommand, global: &Global) -> Outcome {
    let loaded = command
        .flags
        .read(|read| (nats::read(read), PathBuf::from(read.text("data_dir"))))?;
    if command.flags.print_config {
        print(loaded.printed.trim_end());
        return Ok(());
    }
    let (nats, data_dir) = loaded.settings;
    let bus = connect(&nats, &data_dir).await?;
    let filters = match command.filters.is_empty() {
        true => vec![format!("{}.>", bus.prefix())],
        false => command.filters,
    };
    let mut taps = Vec::new();
    for filter in &filters {
        taps.push(bus.tap(filter).await?);
    }
    let mut messages = select_all(taps);
    loop {
        let message = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => return Ok(()),
            message = messages.next() => message,
        };
        let Some(message) = message else {
            return Ok(());
        };
        show(&message, global.output);
    }
}

fn show(message: &Tapped, output: Output) {
    let text = readable(&message.body);
    match output {
        Output::Json => {
            let body: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            let headers: serde_json::Map<String, Value> = message
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect();
            print(
                json!({"at": now(), "subject": message.subject, "headers": headers, "body": body}),
            );
        }
        Output::Table => {
            let kind = if message.wants_answer { "?" } else { " " };
            let (subject, size) = (&message.subject, message.body.len());
            print(format_args!("{} {kind} {subject} ({size} B) {text}", now()));
        }
    }
}

/// The message as JSON, or its first bytes.
fn readable(body: &[u8]) -> String {
    if body.is_empty() {
        return String::new();
    }
    to_json_text(body).unwrap_or_else(|_| {
        let bytes: String = body
            .iter()
            .take(SHOWN_BYTES)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!(
            "0x{bytes}{}",
            if body.len() > SHOWN_BYTES { "…" } else { "" }
        )
    })
}

/// One message from standard input, as JSON on standard output.
pub(super) async fn decode(_: DecodeCommand, _: &Global) -> Outcome {
    let mut body = Vec::new();
    std::io::stdin()
        .read_to_end(&mut body)
        .context("cannot read standard input")?;
    if !body.is_empty() {
        print(readable(&body));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_shown_as_json_and_others_by_their_bytes() {
        let message =
            quintet_bus::encode(&json!({"a": 1}), quintet_bus::Encoding::MessagePack).unwrap();
        assert_eq!(readable(&message), r#"{"a":1}"#);
        assert_eq!(readable(br#"{"a":1}"#), r#"{"a":1}"#);
        assert_eq!(readable(&[0xc1, 0xff]), "0xc1ff");
        assert_eq!(readable(&[]), "");
    }
}
