//! Validation of a plan, with all problems at once: its shape, then its ids, its edges, its fields, its placeholders and
//! its size.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use quintet_contract::id::QueueName;
use quintet_contract::nesting;
use quintet_contract::plan::{KINDS, MAX_NODES, Node, Plan, Problem};
use quintet_contract::run::RunMode;
use quintet_contract::time::Timestamp;
use serde_json::Value;

use super::graph::{Link, ancestors, cycle, link};
use super::problems::Problems;
use super::read::read;
use crate::core::{expression, template};

/// Longest wait that a plan may ask for, in milliseconds: a year.
const MAX_WAIT_MS: u64 = 366 * 24 * 3600 * 1000;
/// Most retries of one node.
const MAX_RETRIES: u32 = 1_000;
/// Longest id of a node.
const MAX_ID_BYTES: usize = 64;
/// Deepest nesting of foreach.
const MAX_FOREACH: usize = 3;

/// Where a plan is to run; not every node can run everywhere.
pub(crate) type Mode = RunMode;

/// Reads a plan, its edges made into `needs`; or returns all its problems.
pub(crate) fn checked(value: &Value, mode: Mode) -> Result<Plan, Vec<Problem>> {
    let mut problems = Problems::default();
    let plan = read(value, &mut problems);
    if let Some(mut plan) = plan {
        check(&plan, mode, &mut problems);
        if problems.0.is_empty() {
            needs_of_edges(&mut plan);
            return Ok(plan);
        }
    }
    let mut problems = problems.0;
    problems.sort();
    problems.dedup();
    Err(problems)
}

fn check(plan: &Plan, mode: Mode, problems: &mut Problems) {
    let count = count(&plan.nodes);
    if count > MAX_NODES {
        let text = format!("a plan may have {MAX_NODES} nodes, this one has {count}");
        problems.add("nodes", "limit", text);
        return;
    }
    for (field, value) in [
        ("timeoutMs", plan.timeout_ms),
        ("maxParallel", plan.max_parallel.map(u64::from)),
    ] {
        bounds(problems, field.to_owned(), value);
    }
    let edges: Vec<(String, String, String)> = plan
        .edges
        .iter()
        .enumerate()
        .map(|(index, edge)| {
            (
                format!("edges[{index}]"),
                edge.from.clone(),
                edge.to.clone(),
            )
        })
        .collect();
    let scope = Scope {
        path: "nodes".to_owned(),
        mode,
        depth: 0,
        outer: HashSet::new(),
    };
    check_nodes(&plan.nodes, &edges, &scope, problems);
}

fn count(nodes: &[Node]) -> usize {
    nodes.iter().map(|node| 1 + count(&node.nodes)).sum()
}

/// Where nodes stand: at the top, or in the body of a foreach.
struct Scope {
    path: String,
    mode: Mode,
    depth: usize,
    /// Nodes outside whose output is there for sure.
    outer: HashSet<String>,
}

fn check_nodes(
    nodes: &[Node],
    edges: &[(String, String, String)],
    scope: &Scope,
    problems: &mut Problems,
) {
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let path = format!("{}[{index}]", scope.path);
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if node.id.is_empty() || node.id.len() > MAX_ID_BYTES || !node.id.chars().all(legal) {
            problems.add(
                format!("{path}.id"),
                "value",
                format!(
                    "{:?} is no id; use 1 to 64 letters, digits, _ and -",
                    node.id
                ),
            );
        }
        if let Some(first) = places.insert(&node.id, index) {
            problems.add(
                format!("{path}.id"),
                "duplicateId",
                format!("the id {} is also that of {}[{first}]", node.id, scope.path),
            );
        }
    }
    let mut before: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for (position, need) in node.needs.iter().enumerate() {
            let path = format!("{}[{index}].needs[{position}]", scope.path);
            let needs = Link {
                from: need,
                to: &node.id,
                path: &path,
            };
            link(&places, &needs, &mut before, problems);
        }
    }
    for (path, from, to) in edges {
        link(&places, &Link { from, to, path }, &mut before, problems);
    }
    let cycle = cycle(nodes.len(), &before);
    if let Some(cycle) = &cycle {
        let names: Vec<&str> = cycle
            .iter()
            .filter_map(|at| nodes.get(*at).map(|node| node.id.as_str()))
            .collect();
        let text = format!("these nodes wait for each other: {}", names.join(" → "));
        problems.add(scope.path.clone(), "cycle", text);
    }
    for (index, node) in nodes.iter().enumerate() {
        let mut known: HashSet<String> = match &cycle {
            // Without an order the available outputs are unknown.
            Some(_) => nodes.iter().map(|node| node.id.clone()).collect(),
            None => ancestors(index, &before)
                .iter()
                .filter_map(|at| nodes.get(*at).map(|node| node.id.clone()))
                .collect(),
        };
        known.extend(scope.outer.iter().cloned());
        let dependents: HashSet<&str> = before
            .iter()
            .filter(|(_, needs)| needs.contains(&index))
            .filter_map(|(at, _)| nodes.get(*at).map(|node| node.id.as_str()))
            .collect();
        let context = NodeContext {
            path: format!("{}[{index}]", scope.path),
            scope,
            known,
            dependents,
        };
        check_node(node, &context, problems);
    }
}

/// What is known while one node is checked.
struct NodeContext<'a> {
    path: String,
    scope: &'a Scope,
    /// Ids of nodes that have ended when this one begins.
    known: HashSet<String>,
    dependents: HashSet<&'a str>,
}

impl NodeContext<'_> {
    fn at(&self, field: &str) -> String {
        format!("{}.{field}", self.path)
    }
}

fn check_node(node: &Node, context: &NodeContext<'_>, problems: &mut Problems) {
    for (field, value) in [
        ("timeoutMs", node.timeout_ms),
        ("heartbeatTimeoutMs", node.heartbeat_timeout_ms),
        ("maxParallel", node.max_parallel.map(u64::from)),
    ] {
        bounds(problems, context.at(field), value);
    }
    if let Some(retry) = &node.retry {
        let waits = retry.backoff_ms.max(retry.backoff_max_ms);
        if retry.max > MAX_RETRIES || waits > MAX_WAIT_MS {
            let text = format!(
                "a node is tried again at most {MAX_RETRIES} times, after waits of at most a year"
            );
            problems.add(context.at("retry"), "value", text);
        }
    }
    for (field, value) in texts(node) {
        check_places(&value, &context.at(field), context, problems);
    }
    if let Some(queue) = &node.queue
        && let Err(error) = QueueName::parse(queue)
    {
        problems.add(context.at("queue"), "value", error.to_string());
    }
    let mut needs = |is_there: bool, field: &str, text: &str| {
        if !is_there {
            problems.add(context.at(field), "missing", text);
        }
    };
    match node.kind.as_str() {
        "command" => {
            let text = "a command needs command, the program and its arguments";
            needs(!node.command.is_empty(), "command", text);
            let in_image = context.scope.mode != Mode::K8s || node.image.is_some();
            needs(in_image, "image", "in mode k8s a command needs an image");
        }
        "task" => needs(
            node.queue.is_some(),
            "queue",
            "a task needs queue, the name of the queue its workers take from",
        ),
        "job" => needs(
            node.job.is_some(),
            "job",
            "a job needs job, what is submitted to the agents",
        ),
        "inference" => problems.add(
            context.at("kind"),
            "unsupported",
            "inference nodes need the router, which this version does not have",
        ),
        "gate" => {}
        "condition" => check_condition(node, context, problems),
        "foreach" => check_foreach(node, context, problems),
        "sleep" => check_sleep(node, context, problems),
        // Its shape was wrong, which is reported already.
        "" => {}
        other => problems.add(
            context.at("kind"),
            "unknownKind",
            format!(
                "{other:?} is no kind of node; the kinds are {}",
                KINDS.join(", ")
            ),
        ),
    }
}

fn check_condition(node: &Node, context: &NodeContext<'_>, problems: &mut Problems) {
    match &node.when {
        None => problems.add(
            context.at("when"),
            "missing",
            "a condition needs when, an expression that is true or false",
        ),
        Some(when) => {
            if let Err(error) = expression::check(when) {
                problems.add(context.at("when"), "expression", error);
            }
        }
    }
    for (field, targets) in [("then", &node.then), ("else", &node.otherwise)] {
        for (index, target) in targets.iter().enumerate() {
            if !context.dependents.contains(target.as_str()) {
                let text = format!(
                    "{target} does not need {}, so it cannot be chosen here",
                    node.id
                );
                problems.add(
                    context.at(&format!("{field}[{index}]")),
                    "danglingEdge",
                    text,
                );
            }
        }
    }
}

fn check_foreach(node: &Node, context: &NodeContext<'_>, problems: &mut Problems) {
    if node.items.is_none() {
        let text = "a foreach needs items, a list or a placeholder for one";
        problems.add(context.at("items"), "missing", text);
    }
    if node.nodes.is_empty() {
        let text = "a foreach needs nodes, what is done for each item";
        problems.add(context.at("nodes"), "missing", text);
    }
    if context.scope.depth + 1 > MAX_FOREACH {
        let text = format!("foreach is nested deeper than {MAX_FOREACH}");
        problems.add(context.path.clone(), "limit", text);
        return;
    }
    let scope = Scope {
        path: context.at("nodes"),
        mode: context.scope.mode,
        depth: context.scope.depth + 1,
        outer: context.known.clone(),
    };
    check_nodes(&node.nodes, &[], &scope, problems);
}

fn check_sleep(node: &Node, context: &NodeContext<'_>, problems: &mut Problems) {
    let is_open = |text: &str| text.contains("{{");
    match (&node.until, &node.duration) {
        (Some(until), None) => {
            if !is_open(until) && until.parse::<Timestamp>().is_err() {
                let text = "until must be an RFC 3339 time such as 2026-01-31T12:00:00Z";
                problems.add(context.at("until"), "value", text);
            }
        }
        (None, Some(duration)) => {
            if !is_open(duration)
                && let Err(error) = wait(duration)
            {
                problems.add(context.at("for"), "value", error);
            }
        }
        (None, None) | (Some(_), Some(_)) => problems.add(
            context.path.clone(),
            "missing",
            "a sleep needs either until, a time, or for, such as 10m",
        ),
    }
}

/// Reads how long a sleep takes.
pub(crate) fn wait(text: &str) -> Result<std::time::Duration, String> {
    let read = humantime::parse_duration(text)
        .map_err(|error| format!("for must be a time such as 1h 30m or 250ms: {error}"))?;
    if read.as_millis() > u128::from(MAX_WAIT_MS) {
        return Err("a sleep may take a year at most".to_owned());
    }
    Ok(read)
}

fn bounds(problems: &mut Problems, path: String, value: Option<u64>) {
    if value.is_some_and(|value| value == 0 || value > MAX_WAIT_MS) {
        let text = format!("must be 1 to {MAX_WAIT_MS}");
        problems.add(path, "value", text);
    }
}

/// Every field of a node that may hold placeholders.
fn texts(node: &Node) -> Vec<(&'static str, Value)> {
    let text = |text: &Option<String>| text.clone().map(Value::String);
    let mut found: Vec<(&'static str, Value)> = [
        ("input", node.input.clone()),
        ("image", text(&node.image)),
        ("model", text(&node.model)),
        ("job", node.job.clone().map(Value::Object)),
        ("items", node.items.clone()),
        ("until", text(&node.until)),
        ("for", text(&node.duration)),
    ]
    .into_iter()
    .filter_map(|(field, value)| value.map(|value| (field, value)))
    .collect();
    let command = node.command.iter().cloned().map(Value::String).collect();
    found.push(("command", Value::Array(command)));
    let env = node.env.iter();
    let env = env.map(|(name, value)| (name.clone(), Value::String(value.clone())));
    found.push(("env", Value::Object(env.collect())));
    found
}

fn check_places(value: &Value, path: &str, context: &NodeContext<'_>, problems: &mut Problems) {
    if !nesting::is_bounded(value) {
        let text = format!("is nested deeper than {} levels", nesting::MAX_LEVELS);
        problems.add(path, "limit", text);
        return;
    }
    let placeholders = match template::placeholders(value) {
        Ok(placeholders) => placeholders,
        Err(error) => {
            problems.add(path, "template", error);
            return;
        }
    };
    for placeholder in placeholders {
        match placeholder.path.as_slice() {
            ["nodes", id, ..] if !context.known.contains(*id) => {
                let text = format!(
                    "{{{{{}}}}} uses {id}, which this node does not need, directly or through others",
                    placeholder.text
                );
                problems.add(path, "template", text);
            }
            ["item" | "index", ..] if context.scope.depth == 0 => {
                let text = format!("{{{{{}}}}} is known in a foreach only", placeholder.text);
                problems.add(path, "template", text);
            }
            _ => {}
        }
    }
}

/// Makes the edges of a sound plan into `needs`, each once.
fn needs_of_edges(plan: &mut Plan) {
    for edge in &plan.edges {
        if let Some(node) = plan.nodes.iter_mut().find(|node| node.id == edge.to)
            && !node.needs.contains(&edge.from)
        {
            node.needs.push(edge.from.clone());
        }
    }
    fn once(nodes: &mut [Node]) {
        for node in nodes {
            let mut seen = HashSet::new();
            node.needs.retain(|need| seen.insert(need.clone()));
            once(&mut node.nodes);
        }
    }
    once(&mut plan.nodes);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(plan: Value) -> Vec<(String, String)> {
        checked(&plan, Mode::Queue)
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|problem| (problem.path, problem.code))
            .collect()
    }

    #[test]
    fn every_problem_of_a_plan_is_named_at_once() {
        let plan = json!({
            "nodes": [
                {"id": "a", "kind": "command"},
                {"id": "a", "kind": "gate"},
                {"id": "b", "kind": "dance"},
                {"id": "c", "kind": "task", "queue": "q", "needs": ["unknown"], "input": "{{nodes.e.output.x}}"},
                {"id": "d", "kind": "sleep"},
                {"id": "e", "kind": "sleep", "for": "a while"},
                {"id": "f", "kind": "condition", "when": "inputs.x >", "then": ["e"]},
                {"id": "g", "kind": "foreach", "items": [], "nodes": [{"id": "x", "kind": "gate", "needs": ["y"]}]},
                {"id": "h h", "kind": "gate", "timeoutMs": 0, "retry": {"max": 5000}},
                {"id": "i", "kind": "gate", "colour": "red"},
                {"id": "j", "kind": 5},
                {"id": "k", "kind": "command", "command": ["echo", "{{item}}", "{{nope}}"]}
            ],
            "edges": [{"from": "a", "to": "zz"}, {"from": 3}],
            "speed": 9
        });
        let found = problems(plan);
        for expected in [
            ("speed", "shape"),
            ("nodes[0].command", "missing"),
            ("nodes[1].id", "duplicateId"),
            ("nodes[2].kind", "unknownKind"),
            ("nodes[3].needs[0]", "danglingEdge"),
            ("nodes[3].input", "template"),
            ("nodes[4]", "missing"),
            ("nodes[5].for", "value"),
            ("nodes[6].when", "expression"),
            ("nodes[6].then[0]", "danglingEdge"),
            ("nodes[7].nodes[0].needs[0]", "danglingEdge"),
            ("nodes[8].id", "value"),
            ("nodes[8].timeoutMs", "value"),
            ("nodes[8].retry", "value"),
            ("nodes[9].colour", "shape"),
            ("nodes[10].kind", "shape"),
            ("nodes[11].command", "template"),
            ("edges[0]", "danglingEdge"),
            ("edges[1].from", "shape"),
        ] {
            let expected = (expected.0.to_owned(), expected.1.to_owned());
            assert!(found.contains(&expected), "{expected:?} in {found:#?}");
        }
    }

    #[test]
    fn a_cycle_is_reported_as_its_path() {
        let plan = json!({"nodes": [
            {"id": "a", "kind": "gate", "needs": ["c"]},
            {"id": "b", "kind": "gate", "needs": ["a"]},
            {"id": "c", "kind": "gate", "needs": ["b"]},
            {"id": "d", "kind": "gate", "needs": ["c"]}
        ]});
        let found = checked(&plan, Mode::Queue).unwrap_err();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].code, "cycle");
        assert!(
            found[0].message.ends_with("a → b → c → a")
                || found[0].message.ends_with("b → c → a → b")
                || found[0].message.ends_with("c → a → b → c"),
            "{}",
            found[0].message
        );
    }

    #[test]
    fn edges_and_needs_are_the_same() {
        let plan = json!({
            "nodes": [{"id": "a", "kind": "gate"}, {"id": "b", "kind": "gate", "needs": ["a"]}],
            "edges": [{"from": "a", "to": "b"}]
        });
        let plan = checked(&plan, Mode::Queue).unwrap();
        assert_eq!(plan.nodes[1].needs, ["a"]);
    }

    #[test]
    fn no_plan_at_all_is_a_problem_and_not_a_panic() {
        for plan in [
            json!(null),
            json!([]),
            json!({}),
            json!({"nodes": {}}),
            json!({"nodes": [1]}),
        ] {
            assert!(!problems(plan.clone()).is_empty(), "{plan}");
        }
        let one = json!({"nodes": [{"id": "a", "kind": "command", "command": ["x"]}]});
        assert!(checked(&one, Mode::Queue).is_ok());
        let found = checked(&one, Mode::K8s).unwrap_err();
        assert_eq!(found[0].path, "nodes[0].image");
    }
}
