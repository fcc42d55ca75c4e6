//! Input of the command line: JSON in files, on standard input or as it is, and `key=value` pairs.

use std::io::Read;

use anyhow::Context;
use serde_json::{Map, Value};

use crate::cli::exit::{self, Failure};

/// JSON in a file, or on standard input for `-`.
pub(crate) fn file(name: &str) -> anyhow::Result<Value> {
    let text = if name == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
        text
    } else {
        std::fs::read_to_string(name)
            .map_err(|error| Failure::new(exit::USAGE, format!("cannot read {name}: {error}")))?
    };
    serde_json::from_str(&text).map_err(|error| {
        let name = if name == "-" { "standard input" } else { name };
        Failure::new(exit::USAGE, format!("{name} is not JSON: {error}")).into()
    })
}

/// JSON that was given as it is, in a file, or on standard input.
pub(crate) fn json_argument(argument: &str) -> anyhow::Result<Value> {
    let text = match argument.strip_prefix('@') {
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?
        }
        None if argument == "-" => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read standard input")?;
            text
        }
        None => argument.to_owned(),
    };
    serde_json::from_str(&text)
        .map_err(|error| Failure::new(exit::USAGE, format!("this is not JSON: {error}")).into())
}

/// `key=value` pairs; a value that is JSON keeps its type, another one is text.
pub(crate) fn pairs(list: &[String]) -> anyhow::Result<Map<String, Value>> {
    list.iter()
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                let text = format!("{pair:?} is not of the form key=value");
                Failure::new(exit::USAGE, text)
            })?;
            let value =
                serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            Ok((name.to_owned(), value))
        })
        .collect()
}

/// `name=value` pairs; a value that is JSON keeps its type, an empty one is null.
pub(crate) fn fields(list: &[String]) -> anyhow::Result<Map<String, Value>> {
    list.iter()
        .map(|pair| {
            let wrong = || {
                Failure::new(
                    exit::USAGE,
                    format!("{pair:?} is not of the form name=value"),
                )
            };
            let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
            let value = match value {
                "" => Value::Null,
                text => {
                    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
                }
            };
            Ok((name.to_owned(), value))
        })
        .collect()
}
