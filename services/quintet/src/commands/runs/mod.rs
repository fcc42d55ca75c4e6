//! `quintet runs`.
//!
//! - [`create`], [`list`], [`plan`], [`watch`]: a verb each; the short ones are here.
//! - [`follow`]: the events of a run, over broken streams.
//! - [`view`]: what is known of a run, folded from its events; [`render`] draws it, with [`graph`] and [`text`].

mod create;
mod follow;
mod graph;
mod list;
mod plan;
mod render;
mod request;
#[cfg(test)]
mod tests;
mod text;
mod view;
mod watch;

use clap::Subcommand;
use serde_json::json;

use self::request::{id_of, path, run_of, show_answer};
use crate::cli::exit::Outcome;
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::http::{Http, path_of};
use crate::client::input::{self, json_argument};

#[derive(Subcommand)]
pub(crate) enum RunsCommand {
    /// Create a run, with or without a plan
    Create(Box<create::Create>),
    /// Show what a plan would do, in which order, without doing it
    Plan {
        /// The plan, as JSON in a file, or - for standard input
        file: String,
    },
    /// List runs, newest first
    List(list::List),
    /// Show one run
    Get { id: String },
    /// Watch a run until it ends; fails unless it completes
    Watch { id: String },
    /// Write a checkpoint into the log of a run
    Checkpoint {
        id: String,
        /// What it marks
        #[arg(value_name = "TYPE")]
        kind: String,
        /// What is to be found again with it: JSON, @FILE, or - for standard input
        #[arg(long, value_name = "JSON")]
        data: Option<String>,
    },
    /// End a run
    Cancel { id: String },
    /// Approve a gate of a run
    Approve { id: String, node: String },
    /// Reject a gate of a run
    Reject { id: String, node: String },
    /// Start a run that continues where an ended one stopped
    Retry {
        id: String,
        /// Follow it until it ends; fails unless it completes
        #[arg(long)]
        watch: bool,
    },
}

pub(super) async fn run(command: RunsCommand, global: &Global) -> Outcome {
    let http = Http::of(global)?;
    match command {
        RunsCommand::Create(create) => self::create::create(&http, &create, global).await,
        RunsCommand::Plan { file } => plan::plan(&http, input::file(&file)?, global).await,
        RunsCommand::List(list) => self::list::list(&http, &list, global).await,
        RunsCommand::Get { id } => {
            let answer = http.get(&path(&id)).await?;
            match global.output {
                Output::Json => print(format_args!("{:#}", answer["run"])),
                Output::Table => watch::show(run_of(&answer)?)?,
            }
            Ok(())
        }
        RunsCommand::Watch { id } => watch::watch(&http, &id, global).await,
        RunsCommand::Checkpoint { id, kind, data } => {
            let mut body = json!({"type": kind});
            if let Some(data) = data {
                body["data"] = json_argument(&data)?;
            }
            let path = format!("{}/checkpoints", path(&id));
            let answer = http.post(&path, &body).await?;
            show_answer(
                &answer,
                &crate::client::output::table::text(&answer["checkpointId"]),
                global,
            )
        }
        RunsCommand::Cancel { id } => {
            let answer = http.delete(&path(&id)).await?;
            show_answer(&answer, &format!("canceled {id}"), global)
        }
        RunsCommand::Approve { id, node } => decide(&http, &id, &node, "approve", global).await,
        RunsCommand::Reject { id, node } => decide(&http, &id, &node, "reject", global).await,
        RunsCommand::Retry { id, watch } => {
            let answer = http.post_empty(&format!("{}/retry", path(&id))).await?;
            let new = id_of(&answer)?;
            match watch {
                true => watch::watch(&http, &new, global).await,
                false => show_answer(&answer, &new, global),
            }
        }
    }
}

async fn decide(http: &Http, id: &str, node: &str, verb: &str, global: &Global) -> Outcome {
    let path = format!("{}/nodes/{}/{verb}", path(id), path_of(node));
    let answer = http.post_empty(&path).await?;
    let done = match verb {
        "approve" => "approved",
        _ => "rejected",
    };
    show_answer(&answer, &format!("{done} {node}"), global)
}
