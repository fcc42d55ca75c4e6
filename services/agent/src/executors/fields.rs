//! Reading fields of a configuration, each with a sentence for the case that it is something else.

use std::collections::BTreeMap;
use std::time::Duration;

use quintet_contract::JsonObject;
use serde_json::Value;

/// Longest duration that is taken; longer ones are meant as "for ever".
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// A text, which must not be empty.
pub(super) fn text(config: &JsonObject, field: &str) -> Result<Option<String>, String> {
    match config.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Err(format!("{field} must not be empty")),
        Some(Value::String(text)) => sound(field, text).map(Some),
        Some(_) => Err(format!("{field} must be a string")),
    }
}

/// A list of texts; an absent one is empty.
pub(super) fn texts(config: &JsonObject, field: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("{field} must be an array of strings");
    match config.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| sound(field, item.as_str().ok_or_else(wrong)?))
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// An object of texts; an absent one is empty.
pub(super) fn map(config: &JsonObject, field: &str) -> Result<BTreeMap<String, String>, String> {
    let wrong = || format!("{field} must be an object of strings");
    match config.get(field) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(entries)) => entries
            .iter()
            .map(|(name, value)| {
                if name.is_empty() || name.contains('=') {
                    return Err(format!("{field} must have names without ="));
                }
                let value = value.as_str().ok_or_else(wrong)?;
                Ok((sound(field, name)?, sound(field, value)?))
            })
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// A flag; an absent one is false.
pub(super) fn flag(config: &JsonObject, field: &str) -> Result<bool, String> {
    match config.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(format!("{field} must be true or false")),
    }
}

/// A duration given as a number of milliseconds or seconds.
pub(super) fn duration(
    config: &JsonObject,
    field: &str,
    unit: Duration,
) -> Result<Option<Duration>, String> {
    let wrong = || format!("{field} must be a number of 0 or more");
    match config.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_f64().filter(|number| *number >= 0.0);
            let seconds = number.ok_or_else(wrong)? * unit.as_secs_f64();
            let duration = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST);
            Ok(Some(duration.min(LONGEST)))
        }
    }
}

/// The system takes no NUL in arguments, variables and paths.
fn sound(field: &str, text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err(format!("{field} must not hold NUL"));
    }
    Ok(text.to_owned())
}
