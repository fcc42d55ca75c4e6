//! The client: verbs on jobs, runs, agents, templates and frames over HTTP, and looks at the bus.

mod agents;
mod bench;
mod bus;
mod frames;
mod http;
mod jobs;
mod runs;
mod table;
mod templates;
mod terminal;
mod top;

use clap::Subcommand;

use crate::args::Global;
use crate::exit::Outcome;

pub(crate) use self::http::{Http, Sse};

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
    /// List, store and delete job templates
    #[command(subcommand)]
    Templates(templates::TemplatesCommand),
    /// Say who draws for the display and how fast, and look at it
    #[command(subcommand)]
    Frames(frames::FramesCommand),
    /// Watch agents and jobs live
    Top(top::TopCommand),
    /// Print the traffic on the bus, decoded
    Tap(bus::TapCommand),
    /// Turn one message into JSON, for `nats sub --translate 'quintet decode'`
    Decode,
    /// Measure this machine: the raw bus, then jobs, and their ratio
    Bench(bench::BenchCommand),
}

pub(crate) async fn run(command: ClientCommand, global: &Global) -> Outcome {
    match command {
        ClientCommand::Jobs(command) => jobs::run(command, global).await,
        ClientCommand::Runs(command) => runs::run(command, global).await,
        ClientCommand::Agents(command) => agents::run(command, global).await,
        ClientCommand::Templates(command) => templates::run(command, global).await,
        ClientCommand::Frames(command) => frames::run(command, global).await,
        ClientCommand::Top(command) => top::run(command, global).await,
        ClientCommand::Tap(command) => bus::tap(command, global).await,
        ClientCommand::Decode => bus::decode(),
        ClientCommand::Bench(command) => bench::run(command, global).await,
    }
}
