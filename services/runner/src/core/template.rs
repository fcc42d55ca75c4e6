//! Placeholders in the strings of a node: `{{inputs.x}}`, `{{nodes.a.output.x}}`, and in a `foreach` `{{item.x}}` and
//! `{{index}}`.
//!
//! A string that is one place and nothing else becomes the value itself, of whatever type; elsewhere a value that is no
//! string is written as JSON.

use quintet_contract::JsonObject;
use serde_json::Value;

/// One place: the names and numbers along the path to its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placeholder<'t> {
    /// As it is written between the braces, without white space around it.
    pub(crate) text: &'t str,
    pub(crate) path: Vec<&'t str>,
}

/// A piece of a string.
enum Piece<'t> {
    Text(&'t str),
    Placeholder(Placeholder<'t>),
}

/// Every place in a value.
pub(crate) fn placeholders(value: &Value) -> Result<Vec<Placeholder<'_>>, String> {
    let mut found = Vec::new();
    collect(value, &mut found)?;
    Ok(found)
}

fn collect<'v>(value: &'v Value, found: &mut Vec<Placeholder<'v>>) -> Result<(), String> {
    match value {
        Value::String(text) => {
            found.extend(pieces(text)?.into_iter().filter_map(|piece| match piece {
                Piece::Text(_) => None,
                Piece::Placeholder(placeholder) => Some(placeholder),
            }))
        }
        Value::Array(items) => items.iter().try_for_each(|item| collect(item, found))?,
        Value::Object(fields) => fields
            .values()
            .try_for_each(|field| collect(field, found))?,
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

/// A value with its places filled in from `scope`.
pub(crate) fn filled(value: &Value, scope: &JsonObject) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => filled_text(text, scope)?,
        Value::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| filled(item, scope))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, field)| Ok((name.clone(), filled(field, scope)?)))
                .collect::<Result<_, String>>()?,
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}

/// A string with its places filled in, as a string.
pub(crate) fn filled_string(text: &str, scope: &JsonObject) -> Result<String, String> {
    Ok(written(filled_text(text, scope)?))
}

fn filled_text(text: &str, scope: &JsonObject) -> Result<Value, String> {
    let mut pieces = pieces(text)?;
    if let [Piece::Placeholder(placeholder)] = pieces.as_slice() {
        return find(placeholder, scope).cloned();
    }
    let mut out = String::with_capacity(text.len());
    for piece in pieces.drain(..) {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Placeholder(placeholder) => {
                out.push_str(&written(find(&placeholder, scope)?.clone()))
            }
        }
    }
    Ok(Value::String(out))
}

fn written(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn find<'s>(placeholder: &Placeholder<'_>, scope: &'s JsonObject) -> Result<&'s Value, String> {
    let missing = || format!("there is no {} to put in its place", placeholder.text);
    let (first, rest) = placeholder.path.split_first().ok_or_else(missing)?;
    let mut value = scope.get(*first).ok_or_else(missing)?;
    for step in rest {
        value = match value {
            Value::Object(fields) => fields.get(*step),
            Value::Array(items) => step.parse::<usize>().ok().and_then(|at| items.get(at)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
        .ok_or_else(missing)?;
    }
    Ok(value)
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let (before, after) = rest.split_at(open);
        let inside = after.get(2..).unwrap_or_default();
        let close = inside
            .find("}}")
            .ok_or_else(|| format!("the placeholder {after:.40} has no end"))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Placeholder(placeholder(
            inside.get(..close).unwrap_or_default().trim(),
        )?));
        rest = inside.get(close + 2..).unwrap_or_default();
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// `a.b[0].c` and `a.b.0.c` are the same place.
fn placeholder(text: &str) -> Result<Placeholder<'_>, String> {
    let path: Vec<&str> = text
        .split(['.', '['])
        .map(|step| step.strip_suffix(']').unwrap_or(step))
        .collect();
    let is_known = matches!(
        path.as_slice(),
        ["inputs" | "item", ..] | ["index"] | ["nodes", _, "output", ..]
    );
    if !is_known || path.iter().any(|step| step.is_empty()) {
        return Err(format!(
            "{{{{{text}}}}} is no placeholder; use {{{{inputs.x}}}}, {{{{nodes.a.output.x}}}}, or {{{{item}}}} and {{{{index}}}} \
             in a foreach"
        ));
    }
    Ok(Placeholder { text, path })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope() -> JsonObject {
        let scope = json!({"inputs": {"n": 3, "list": [{"a": "x"}]}, "nodes": {"a": {"output": {"o": {"k": true}}}}, "index": 1});
        scope.as_object().cloned().unwrap()
    }

    #[test]
    fn a_place_alone_keeps_its_type_and_one_among_text_is_written() {
        let value = json!({"n": "{{inputs.n}}", "t": "n={{ inputs.n }}, {{nodes.a.output.o}}", "l": ["{{inputs.list[0].a}}", 7], "i": "{{index}}"});
        assert_eq!(
            filled(&value, &scope()).unwrap(),
            json!({"n": 3, "t": "n=3, {\"k\":true}", "l": ["x", 7], "i": 1})
        );
        assert_eq!(placeholders(&value).unwrap().len(), 5);
    }

    #[test]
    fn a_template_that_cannot_be_filled_names_the_place() {
        for (text, expected) in [
            ("{{inputs.missing}}", "no inputs.missing"),
            ("{{inputs.list[4]}}", "no inputs.list[4]"),
            ("{{inputs.n", "has no end"),
            ("{{env.HOME}}", "is no placeholder"),
            ("{{nodes.a.error}}", "is no placeholder"),
            ("{{}}", "is no placeholder"),
        ] {
            let error = filled(&json!(text), &scope()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
