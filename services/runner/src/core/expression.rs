//! Conditions: expressions of the Common Expression Language over the input of a run and the outputs of its nodes.
//!
//! The language has no loops but the comprehensions (`all`, `exists`, `map`, `filter`); nested they could keep a runner
//! busy for hours, so an expression may hold one.

use std::collections::HashMap;
use std::sync::Arc;

use cel::objects::{Key, Map};
use cel::{Context, Program, Value as CelValue};
use quintet_contract::JsonObject;
use serde_json::Value;

/// Longest expression in bytes.
const MAX_BYTES: usize = 2_048;
/// Deepest nesting of brackets: the parser calls itself for each.
const MAX_DEPTH: usize = 24;
/// The names that an expression may use.
const VARIABLES: [&str; 4] = ["inputs", "nodes", "item", "index"];

/// Checks an expression, before anything is run.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let (program, comprehensions) = compile(text)?;
    // A comprehension brings a name of its own.
    if comprehensions > 0 {
        return Ok(());
    }
    let unknown = program
        .references()
        .variables()
        .into_iter()
        .find(|name| !VARIABLES.contains(name))
        .map(str::to_owned);
    match unknown {
        Some(name) => Err(format!(
            "it uses {name}, but only inputs, nodes, item and index are known here"
        )),
        None => Ok(()),
    }
}

/// Whether an expression is true. `scope` holds the variables.
pub(crate) fn is_true(text: &str, scope: &JsonObject) -> Result<bool, String> {
    let (program, _) = compile(text)?;
    let mut context = Context::default();
    for name in VARIABLES {
        if let Some(value) = scope.get(name) {
            context.add_variable_from_value(name, value_of(value));
        }
    }
    match program.execute(&context) {
        Ok(CelValue::Bool(outcome)) => Ok(outcome),
        Ok(other) => Err(format!("it is {}, not true or false", other.type_of())),
        Err(error) => Err(error.to_string()),
    }
}

/// The program, and how many comprehensions it holds.
fn compile(text: &str) -> Result<(Program, usize), String> {
    if text.len() > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    if depth(text) > MAX_DEPTH {
        return Err(format!(
            "its brackets are nested deeper than {MAX_DEPTH} levels"
        ));
    }
    let program = Program::compile(text).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().to_owned()
    })?;
    // The tree has no walk of its own; what it prints names every comprehension. One inside a text counts as well.
    let tree = format!("{:?}", program.expression());
    let comprehensions = tree.matches("Comprehension(").count();
    if comprehensions > 1 {
        return Err("it holds more than one of all, exists, map and filter".to_owned());
    }
    Ok((program, comprehensions))
}

fn depth(text: &str) -> usize {
    let (mut now, mut deepest) = (0_usize, 0);
    for c in text.chars() {
        match c {
            // An operator in front calls the parser again as a bracket does.
            '(' | '[' | '{' | '!' | '-' | '?' => now += 1,
            ')' | ']' | '}' => now = now.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(now);
    }
    deepest
}

fn value_of(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(flag) => CelValue::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => CelValue::Int(whole),
            None => CelValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(items) => CelValue::List(Arc::new(items.iter().map(value_of).collect())),
        Value::Object(fields) => CelValue::Map(Map {
            map: Arc::new(
                fields
                    .iter()
                    .map(|(name, value)| (Key::String(Arc::new(name.clone())), value_of(value)))
                    .collect::<HashMap<_, _>>(),
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope() -> JsonObject {
        let scope = json!({
            "inputs": {"n": 3, "name": "a", "list": [1, 2, 3], "ratio": 0.5},
            "nodes": {"probe": {"output": {"codec": "h264", "big": true}}}
        });
        scope.as_object().cloned().unwrap()
    }

    #[test]
    fn expressions_speak_of_inputs_and_outputs() {
        for (text, expected) in [
            ("inputs.n > 2", true),
            ("inputs.n == 3 && inputs.name == 'a'", true),
            ("nodes.probe.output.codec in ['vp9', 'av1']", false),
            ("nodes.probe.output.big", true),
            ("has(inputs.missing)", false),
            ("inputs.list.exists(x, x == 2)", true),
            ("inputs.ratio < 1.0", true),
            ("size(inputs.list) == 3", true),
        ] {
            check(text).unwrap();
            assert_eq!(is_true(text, &scope()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_with_the_reason() {
        for text in ["", "inputs.n >", "1 +", "other.x == 1", "a.b.c"] {
            assert!(check(text).is_err(), "{text}");
        }
        assert!(
            is_true("inputs.n", &scope())
                .unwrap_err()
                .contains("not true or false")
        );
        assert!(is_true("inputs.nothing == 1", &scope()).is_err());
    }

    #[test]
    fn an_expression_cannot_keep_a_runner_busy() {
        let nested = "inputs.list.map(x, inputs.list.map(y, x + y)).size() > 0";
        assert!(check(nested).unwrap_err().contains("more than one"));
        assert!(check(&"(".repeat(5_000)).is_err());
        assert!(check(&"!".repeat(2_000)).is_err());
        assert!(check(&format!("{}1{} == 1", "(".repeat(20), ")".repeat(20))).is_ok());
    }
}
