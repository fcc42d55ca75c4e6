//! `quintet runs plan`: what a plan would do, drawn as a graph.

use std::collections::BTreeMap;

use anyhow::Context;
use quintet_contract::plan::{PlanView, PlannedNode};
use ratatui::text::{Line, Span};
use serde_json::{Value, json};

use super::graph::{Graph, Row};
use crate::cli::exit::Outcome;
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::http::Http;
use crate::client::output::terminal::{self, BUSY, CARE, DIM, PLAIN, STRONG, width};

pub(super) async fn plan(http: &Http, plan: Value, global: &Global) -> Outcome {
    let body = json!({"plan": plan});
    let mut answer = http.post("/v1/runs?mode=plan", &body).await?;
    if global.output == Output::Json {
        print(format_args!("{answer:#}"));
        return Ok(());
    }
    let view: PlanView =
        serde_json::from_value(answer["plan"].take()).context("the answer is no plan")?;
    terminal::print_lines(&lines(&view, usize::from(terminal::columns())))?;
    Ok(())
}

/// The graph with a node per line, the longest path, and the warnings.
pub(super) fn lines(plan: &PlanView, columns: usize) -> Vec<Line<'static>> {
    // In the order of the layers as the server has them; what is in none, such as the body of a `foreach`, comes last.
    let ids: Vec<&str> = plan.layers.iter().flatten().map(String::as_str).collect();
    let edges = plan.edges.iter();
    let graph = Graph::new(
        &ids,
        edges.map(|edge| (edge.from.as_str(), edge.to.as_str())),
    );
    let nodes: BTreeMap<&str, &PlannedNode> = plan
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let layer_of: BTreeMap<&str, usize> = (1..)
        .zip(&plan.layers)
        .flat_map(|(number, layer)| layer.iter().map(move |id| (id.as_str(), number)))
        .collect();
    let widest = plan.nodes.iter().map(|node| width(&node.id)).max();
    let kinds = plan.nodes.iter().map(|node| width(&node.kind)).max();
    let widths = [widest.unwrap_or(0), kinds.unwrap_or(0)];
    let rows = graph.rows();
    let rails = rows.iter().map(Row::width).max().unwrap_or(0);
    let is_drawn = rails * 3 <= columns;
    let mut lines = vec![Line::styled("layer", DIM)];
    let mut last = 0;
    for row in rows {
        let Some(number) = row.node else {
            if is_drawn {
                lines.push(Line::styled(format!("       {}", row.left), DIM));
            }
            continue;
        };
        let layer = layer_of.get(ids[number]).copied().unwrap_or(0);
        let label = if layer == last {
            "       ".to_owned()
        } else {
            format!("{layer:>5}  ")
        };
        last = layer;
        let is_critical = plan.critical_path.iter().any(|id| id == ids[number]);
        let mut spans = vec![Span::styled(label, DIM)];
        if is_drawn {
            let used = row.width();
            spans.push(Span::styled(row.left, DIM));
            spans.push(Span::styled("●", if is_critical { BUSY } else { PLAIN }));
            let gap = " ".repeat(rails - used + 1);
            spans.push(Span::styled(format!("{}{gap}", row.right), DIM));
        }
        if let Some(node) = nodes.get(ids[number]) {
            spans.extend(node_spans(node, widths, !is_drawn));
        }
        lines.push(Line::from(spans));
    }
    let inner = plan
        .nodes
        .iter()
        .filter(|node| !layer_of.contains_key(node.id.as_str()));
    for node in inner {
        let mut spans = vec![Span::styled("       inside  ", DIM)];
        spans.extend(node_spans(node, widths, true));
        lines.push(Line::from(spans));
    }
    lines.push(Line::default());
    lines.push(Line::from(vec![
        Span::styled("longest path  ", DIM),
        Span::styled(plan.critical_path.join(" → "), STRONG),
    ]));
    for warning in &plan.warnings {
        lines.push(Line::styled(format!("warning: {warning}"), CARE));
    }
    lines
}

/// The description of a node.
fn node_spans(node: &PlannedNode, widths: [usize; 2], with_needs: bool) -> Vec<Span<'static>> {
    let [ids, kinds] = widths;
    let padded = |text: &str, columns: usize| {
        let missing = columns.saturating_sub(width(text));
        format!("{text}{}", " ".repeat(missing + 2))
    };
    let mut spans = vec![
        Span::raw(padded(&node.id, ids)),
        Span::styled(padded(&node.kind, kinds), DIM),
    ];
    if let Some(queue) = &node.queue {
        spans.push(Span::styled(format!("queue {queue}  "), DIM));
        match node.has_worker {
            Some(true) => spans.push(Span::raw("a worker listens  ")),
            Some(false) => spans.push(Span::styled("no worker listens  ", CARE)),
            None => {}
        }
    }
    if with_needs && !node.needs.is_empty() {
        spans.push(Span::styled(
            format!("needs {}", node.needs.join(", ")),
            DIM,
        ));
    }
    spans
}
