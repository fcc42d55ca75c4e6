//! `quintet workers`: workers of every kind, by their heartbeats.

mod wait;

use clap::{Args, Subcommand};
use quintet_bus::now;
use quintet_contract::worker::WorkerKind;
use serde_json::{Value, json};

use crate::cli::exit::Outcome;
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::http::{Http, path_of};
use crate::client::output::table::{age, names, table, text};

#[derive(Subcommand)]
pub(crate) enum WorkersCommand {
    /// List the workers that are present
    List {
        /// Only workers of this kind: run, frames, infer, tts or asr
        #[arg(long)]
        kind: Option<WorkerKind>,
    },
    /// Drain a run worker: no new tasks; its present ones continue
    Drain(Target),
    /// Undo a drain of a run worker
    Undrain(Target),
    /// Wait until enough workers of a kind are present and not draining
    Wait(wait::WaitCommand),
}

/// One worker.
#[derive(Args)]
pub(crate) struct Target {
    /// Id of the worker, as `quintet workers list` shows it
    id: String,
    /// Kind of the worker, where workers of several kinds have this id
    #[arg(long)]
    kind: Option<WorkerKind>,
}

pub(super) async fn run(command: WorkersCommand, global: &Global) -> Outcome {
    let http = Http::of(global)?;
    match command {
        WorkersCommand::List { kind } => show(&list(&http, kind).await?, global),
        WorkersCommand::Drain(target) => drain(&http, &target, true, global).await?,
        WorkersCommand::Undrain(target) => drain(&http, &target, false, global).await?,
        WorkersCommand::Wait(command) => {
            let present = wait::wait(&command, async || list(&http, Some(command.kind)).await);
            show(&present.await?, global);
        }
    }
    Ok(())
}

async fn list(http: &Http, kind: Option<WorkerKind>) -> anyhow::Result<Vec<Value>> {
    let path = match kind {
        Some(kind) => format!("/v1/workers?kind={kind}"),
        None => "/v1/workers".to_owned(),
    };
    let list = http.get(&path).await?;
    Ok(list.as_array().cloned().unwrap_or_default())
}

async fn drain(http: &Http, target: &Target, drain: bool, global: &Global) -> Outcome {
    let kind = target.kind.map(|kind| format!("?kind={kind}"));
    let kind = kind.unwrap_or_default();
    let path = format!("/v1/workers/{}/drain{kind}", path_of(&target.id));
    let mut answer = http.post(&path, &json!({"drain": drain})).await?;
    show(&[answer["worker"].take()], global);
    Ok(())
}

fn show(workers: &[Value], global: &Global) {
    if global.output == Output::Json {
        return print(format_args!("{:#}", json!(workers)));
    }
    if workers.is_empty() {
        return print("no workers; start one with `quintet worker run`");
    }
    let mut rows = table(&[
        "worker",
        "kind",
        "state",
        "slots",
        "offers",
        "host",
        "version",
        "last seen",
        "ttl",
    ]);
    for worker in workers {
        let load = &worker["load"];
        rows.add_row([
            text(&worker["id"]),
            text(&worker["kind"]),
            text(&worker["state"]),
            match load.is_null() {
                true => "-".to_owned(),
                false => format!("{}/{}", text(&load["used"]), text(&load["slots"])),
            },
            offers(worker),
            text(&worker["host"]),
            text(&worker["version"]),
            age(&worker["lastSeenAt"], now()),
            format!("{} ms", text(&worker["ttlMs"])),
        ]);
    }
    print(rows);
}

/// What it can be asked for: its queues, models and effects.
fn offers(worker: &Value) -> String {
    let lists = ["queues", "models", "effects"].map(|field| worker[field].as_array());
    let all: Vec<Value> = lists.into_iter().flatten().flatten().cloned().collect();
    names(&all)
}
