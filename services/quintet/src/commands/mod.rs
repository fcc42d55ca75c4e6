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

/// Declares the client's commands: what each is about, its arguments, and what runs it.
macro_rules! commands {
    ($($(#[$about:meta])* $name:ident($arguments:ty) => $run:path,)*) => {
        #[derive(Subcommand)]
        pub(crate) enum ClientCommand {
            $($(#[$about])* $name($arguments),)*
        }

        pub(crate) async fn run(command: ClientCommand, global: &Global) -> Outcome {
            match command {
                $(ClientCommand::$name(arguments) => $run(arguments, global).await,)*
            }
        }
    };
}

commands! {
    /// Submit, watch, list and stop jobs
    #[command(subcommand)]
    Jobs(jobs::JobsCommand) => jobs::run,
    /// Create, watch, list and cancel runs
    #[command(subcommand)]
    Runs(runs::RunsCommand) => runs::run,
    /// List, drain and forget agents
    #[command(subcommand)]
    Agents(agents::AgentsCommand) => agents::run,
    /// List, drain and wait for workers
    #[command(subcommand)]
    Workers(workers::WorkersCommand) => workers::run,
    /// Create, list and revoke API keys
    #[command(subcommand)]
    Keys(keys::KeysCommand) => keys::run,
    /// List, store and delete job templates
    #[command(subcommand)]
    Templates(templates::TemplatesCommand) => templates::run,
    /// Show and control the display: its workers, its rate, its image
    #[command(subcommand)]
    Frames(frames::FramesCommand) => frames::run,
    /// Watch agents and jobs live
    Top(top::TopCommand) => top::run,
    /// Print the traffic on the bus, decoded
    Tap(tap::TapCommand) => tap::tap,
    /// Turn one message into JSON, for `nats sub --translate 'quintet decode'`
    Decode(tap::DecodeCommand) => tap::decode,
    /// Measure this machine with quintet-bench, which `make bench` builds
    Bench(bench::BenchCommand) => bench::run,
}
