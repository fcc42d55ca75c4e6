//! Paths of runs, and what is in their answers.

use anyhow::Context;
use quintet_contract::run::Run;
use serde_json::Value;

use crate::cli::exit::Outcome;
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::http::path_of;

pub(super) fn path(id: &str) -> String {
    format!("/v1/runs/{}", path_of(id))
}

/// A path with those fields of a query that are there.
pub(super) fn path_query<const N: usize>(path: &str, query: [(&str, Option<String>); N]) -> String {
    let fields = query.into_iter();
    let fields: Vec<String> = fields
        .filter_map(|(name, value)| Some(format!("{name}={}", path_of(&value?))))
        .collect();
    format!("{path}?{}", fields.join("&"))
}

/// Prints an answer: whole for machines, a word for people.
pub(super) fn show_answer(answer: &Value, short: &str, global: &Global) -> Outcome {
    match global.output {
        Output::Json => print(format_args!("{answer:#}")),
        Output::Table => print(short),
    }
    Ok(())
}

/// The id of a run that was just created.
pub(super) fn id_of(answer: &Value) -> anyhow::Result<String> {
    let id = answer["runId"].as_str();
    Ok(id.context("the run has no id")?.to_owned())
}

/// The run in an answer.
pub(super) fn run_of(answer: &Value) -> anyhow::Result<Run> {
    serde_json::from_value(answer["run"].clone()).context("the answer is no run")
}
