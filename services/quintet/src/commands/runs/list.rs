//! `quintet runs list`.

use anyhow::Context;
use clap::Args;
use quintet_bus::now;
use serde_json::{Value, json};

use super::request::path_query;
use crate::cli::exit::Outcome;
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::http::Http;
use crate::client::output::table::{age, table, text};

/// Runs of one request.
const PAGE: usize = 100;

#[derive(Args)]
pub(crate) struct List {
    /// Only runs with this status: pending, running, completed, failed or canceled
    #[arg(long)]
    status: Option<String>,
    /// Only runs of this owner
    #[arg(long)]
    owner: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

pub(super) async fn list(http: &Http, list: &List, global: &Global) -> Outcome {
    let mut runs: Vec<Value> = Vec::new();
    let mut cursor = None;
    while runs.len() < list.limit {
        let query = [
            ("limit", Some(PAGE.min(list.limit - runs.len()).to_string())),
            ("status", list.status.clone()),
            ("owner", list.owner.clone()),
            ("cursor", cursor.take()),
        ];
        let mut page = http.get(&path_query("/v1/runs", query)).await?;
        let found = page["runs"].as_array_mut();
        runs.append(found.context("the answer is no list of runs")?);
        match page["nextCursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    if global.output == Output::Json {
        let mut answer = json!({"runs": runs});
        if let Some(cursor) = cursor {
            answer["nextCursor"] = Value::String(cursor);
        }
        print(format_args!("{answer:#}"));
        return Ok(());
    }
    if runs.is_empty() {
        print("no runs; create one with `quintet runs create`");
        return Ok(());
    }
    let mut rows = table(&["run", "status", "name", "owner", "age", "nodes", "what"]);
    for run in &runs {
        rows.add_row([
            text(&run["id"]),
            text(&run["status"]),
            text(&run["name"]),
            text(&run["owner"]),
            age(&run["createdAt"], now()),
            nodes(run),
            run["error"].as_str().unwrap_or_default().to_owned(),
        ]);
    }
    print(rows);
    Ok(())
}

/// How many of the nodes have ended well.
fn nodes(run: &Value) -> String {
    let Some(nodes) = run["nodes"].as_object() else {
        return "-".to_owned();
    };
    let done = nodes
        .values()
        .filter(|node| node["status"] == "succeeded" || node["status"] == "skipped");
    format!("{}/{}", done.count(), nodes.len())
}
