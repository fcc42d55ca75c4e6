//! Preview of a valid plan: its layers, its longest path, its queues.

use std::collections::BTreeMap;

use quintet_contract::id::QueueName;
use quintet_contract::plan::{Edge, Node, Plan, PlanView, PlannedNode};
use quintet_contract::run::RunMode;
use quintet_contract::task::command_queue;

/// The queue that the tasks of a node go to.
pub(crate) fn queue_of(node: &Node, mode: RunMode) -> Option<QueueName> {
    let named = node
        .queue
        .as_deref()
        .and_then(|queue| QueueName::parse(queue).ok());
    match (node.kind.as_str(), mode) {
        ("task", _) => named,
        ("command", RunMode::Queue) => Some(named.unwrap_or_else(command_queue)),
        _ => None,
    }
}

/// The plan as it would run: its nodes in order. Whether a worker listens is not known here.
pub(crate) fn view(plan: &Plan, mode: RunMode) -> PlanView {
    let mut layer_of: BTreeMap<&str, usize> = BTreeMap::new();
    let mut longest: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    let mut left: Vec<&Node> = plan.nodes.iter().collect();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|node| {
            let needs: Option<Vec<(usize, &str)>> = node
                .needs
                .iter()
                .map(|need| layer_of.get_key_value(need.as_str()))
                .map(|found| found.map(|(id, layer)| (*layer, *id)))
                .collect();
            let Some(needs) = needs else { return true };
            let last = needs.into_iter().max();
            longest.insert(&node.id, last.map(|(_, id)| id));
            layer_of.insert(&node.id, last.map_or(0, |(layer, _)| layer + 1));
            false
        });
        if left.len() == before {
            // Only a plan that was not checked has a cycle.
            break;
        }
    }
    let depth = layer_of.values().max().map_or(0, |last| last + 1);
    let mut layers = vec![Vec::new(); depth];
    for node in &plan.nodes {
        if let Some(layer) = layer_of.get(node.id.as_str()) {
            layers[*layer].push(node.id.clone());
        }
    }
    let mut path = Vec::new();
    let mut at = layers
        .last()
        .and_then(|layer| layer.first())
        .map(String::as_str);
    while let Some(id) = at {
        path.push(id.to_owned());
        at = longest.get(id).copied().flatten();
    }
    path.reverse();
    let edges = plan.nodes.iter().flat_map(|node| {
        node.needs.iter().map(|need| Edge {
            from: need.clone(),
            to: node.id.clone(),
        })
    });
    PlanView {
        layers,
        nodes: planned("", &plan.nodes, mode),
        edges: edges.collect(),
        critical_path: path,
        warnings: Vec::new(),
    }
}

/// Nodes as they are shown; those of a foreach after it, as `each[].step`.
fn planned(prefix: &str, nodes: &[Node], mode: RunMode) -> Vec<PlannedNode> {
    let mut found = Vec::new();
    for node in nodes {
        let id = format!("{prefix}{}", node.id);
        let body = format!("{id}[].");
        found.push(PlannedNode {
            needs: node
                .needs
                .iter()
                .map(|need| format!("{prefix}{need}"))
                .collect(),
            kind: node.kind.clone(),
            queue: queue_of(node, mode).map(|queue| queue.to_string()),
            has_worker: None,
            id,
        });
        found.extend(planned(&body, &node.nodes, mode));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::checked;
    use super::*;

    #[test]
    fn layers_hold_what_can_run_at_the_same_time() {
        let plan = json!({
            "nodes": [
                {"id": "join", "kind": "task", "queue": "q", "needs": ["b", "c"]},
                {"id": "a", "kind": "command", "command": ["x"]},
                {"id": "b", "kind": "gate"},
                {"id": "c", "kind": "gate", "needs": ["a"]},
                {"id": "d", "kind": "foreach", "items": [1], "nodes": [{"id": "step", "kind": "command", "command": ["y"], "queue": "gpu"}]}
            ],
            "edges": [{"from": "a", "to": "b"}]
        });
        let view = view(&checked(&plan, RunMode::Queue).unwrap(), RunMode::Queue);
        assert_eq!(view.layers, [vec!["a", "d"], vec!["b", "c"], vec!["join"]]);
        assert_eq!(view.critical_path.len(), 3);
        assert_eq!(view.critical_path[2], "join");
        assert_eq!(view.edges.len(), 4);
        let queues: Vec<_> = view
            .nodes
            .iter()
            .map(|node| (node.id.as_str(), node.queue.as_deref()))
            .collect();
        assert!(queues.contains(&("d[].step", Some("gpu"))));
        assert!(queues.contains(&("a", Some("command"))));
    }
}
