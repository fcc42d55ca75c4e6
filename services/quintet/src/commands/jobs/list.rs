//! `quintet jobs list`.

use anyhow::Context;
use clap::Args;

use super::show::rows;
use crate::cli::exit::Outcome;
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::http::{Http, path_of};

#[derive(Args)]
pub(crate) struct List {
    /// Only jobs with this status
    #[arg(long)]
    status: Option<String>,
    /// Only jobs of this agent
    #[arg(long)]
    agent: Option<String>,
    /// At most so many
    #[arg(long)]
    limit: Option<u32>,
}

pub(super) async fn list(http: &Http, list: &List, global: &Global) -> Outcome {
    let query = [
        ("status", list.status.clone()),
        ("agentId", list.agent.clone()),
        ("limit", list.limit.map(|limit| limit.to_string())),
    ];
    let query: Vec<String> = query
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", path_of(&value?))))
        .collect();
    let jobs = http.get(&format!("/v1/jobs?{}", query.join("&"))).await?;
    if global.output == Output::Json {
        print(format_args!("{jobs:#}"));
        return Ok(());
    }
    rows(jobs.as_array().context("the answer is no list")?);
    Ok(())
}
