//! The client: verbs on jobs, runs, agents, templates and frames over HTTP, and looks at the bus.

mod agents;
mod bench;
pub(crate) mod doctor;
mod frames;
mod jobs;
mod keys;
pub(crate) mod nats_conf;
mod runs;
pub(crate) mod schemas;
mod tap;
mod templates;
mod top;
mod workers;

use clap::Subcommand;

use crate::cli::exit::Outcome;
use crate::cli::global::Global;

#[derive(Subcommand)]
pub(crate) enum ClientCommand {
    /// Submit, watch, list and stop jobs
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Create, watch, list and cancel runs
    #[command(subcommand)]
    Runs(runs::RunsCommand),
    /// List, drain and forget agents
    #[command(subcommand)]
    Agents(agents::AgentsCommand),
    /// List, drain and wait for workers
    #[command(subcommand)]
    Workers(workers::WorkersCommand),
    /// Create, list and revoke API keys
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// List, store and delete job templates
    #[command(subcommand)]
    Templates(templates::TemplatesCommand),
    /// Show and control the display: its workers, its rate, its image
    #[command(subcommand)]
    Frames(frames::FramesCommand),
    /// Watch agents and jobs live
    Top(top::TopCommand),
    /// Print the traffic on the bus, decoded
    Tap(tap::TapCommand),
    /// Turn one message into JSON, for `nats sub --translate 'quintet decode'`
    Decode,
    /// Measure this machine with quintet-bench, which `make bench` builds
    Bench(bench::BenchCommand),
}

pub(crate) async fn run(command: ClientCommand, global: &Global) -> Outcome {
    match command {
        ClientCommand::Jobs(command) => jobs::run(command, global).await,
        ClientCommand::Runs(command) => runs::run(command, global).await,
        ClientCommand::Agents(command) => agents::run(command, global).await,
        ClientCommand::Workers(command) => workers::run(command, global).await,
        ClientCommand::Keys(command) => keys::run(command, global).await,
        ClientCommand::Templates(command) => templates::run(command, global).await,
        ClientCommand::Frames(command) => frames::run(command, global).await,
        ClientCommand::Top(command) => top::run(command, global).await,
        ClientCommand::Tap(command) => tap::tap(command, global).await,
        ClientCommand::Decode => tap::decode(),
        ClientCommand::Bench(command) => bench::run(&command, global),
    }
}
