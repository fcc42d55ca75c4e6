//! Nesting of the free objects of clients and agents, and its limit: of a configuration, parameters, metadata, the detail of
//! an error.
//!
//! A record or a reply that holds one is some levels deeper, and what is deeper than the codec reads would be stored and
//! never read again. So the depth is bounded where such an object comes in.

use serde_json::Value;

use crate::JsonObject;
use crate::error::ErrorReply;

/// Most levels of one object. The codec reads 127; replies and records put five around an object, and a place in a
/// template's configuration may be filled with a value that is as deep again.
pub const MAX_LEVELS: usize = 32;

/// Refuses an object that is too deep, by the name of the field that holds it.
///
/// # Errors
/// An [`ErrorReply`] of code `VALIDATION_FAILED` that names the field.
pub fn check(field: &str, object: &JsonObject) -> Result<(), ErrorReply> {
    if is_bounded_object(object) {
        return Ok(());
    }
    let text = format!("{field} must not be nested deeper than {MAX_LEVELS} levels");
    Err(ErrorReply::invalid(field, text))
}

/// Whether an object has at most [`MAX_LEVELS`].
pub fn is_bounded_object(object: &JsonObject) -> bool {
    object.values().all(is_bounded)
}

/// Whether an object with this value in a field has at most [`MAX_LEVELS`].
pub fn is_bounded(value: &Value) -> bool {
    fits(value, MAX_LEVELS - 1)
}

fn fits(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|item| fits(item, levels - 1)),
        Value::Object(fields) => levels > 0 && fields.values().all(|item| fits(item, levels - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_refused_from_one_level_too_many_on() {
        let nested = |levels: usize| {
            let inner = (1..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
            JsonObject::from_iter([("a".to_owned(), inner)])
        };
        assert!(check("params", &nested(MAX_LEVELS)).is_ok());
        let error = check("params", &nested(MAX_LEVELS + 1)).unwrap_err();
        assert_eq!(
            error.error,
            "params must not be nested deeper than 32 levels"
        );
    }
}
