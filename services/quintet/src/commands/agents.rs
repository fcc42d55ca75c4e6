//! `quintet agents`.

use clap::Subcommand;
use quintet_bus::now;
use serde_json::{Value, json};

use crate::cli::exit::Outcome;
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::http::{Http, path_of};
use crate::client::output::table::{age, table, text};

#[derive(Subcommand)]
pub(crate) enum AgentsCommand {
    /// List all agents in order of registration
    List,
    /// Show one agent
    Get { id: String },
    /// Give an agent no more jobs
    Drain { id: String },
    /// Give an agent jobs again
    Undrain { id: String },
    /// Forget an offline agent
    Forget { id: String },
}

pub(super) async fn run(command: AgentsCommand, global: &Global) -> Outcome {
    let http = Http::of(global)?;
    let path = |id: &str| format!("/v1/agents/{}", path_of(id));
    let drain = |id: String, drain: bool| {
        let (http, path) = (http.clone(), path(&id));
        async move {
            http.post(&format!("{path}/drain"), &json!({"drain": drain}))
                .await
        }
    };
    let (agents, whole) = match command {
        AgentsCommand::List => {
            let list = http.get("/v1/agents").await?;
            (list.as_array().cloned().unwrap_or_default(), list)
        }
        AgentsCommand::Get { id } => {
            let agent = http.get(&path(&id)).await?;
            (vec![agent.clone()], agent)
        }
        AgentsCommand::Drain { id } => one(drain(id, true).await?),
        AgentsCommand::Undrain { id } => one(drain(id, false).await?),
        AgentsCommand::Forget { id } => {
            http.delete(&path(&id)).await?;
            if global.output == Output::Table {
                print(format_args!("forgot {id}"));
            }
            return Ok(());
        }
    };
    match global.output {
        Output::Json => print(format_args!("{whole:#}")),
        Output::Table => show(&agents),
    }
    Ok(())
}

fn one(mut answer: Value) -> (Vec<Value>, Value) {
    let agent = answer["agent"].take();
    (vec![agent.clone()], agent)
}

fn show(agents: &[Value]) {
    if agents.is_empty() {
        return print("no agents; start one with `quintet agent`");
    }
    let mut rows = table(&[
        "agent",
        "state",
        "drain",
        "slots",
        "version",
        "last seen",
        "jobs",
    ]);
    for agent in agents {
        let jobs = agent["jobs"]
            .as_array()
            .map(|jobs| jobs.iter().map(text).collect::<Vec<_>>())
            .unwrap_or_default();
        rows.add_row([
            text(&agent["id"]),
            text(&agent["state"]),
            text(&agent["drain"]),
            format!(
                "{}/{}",
                jobs.len(),
                agent["capabilities"]["slots"].as_u64().unwrap_or(1)
            ),
            text(&agent["version"]),
            age(&agent["lastSeenAt"], now()),
            jobs.join(" "),
        ]);
    }
    print(rows);
}
