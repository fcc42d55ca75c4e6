//! Stored job templates: an executor, its parameters with `{{param}}` places, and requirements.
//!
//! [`Template::resolve`] is the one place where places are filled: a string that is nothing but one place
//! takes the value with its type, a place inside a longer string is written as text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::capability::Requirements;
use crate::error::ErrorReply;
use crate::id::TemplateId;
use crate::time::Timestamp;
use crate::{JsonObject, nesting};

/// A stored template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Its id.
    pub id: TemplateId,
    /// Its display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The executor that runs it: `exec`, `ffmpeg`, `noop`, or one that an agent brings along.
    #[schemars(regex(pattern = r"\S"))]
    pub executor: String,
    /// The executor's configuration with `{{param}}` places in any string.
    #[serde(default)]
    pub config: JsonObject,
    /// Values for places that a job does not name.
    #[serde(default, skip_serializing_if = "JsonObject::is_empty")]
    pub defaults: JsonObject,
    /// What it asks of an agent.
    #[serde(default, skip_serializing_if = "Requirements::is_empty")]
    pub requirements: Requirements,
    /// When it was first stored; set by the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When it was last stored; set by the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
}

/// A place for which there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template {template} needs a value for {{{{{param}}}}} in params")]
pub struct MissingParam {
    /// The template.
    pub template: TemplateId,
    /// The place.
    pub param: String,
}

impl Template {
    /// Checks what the types cannot: something runs it, and nothing is nested without end.
    ///
    /// # Errors
    /// An [`ErrorReply`] of code `VALIDATION_FAILED` that names the field.
    pub fn check(&self) -> Result<(), ErrorReply> {
        if self.executor.trim().is_empty() {
            return Err(ErrorReply::invalid(
                "executor",
                "executor must name what runs the template, for example exec",
            ));
        }
        nesting::check("config", &self.config)?;
        nesting::check("defaults", &self.defaults)
    }

    /// The configuration for one job: places filled, `executor` added.
    ///
    /// # Errors
    /// [`MissingParam`] for the first place without a value.
    pub fn resolve(&self, params: &JsonObject) -> Result<JsonObject, MissingParam> {
        let value = |name: &str| {
            params
                .get(name)
                .or_else(|| self.defaults.get(name))
                .ok_or_else(|| MissingParam {
                    template: self.id.clone(),
                    param: name.to_owned(),
                })
        };
        let mut config = JsonObject::new();
        for (field, template) in &self.config {
            config.insert(field.clone(), fill(template, &value)?);
        }
        config.insert("executor".to_owned(), Value::String(self.executor.clone()));
        Ok(config)
    }
}

fn fill<'v>(
    template: &Value,
    value: &impl Fn(&str) -> Result<&'v Value, MissingParam>,
) -> Result<Value, MissingParam> {
    Ok(match template {
        Value::String(text) => fill_text(text, value)?,
        Value::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| fill(item, value))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, item)| Ok((name.clone(), fill(item, value)?)))
                .collect::<Result<_, _>>()?,
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => template.clone(),
    })
}

fn fill_text<'v>(
    text: &str,
    value: &impl Fn(&str) -> Result<&'v Value, MissingParam>,
) -> Result<Value, MissingParam> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, tail)) = after.split_once("}}") else {
            break;
        };
        let found = value(name.trim())?;
        if before.is_empty() && tail.is_empty() && filled.is_empty() {
            return Ok(found.clone());
        }
        filled.push_str(before);
        match found {
            Value::String(text) => filled.push_str(text),
            other => filled.push_str(&other.to_string()),
        }
        rest = tail;
    }
    filled.push_str(rest);
    Ok(Value::String(filled))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(config: Value) -> Template {
        serde_json::from_value(
            json!({"id": "t", "executor": "exec", "config": config, "defaults": {"seconds": 10}}),
        )
        .unwrap()
    }

    #[test]
    fn places_are_filled_with_types_kept_where_they_stand_alone() {
        let template = template(
            json!({"durationSec": "{{seconds}}", "command": ["echo", "for {{ seconds }}s of {{name}}", "{{"]}),
        );
        let params = json!({"name": "cam"}).as_object().cloned().unwrap();
        assert_eq!(
            Value::Object(template.resolve(&params).unwrap()),
            json!({"executor": "exec", "durationSec": 10, "command": ["echo", "for 10s of cam", "{{"]})
        );
    }

    #[test]
    fn a_missing_value_is_named() {
        let error = template(json!({"cwd": "{{folder}}"}))
            .resolve(&JsonObject::new())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "template t needs a value for {{folder}} in params"
        );
    }
}
