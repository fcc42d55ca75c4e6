//! Decoding of a plan: its shape and the shapes of its nodes.

use quintet_contract::plan::{MAX_PLAN_BYTES, Node, Plan};
use serde_json::Value;

use super::problems::Problems;

/// Reads what can be read; nodes that cannot are left out, so that the others are still checked.
pub(super) fn read(value: &Value, problems: &mut Problems) -> Option<Plan> {
    let Value::Object(fields) = value else {
        problems.add("", "shape", "a plan is an object with nodes and edges");
        return None;
    };
    let bytes = value.to_string().len();
    if bytes > MAX_PLAN_BYTES {
        let text =
            format!("a plan may take {MAX_PLAN_BYTES} bytes as JSON, this one takes {bytes}");
        problems.add("", "limit", text);
        return None;
    }
    let mut rest = fields.clone();
    let nodes = rest.insert("nodes".to_owned(), Value::Array(Vec::new()));
    let edges = rest.remove("edges");
    let mut plan: Plan = match serde_path_to_error::deserialize(Value::Object(rest)) {
        Ok(plan) => plan,
        Err(error) => {
            shape(problems, "", &error);
            Plan::default()
        }
    };
    match nodes {
        Some(Value::Array(nodes)) if nodes.is_empty() => {
            problems.add("nodes", "missing", "a plan needs at least one node");
        }
        Some(Value::Array(nodes)) => plan.nodes = read_nodes("nodes", nodes, problems),
        Some(_) | None => {
            problems.add("nodes", "missing", "a plan needs nodes, a list of objects");
        }
    }
    match edges {
        None => {}
        Some(Value::Array(edges)) => {
            for (index, edge) in edges.into_iter().enumerate() {
                match serde_path_to_error::deserialize(edge) {
                    Ok(edge) => plan.edges.push(edge),
                    Err(error) => shape(problems, &format!("edges[{index}]"), &error),
                }
            }
        }
        Some(_) => problems.add("edges", "shape", "edges must be a list of {from, to}"),
    }
    Some(plan)
}

fn read_nodes(path: &str, nodes: Vec<Value>, problems: &mut Problems) -> Vec<Node> {
    let mut read = Vec::with_capacity(nodes.len());
    for (index, mut value) in nodes.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        // The body of a foreach likewise: one by one.
        let body = value
            .as_object_mut()
            .and_then(|fields| match fields.get("nodes") {
                Some(Value::Array(_)) => fields.remove("nodes"),
                Some(_) | None => None,
            });
        let id = value.get("id").and_then(Value::as_str).map(str::to_owned);
        let mut node: Node = match serde_path_to_error::deserialize(value) {
            Ok(node) => node,
            Err(error) => {
                shape(problems, &path, &error);
                // Known by its id at least, so that edges to it are not called dangling.
                let Some(id) = id else { continue };
                Node {
                    id,
                    ..Node::default()
                }
            }
        };
        if let Some(Value::Array(body)) = body {
            node.nodes = read_nodes(&format!("{path}.nodes"), body, problems);
        }
        read.push(node);
    }
    read
}

fn shape(problems: &mut Problems, at: &str, error: &serde_path_to_error::Error<serde_json::Error>) {
    let inner = error.path().to_string();
    let path = match (at, inner.as_str()) {
        (at, ".") => at.to_owned(),
        ("", inner) => inner.to_owned(),
        (at, inner) => format!("{at}.{inner}"),
    };
    let text = error.inner().to_string();
    let code = if text.starts_with("missing field") {
        "missing"
    } else {
        "shape"
    };
    problems.add(path, code, text);
}
