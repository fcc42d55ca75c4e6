//! Stream metadata of a job: a free object in which some fields have a fixed type.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::{JsonObject, nesting};

/// A known field with a value of another type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("streamMetadata field {field} must be {expected}")]
pub struct MetadataError {
    /// The field.
    pub field: String,
    /// What it must be, as a phrase.
    pub expected: &'static str,
}

/// Most fields that one job's metadata may hold; keeps records bounded.
pub const MAX_FIELDS: usize = 128;
/// Most bytes of one job's metadata as JSON; keeps records bounded.
pub const MAX_BYTES: usize = 64 * 1024;

/// Known fields and their types.
const KNOWN: [(&str, Kind); 8] = [
    ("title", Kind::Text),
    ("description", Kind::Text),
    ("viewers", Kind::Count),
    ("publicUrl", Kind::Text),
    ("adminUrl", Kind::Text),
    ("isMuted", Kind::Flag),
    ("streamId", Kind::Text),
    ("platform", Kind::Text),
];

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Count,
    Flag,
}

impl Kind {
    fn admits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Count => value.as_f64().is_some_and(|number| number >= 0.0),
            Self::Flag => value.is_boolean(),
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Count => "a number of 0 or more",
            Self::Flag => "a boolean",
        }
    }

    fn schema(self) -> Value {
        match self {
            Self::Text => json!({"type": ["string", "null"]}),
            Self::Count => json!({"type": ["number", "null"], "minimum": 0}),
            Self::Flag => json!({"type": ["boolean", "null"]}),
        }
    }
}

/// The schema of stream metadata as clients send it; its constraints are those that [`check`] checks.
#[derive(Debug)]
pub struct StreamMetadata;

impl JsonSchema for StreamMetadata {
    fn schema_name() -> Cow<'static, str> {
        "StreamMetadata".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let known: JsonObject = KNOWN
            .into_iter()
            .map(|(field, kind)| (field.to_owned(), kind.schema()))
            .collect();
        json_schema!({
            "description": "A free object in which some fields have a fixed type; null removes a field.",
            "type": "object",
            "properties": known,
            "additionalProperties": true
        })
    }
}

/// Checks the known fields of a patch and its depth; null is allowed everywhere, since it removes a field.
///
/// # Errors
/// [`MetadataError`] for the first field of a wrong type or value.
pub fn check(patch: &JsonObject) -> Result<(), MetadataError> {
    for (field, value) in patch {
        if !nesting::is_bounded(value) {
            return Err(MetadataError {
                field: field.clone(),
                expected: "nested less deeply",
            });
        }
    }
    for (field, kind) in KNOWN {
        match patch.get(field) {
            None | Some(Value::Null) => {}
            Some(value) if kind.admits(value) => {}
            Some(_) => {
                return Err(MetadataError {
                    field: field.to_owned(),
                    expected: kind.expected(),
                });
            }
        }
    }
    Ok(())
}

/// Shallow merge: fields of `patch` replace those of `metadata`, null removes one.
pub fn merge(metadata: &mut JsonObject, patch: JsonObject) {
    for (field, value) in patch {
        if value.is_null() {
            metadata.remove(&field);
        } else {
            metadata.insert(field, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> JsonObject {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn known_fields_are_type_checked_and_unknown_ones_are_free() {
        assert!(check(&object(json!({"title": "a", "viewers": 3, "isMuted": false, "mood": [1, 2], "streamId": null}))).is_ok());
        let error = check(&object(json!({"viewers": "many"}))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "streamMetadata field viewers must be a number of 0 or more"
        );
    }

    #[test]
    fn a_merge_is_shallow_and_null_removes() {
        let mut metadata = object(json!({"title": "a", "nested": {"x": 1}, "platform": "youtube"}));
        merge(
            &mut metadata,
            object(json!({"nested": {"y": 2}, "platform": null, "viewers": 5})),
        );
        assert_eq!(
            Value::Object(metadata),
            json!({"title": "a", "nested": {"y": 2}, "viewers": 5})
        );
    }
}
