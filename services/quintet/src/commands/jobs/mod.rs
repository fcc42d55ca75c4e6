//! `quintet jobs`: a verb each; the short ones are here.

mod list;
mod path;
mod show;
mod submit;
mod watch;

use anyhow::Context;
use clap::Subcommand;
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use self::path::path;
use self::show::{explain, show};
use crate::cli::exit::Outcome;
use crate::cli::global::Global;
use crate::cli::stdout::{print, print_bytes};
use crate::client::http::Http;
use crate::client::input::{fields, json_argument};

#[derive(Subcommand)]
pub(crate) enum JobsCommand {
    /// Submit a job
    Submit(Box<submit::Submit>),
    /// List jobs, oldest first
    List(list::List),
    /// Show one job
    Get { id: String },
    /// Stop a job
    Stop {
        id: String,
        /// Wait until it has ended
        #[arg(long)]
        wait: bool,
    },
    /// Turn a job's sound off
    Mute { id: String },
    /// Turn a job's sound on
    Unmute { id: String },
    /// Send a live command to a running job
    Control {
        id: String,
        command: String,
        /// Arguments: JSON, @FILE, or - for standard input
        #[arg(long)]
        args: Option<String>,
    },
    /// Print a job's output
    Logs {
        id: String,
        /// Follow until the job ends
        #[arg(short, long)]
        follow: bool,
        /// Begin with the newest lines
        #[arg(long)]
        tail: Option<usize>,
    },
    /// Print every status of a job as it comes
    Watch { id: String },
    /// Explain the status of a job
    Explain { id: String },
    /// Show a job's stream metadata, or set fields (name=value; an empty value removes one)
    Metadata {
        id: String,
        #[arg(long = "set", value_name = "NAME=VALUE")]
        set: Vec<String>,
    },
}

pub(super) async fn run(command: JobsCommand, global: &Global) -> Outcome {
    let http = Http::of(global)?;
    match command {
        JobsCommand::Submit(submit) => submit::submit(&http, &submit, global).await,
        JobsCommand::List(list) => list::list(&http, &list, global).await,
        JobsCommand::Get { id } => show(&http.get(&path(&id)).await?, global),
        JobsCommand::Stop { id, wait } => {
            let mut answer = http.post_empty(&format!("{}/stop", path(&id))).await?;
            if wait {
                return watch::wait(&http, &id, global).await.map(drop);
            }
            show(&answer["job"].take(), global)
        }
        JobsCommand::Mute { id } => show(
            &http.post_empty(&format!("{}/mute", path(&id))).await?["job"],
            global,
        ),
        JobsCommand::Unmute { id } => show(
            &http.post_empty(&format!("{}/unmute", path(&id))).await?["job"],
            global,
        ),
        JobsCommand::Control { id, command, args } => {
            let args = args.as_deref().map_or(Ok(json!({})), json_argument)?;
            let answer = http
                .post(
                    &format!("{}/control", path(&id)),
                    &json!({"command": command, "args": args}),
                )
                .await?;
            print(format_args!("{:#}", answer["answer"]));
            Ok(())
        }
        JobsCommand::Logs { id, follow, tail } => logs(&http, &id, follow, tail).await,
        JobsCommand::Watch { id } => watch::watch(&http, &id, global).await,
        JobsCommand::Explain { id } => {
            explain(&http.get(&format!("{}/explain", path(&id))).await?, global)
        }
        JobsCommand::Metadata { id, set } => {
            let path = format!("{}/metadata", path(&id));
            let answer = match set.is_empty() {
                true => http.get(&path).await?,
                false => http.put(&path, &Value::Object(fields(&set)?)).await?,
            };
            print(format_args!("{:#}", answer["metadata"]));
            Ok(())
        }
    }
}

async fn logs(http: &Http, id: &str, follow: bool, tail: Option<usize>) -> Outcome {
    let tail = tail.map(|tail| format!("&tail={tail}")).unwrap_or_default();
    let request = http.request(
        Method::GET,
        &format!("{}/logs?follow={follow}{tail}", path(id)),
    );
    let mut lines = http.send(request).await?.bytes_stream();
    while let Some(chunk) = lines.next().await {
        print_bytes(&chunk.context("the output broke off")?);
    }
    Ok(())
}
