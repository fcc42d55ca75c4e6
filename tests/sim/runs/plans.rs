//! The plans that are tried.

use quintet_contract::JsonObject;
use serde_json::{Value, json};

/// How many shapes there are.
pub(crate) const COUNT: usize = 6;

fn task(id: &str, needs: &[&str]) -> Value {
    json!({"id": id, "kind": "task", "queue": "q", "needs": needs, "retry": {"max": 3, "backoffMs": 300}})
}

/// A plan; none for a run that is written from outside.
pub(crate) fn plan(shape: usize) -> Option<Value> {
    let nodes = match shape {
        0 => json!([task("a", &[]), task("b", &["a"]), task("c", &["b"])]),
        1 => json!([
            task("a", &[]),
            task("b", &["a"]),
            task("c", &["a"]),
            task("d", &["b", "c"])
        ]),
        2 => json!([
            task("a", &[]),
            {"id": "each", "kind": "foreach", "items": "{{inputs.list}}", "maxParallel": 2, "needs": ["a"],
             "nodes": [task("x", &[]), task("y", &["x"])]},
            task("z", &["each"])
        ]),
        3 => {
            json!([task("a", &[]), {"id": "gate", "kind": "gate", "needs": ["a"]}, task("b", &["gate"])])
        }
        4 => json!([{"id": "nap", "kind": "sleep", "for": "7s"}, task("a", &["nap"])]),
        5 => json!([
            {"id": "which", "kind": "condition", "when": "inputs.n > 1", "then": ["a"], "else": ["b"]},
            task("a", &["which"]), task("b", &["which"]), task("join", &["a", "b"])
        ]),
        _ => return None,
    };
    Some(
        json!({"nodes": nodes, "onFailure": if shape.is_multiple_of(2) { "stop" } else { "continue" }}),
    )
}

pub(crate) fn has_gate(shape: usize) -> bool {
    shape == 3
}

pub(crate) fn inputs() -> Option<JsonObject> {
    json!({"n": 2, "list": ["p", "q", "r"]})
        .as_object()
        .cloned()
}
