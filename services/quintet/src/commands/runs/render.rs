//! Draws a run: its graph with the status of each node, its newest checkpoints and lines of output.
//!
//! A pure function of what is known, the time and the size of the terminal. A graph that does not fit is drawn as counts per
//! layer and the nodes that something happens to.

use std::collections::BTreeMap;

use quintet_contract::event::LogStream;
use quintet_contract::run::{NodeStatus, RunStatus};
use quintet_contract::time::Timestamp;
use ratatui::text::{Line, Span};
use serde_json::Value;

use super::graph::Row;
use super::text::{of_node, of_run, took, word};
use super::view::{Activity, State, View};
use crate::client::output::terminal::{BAD, CARE, DIM, PLAIN, STRONG, width};

/// The longest id that is aligned; longer ones push what follows.
const LONGEST_ID: usize = 32;
/// From this width on the kind of each node is shown.
const KINDS_FROM: u16 = 72;
/// Most nodes inside of a `foreach` that are shown on their own.
const ITEMS: usize = 4;

/// How much may be drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) columns: u16,
    /// No limit without it.
    pub(super) rows: Option<u16>,
}

/// Draws a run into lines.
pub(super) fn render(view: &View, now: Timestamp, size: Size) -> Vec<Line<'static>> {
    let mut lines = vec![head(view, now)];
    let foot = foot(view);
    let free = |lines: &[Line<'_>]| match size.rows {
        // A line for the cursor, and one before each part.
        Some(rows) => usize::from(rows).saturating_sub(lines.len() + foot.len() + 2),
        None => usize::MAX,
    };
    if !view.nodes.is_empty() {
        lines.push(Line::default());
        let rows = view.graph.rows();
        let rails = rows.iter().map(Row::width).max().unwrap_or(0);
        let fits = rows.len() <= free(&lines) && rails * 3 <= usize::from(size.columns);
        match fits {
            true => lines.extend(
                rows.iter()
                    .map(|row| graph_line(view, row, rails, now, size)),
            ),
            false => lines.extend(layer_lines(view, now, size, free(&lines))),
        }
    }
    let mut more = item_lines(view, now);
    more.extend(checkpoint_lines(view));
    more.extend(output_lines(view));
    let fitting = free(&lines).saturating_sub(1);
    if !more.is_empty() && fitting > 0 {
        lines.push(Line::default());
        let skipped = more.len().saturating_sub(fitting);
        lines.extend(more.into_iter().skip(skipped));
    }
    lines.extend(foot);
    lines
}

fn head(view: &View, now: Timestamp) -> Line<'static> {
    let (mark, look) = of_run(view.status);
    let began = view.began.unwrap_or(view.created);
    let time = took(view.ended.unwrap_or(now).since(began));
    let mut spans = vec![
        Span::styled(format!("{mark} {} ", view.status), look),
        Span::raw(format!("{time}  ")),
        Span::styled(view.id.clone(), STRONG),
    ];
    if let Some(name) = &view.name {
        spans.push(Span::raw(format!("  {name}")));
    }
    if !view.connected {
        spans.push(Span::styled("  (reconnecting)", CARE));
    }
    Line::from(spans)
}

/// Why it failed, or what it waits for a person to do.
fn foot(view: &View) -> Vec<Line<'static>> {
    if let Some(error) = &view.error {
        return vec![Line::default(), Line::styled(error.clone(), BAD)];
    }
    let waits = |id: &str| view.state(id).status == NodeStatus::Waiting;
    let gates = view
        .nodes
        .iter()
        .filter(|node| node.kind == "gate" && waits(&node.id));
    let mut lines: Vec<Line<'_>> = gates
        .take(2)
        .map(|gate| {
            let text = format!("quintet runs approve {} {}", view.id, gate.id);
            Line::styled(text, CARE)
        })
        .collect();
    if view.status == RunStatus::Running && !lines.is_empty() {
        lines.insert(0, Line::default());
        return lines;
    }
    Vec::new()
}

fn graph_line(view: &View, row: &Row, rails: usize, now: Timestamp, size: Size) -> Line<'static> {
    let Some(number) = row.node else {
        return Line::styled(row.left.clone(), DIM);
    };
    let state = view.state(&view.nodes[number].id);
    let (mark, look) = of_node(state.status);
    let mut spans = vec![
        Span::styled(row.left.clone(), DIM),
        Span::styled(mark, look),
        Span::styled(row.right.clone(), DIM),
        Span::raw(" ".repeat(rails - row.width() + 1)),
    ];
    spans.extend(node_spans(view, number, &state, now, size));
    Line::from(spans)
}

/// Status and notes of a node behind its mark.
fn node_spans(
    view: &View,
    number: usize,
    state: &State,
    now: Timestamp,
    size: Size,
) -> Vec<Span<'static>> {
    let node = &view.nodes[number];
    let (_, look) = of_node(state.status);
    let ids = view.nodes.iter().map(|node| width(&node.id)).max();
    let ids = ids.unwrap_or(0).min(LONGEST_ID);
    let quiet = matches!(
        state.status,
        NodeStatus::Pending | NodeStatus::Skipped | NodeStatus::Canceled
    );
    let mut spans = vec![Span::styled(
        padded(&node.id, ids),
        if quiet { DIM } else { PLAIN },
    )];
    if size.columns >= KINDS_FROM {
        let kinds = view.nodes.iter().map(|node| width(&node.kind)).max();
        spans.push(Span::styled(padded(&node.kind, kinds.unwrap_or(0)), DIM));
    }
    spans.push(Span::styled(padded(word(state.status), 9), look));
    spans.extend(note(view, number, state, now));
    spans
}

/// What is worth knowing of a node beside its status.
fn note(view: &View, number: usize, state: &State, now: Timestamp) -> Vec<Span<'static>> {
    let node = &view.nodes[number];
    let mut spans = Vec::new();
    if state.attempt.0 > 1 {
        spans.push(Span::styled(format!("attempt {}  ", state.attempt), CARE));
    }
    if let Some(time) = elapsed(state, now) {
        spans.push(Span::raw(format!("{time}  ")));
    }
    if node.kind == "foreach" {
        spans.extend(items_done(view, &node.id).map(|text| Span::raw(format!("{text}  "))));
    }
    if let Some(error) = &state.error {
        let look = if state.status == NodeStatus::Failed {
            BAD
        } else {
            CARE
        };
        spans.push(Span::styled(error.clone(), look));
    } else if let (NodeStatus::Running, Some(activity)) = (state.status, &state.activity) {
        spans.push(Span::styled(activity.to_string(), DIM));
    } else if let (NodeStatus::Pending | NodeStatus::Skipped, Some((condition, answer))) =
        (state.status, &node.chosen_by)
    {
        let answer = if *answer { "true" } else { "false" };
        spans.push(Span::styled(format!("if {condition} is {answer}"), DIM));
    }
    spans
}

fn elapsed(state: &State, now: Timestamp) -> Option<String> {
    let began = state.began?;
    match state.status {
        NodeStatus::Running | NodeStatus::Waiting => Some(took(now.since(began))),
        NodeStatus::Succeeded | NodeStatus::Failed => Some(took(state.ended?.since(began))),
        NodeStatus::Pending | NodeStatus::Queued | NodeStatus::Skipped | NodeStatus::Canceled => {
            None
        }
    }
}

fn items_done(view: &View, id: &str) -> Option<String> {
    let (mut all, mut done, mut failed) = (0, 0, 0);
    for (_, state) in view.items(id) {
        all += 1;
        done += usize::from(state.status.is_final());
        failed += usize::from(state.status == NodeStatus::Failed);
    }
    let failed = match failed {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    (all > 0).then(|| format!("{done} of {all} steps{failed}"))
}

impl std::fmt::Display for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Checkpoint(kind, None) => write!(f, "{kind}"),
            Self::Checkpoint(kind, Some(data)) => write!(f, "{kind} {data}"),
            Self::Progress(data) => {
                let number = |name: &str| data[name].as_f64();
                match (number("percent"), number("done"), number("total")) {
                    (Some(percent), _, _) => write!(f, "{percent:.0} %"),
                    (None, Some(done), Some(total)) => write!(f, "{done} of {total}"),
                    _ => write!(f, "{data}"),
                }
            }
        }
    }
}

fn padded(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(width(text));
    format!("{text}{}", " ".repeat(missing + 2))
}

/// A line per layer with the counts of its nodes by status, then the active nodes.
fn layer_lines(view: &View, now: Timestamp, size: Size, free: usize) -> Vec<Line<'static>> {
    let layers: Vec<BTreeMap<&str, (usize, NodeStatus)>> = view
        .graph
        .layers()
        .iter()
        .map(|layer| {
            let mut counts = BTreeMap::new();
            for number in layer {
                let status = view.state(&view.nodes[*number].id).status;
                counts.entry(word(status)).or_insert((0, status)).0 += 1;
            }
            counts
        })
        .collect();
    let is_done = |counts: &BTreeMap<&str, (usize, NodeStatus)>| {
        counts.values().all(|(_, status)| status.is_final())
    };
    // Half of the size is for layers, from the first that continues.
    let shown = layers.len().min((free / 2).max(1));
    let from = layers.iter().position(|counts| !is_done(counts));
    let from = from.unwrap_or(layers.len()).min(layers.len() - shown);
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (number, counts) in layers.iter().enumerate().skip(from).take(shown) {
        let mut spans = vec![Span::styled(format!("layer {:>3}  ", number + 1), DIM)];
        for (word, (count, status)) in counts {
            let (mark, look) = of_node(*status);
            spans.push(Span::styled(format!("{mark} {count} {word}  "), look));
        }
        lines.push(Line::from(spans));
    }
    let busy = |number: &usize| {
        matches!(
            view.state(&view.nodes[*number].id).status,
            NodeStatus::Running | NodeStatus::Waiting | NodeStatus::Failed
        )
    };
    let busy = (0..view.nodes.len()).filter(busy);
    for number in busy.take(free.saturating_sub(lines.len())) {
        let state = view.state(&view.nodes[number].id);
        let (mark, look) = of_node(state.status);
        let mut spans = vec![Span::styled(format!("{mark} "), look)];
        spans.extend(node_spans(view, number, &state, now, size));
        lines.push(Line::from(spans));
    }
    lines
}

/// What runs or failed inside of `foreach` nodes.
fn item_lines(view: &View, now: Timestamp) -> Vec<Line<'static>> {
    let each = view.nodes.iter().filter(|node| node.kind == "foreach");
    let busy = each
        .flat_map(|node| view.items(&node.id))
        .filter(|(_, state)| matches!(state.status, NodeStatus::Running | NodeStatus::Failed));
    let line = |(id, state): (&str, &State)| {
        let (mark, look) = of_node(state.status);
        let time = elapsed(state, now).unwrap_or_default();
        let activity = match (&state.error, &state.activity) {
            (Some(error), _) => error.clone(),
            (None, Some(activity)) => activity.to_string(),
            (None, None) => String::new(),
        };
        Line::from(vec![
            Span::styled(format!("{mark} "), look),
            Span::raw(format!("{id}  {time}  ")),
            Span::styled(activity, DIM),
        ])
    };
    busy.take(ITEMS).map(line).collect()
}

fn checkpoint_lines(view: &View) -> Vec<Line<'static>> {
    let count = view.checkpoint_count - view.checkpoints.len() as u64;
    let numbers = count + 1..;
    let line = |(number, checkpoint): (u64, &quintet_contract::run::Checkpoint)| {
        let node = checkpoint.node_id.as_ref();
        let node = node.map(|node| format!("{node}: ")).unwrap_or_default();
        let data = checkpoint.data.as_ref().map(Value::to_string);
        Line::from(vec![
            Span::styled(format!("checkpoint {number}  "), DIM),
            Span::raw(format!("{node}{} ", checkpoint.kind)),
            Span::styled(data.unwrap_or_default(), DIM),
        ])
    };
    numbers.zip(&view.checkpoints).map(line).collect()
}

fn output_lines(view: &View) -> Vec<Line<'static>> {
    let nodes = view.lines.iter().map(|line| width(&line.node)).max();
    let nodes = nodes.unwrap_or(0).min(LONGEST_ID);
    let line = |line: &super::view::Line| {
        let missing = nodes.saturating_sub(width(&line.node));
        let look = match line.stream {
            LogStream::Stdout => PLAIN,
            LogStream::Stderr => CARE,
            LogStream::Agent | LogStream::Unknown => DIM,
        };
        Line::from(vec![
            Span::styled(format!("{}{} │ ", line.node, " ".repeat(missing)), DIM),
            Span::styled(line.text.clone(), look),
        ])
    };
    view.lines.iter().map(line).collect()
}
