//! `quintet up`: everything in one process, with a nats-server beside it unless one was named.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use quintet_agent::AgentConfig;
use quintet_bus::redact_url;
use quintet_contract::id::{AgentId, WorkerId};
use quintet_edge::EdgeConfig;
use quintet_service::settings::{Reader, Setting};
use quintet_service::signals;
use quintet_service::telemetry::{LogFormat, Telemetry};
use quintet_workers::RunWorkerConfig;
use quintet_workers::effects::EffectsConfig;
use tracing::{info, warn};

use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::global::Global;
use crate::cli::stdout::{emit, print};
use crate::client::connection::CONNECTION;
use crate::client::http::Http;
use crate::launch::banner::{Style, scheme};
use crate::launch::bind_policy;
use crate::launch::data_dir::DataDir;
use crate::launch::demo;
use crate::launch::embedded_nats::{EmbeddedNats, NatsPlan};
use crate::launch::part::{Part, Service};
use crate::launch::system::{System, SystemConfig};
use crate::launch::telemetry;
use crate::settings::nats::{EmbeddedNatsSettings, NatsSettings};
use crate::settings::process::ProcessSettings;
use crate::settings::{self, Flags, Groups, agent, edge, effects, nats, process, run_worker};

/// How long everything may take to become ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// What is logged beside the lines of the demonstration.
const QUIET: &str = "warn";
/// How long each part may take to end when the start failed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// The settings of everything in one process.
#[derive(Clone, Debug)]
pub(crate) struct UpGroups;

impl Groups for UpGroups {
    fn tables() -> Vec<&'static [Setting]> {
        settings::all()
    }
}

struct UpSettings {
    edge: EdgeConfig,
    /// Every other service.
    services: Vec<Part>,
    agent: AgentConfig,
    run_worker: RunWorkerConfig,
    effects: EffectsConfig,
    /// None when jobs and commands work in the data folder.
    work_dir: Option<PathBuf>,
    nats: NatsSettings,
    embedded: EmbeddedNatsSettings,
    data_dir: PathBuf,
    process: ProcessSettings,
}

impl UpSettings {
    fn read(read: &mut Reader<'_>) -> Self {
        Self {
            edge: edge::read(read),
            services: Service::value_variants()
                .iter()
                .filter(|service| **service != Service::Edge)
                .map(|service| service.read(read))
                .collect(),
            agent: agent::read(read),
            run_worker: run_worker::read(read),
            effects: effects::read(read),
            work_dir: read.optional("work_dir").map(PathBuf::from),
            nats: nats::read_of_owner(read),
            embedded: nats::read_embedded(read),
            data_dir: PathBuf::from(read.text("data_dir")),
            process: process::read(read, "quintet"),
        }
    }
}

#[derive(Args)]
pub(crate) struct UpCommand {
    /// How many agents to start here
    #[arg(long, default_value_t = 1)]
    agents: usize,
    /// How many run workers to start here
    #[arg(long, default_value_t = 1)]
    run_workers: usize,
    /// Offer no effects for the display
    #[arg(long)]
    no_effects: bool,
    /// Record ten seconds of a live test stream when everything is ready
    #[arg(long)]
    demo: bool,
    /// Allow the well-known agent token, and to have no API key, on an address that others can reach
    #[arg(long)]
    insecure_dev: bool,
    #[command(flatten)]
    flags: Flags<UpGroups>,
}

pub(crate) async fn run(command: UpCommand, global: &Global) -> Outcome {
    let loaded = command.flags.read(UpSettings::read)?;
    if command.flags.print_config {
        print(loaded.printed.trim_end());
        return Ok(());
    }
    let is_terminal = std::io::stderr().is_terminal();
    // The lines of the demonstration would drown in a log that is made for machines.
    let is_quiet = command.demo
        && !is_terminal
        && !["log_level", "log_filter", "log_format"]
            .iter()
            .any(|key| loaded.is_set(key));
    let style = match (is_terminal, is_quiet) {
        (true, _) => Style::Terminal,
        (false, true) => Style::Plain,
        (false, false) => Style::Log,
    };
    let mut config = loaded.settings;
    bind_policy::apply(&mut config.edge, command.insecure_dev)?;
    if style == Style::Plain {
        config.process.telemetry.log_filter = QUIET.to_owned();
        config.process.telemetry.log_format = LogFormat::Text;
    }
    let telemetry = telemetry::start(config.process.telemetry.clone())?;
    crate::launch::file_limit::raise_limit();
    bind_policy::warn_of_open_edge(&config.edge);
    let outcome = up(command, config, global, style, &telemetry).await;
    telemetry::end(telemetry).await;
    outcome
}

async fn up(
    command: UpCommand,
    config: UpSettings,
    global: &Global,
    style: Style,
    telemetry: &Telemetry,
) -> Outcome {
    let stop = signals::listen()?;
    let data = DataDir::open(&config.data_dir)?;
    let work_dir = config.work_dir.clone().unwrap_or_else(|| data.join("work"));
    std::fs::create_dir_all(&work_dir)?;
    let agents = agents(&config.agent, command.agents, &work_dir)?;
    let run_workers = run_workers(&config, command.run_workers, &data)?;
    let UpSettings {
        edge,
        services: mut parts,
        effects,
        agent,
        nats: NatsSettings { url, mut bus },
        embedded,
        process,
        ..
    } = config;
    let own = match &url {
        Some(url) => {
            info!(url = redact_url(url), "using an existing NATS");
            None
        }
        None => {
            style.step("starting nats-server");
            let plan = NatsPlan {
                program: embedded.program,
                port: embedded.port,
                sync_interval: embedded.sync_interval,
                prefix: bus.prefix.clone(),
                agents: agents.iter().map(|agent| agent.agent.clone()).collect(),
            };
            Some(tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                own = EmbeddedNats::start(&data, plan) => own?,
            })
        }
    };
    if let Some(own) = &own {
        bus.url.clone_from(&own.url);
        bus.credentials = own.credentials.clone();
    }
    let nats = redact_url(&bus.url);
    let scheme = scheme(&edge);
    let certificate = edge.tls.as_ref().map(|tls| tls.cert.clone());
    let ca = global.ca.clone().or(certificate);
    let ffmpeg = agent.ffmpeg;
    parts.push(Part::Edge(edge));
    parts.extend(agents.into_iter().map(Part::Agent));
    parts.extend(run_workers.into_iter().map(Part::RunWorker));
    if !command.no_effects {
        parts.push(Part::Effects(effects));
    }
    let system = SystemConfig {
        bus,
        parts,
        metrics: process.metrics,
    };
    style.step("starting services and agents, until all are ready");
    let started = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        started = start(system, telemetry) => Some(started),
    };
    let outcome = match started {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(system)) => {
            let address = system
                .address()
                .map(|address| format!("{scheme}://{address}"))
                .unwrap_or_default();
            emit(format_args!("ready {address}"));
            let users = own.as_ref().map(|_| data.join(CONNECTION));
            style.banner(&address, &nats, users.as_deref());
            let demo = async {
                if command.demo
                    && let Err(error) = demonstrate(&address, ca, global, &work_dir, &ffmpeg).await
                {
                    eprintln!("demo: {error:#}");
                }
                std::future::pending::<()>().await;
            };
            let stopped = stop.clone();
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                _ = system.wait() => {}
                () = demo => {}
            }
            system.run_until(stop).await
        }
    };
    if let Some(own) = own {
        own.stop().await;
        data.remove_connection();
    }
    outcome
}

/// Runs the demonstration with the key of the command line, trusting the edge that was started here.
async fn demonstrate(
    address: &str,
    ca: Option<PathBuf>,
    global: &Global,
    work_dir: &Path,
    ffmpeg: &Path,
) -> anyhow::Result<()> {
    let http = Http::with(address, global.token.clone(), ca.as_deref())?;
    demo::run(&http, work_dir, ffmpeg).await
}

async fn start(config: SystemConfig, telemetry: &Telemetry) -> anyhow::Result<System> {
    let system = System::start(config, telemetry.prometheus()).await?;
    match system.ready(READY_DEADLINE).await {
        Ok(()) => Ok(system),
        Err(error) => {
            let report = system.shutdown(SHUTDOWN_TIMEOUT).await;
            if !report.is_clean() {
                warn!(aborted = ?report.aborted, "some parts did not end in time");
            }
            Err(error)
        }
    }
}

/// The agents of this process: the first has the configured id, the others the same with a number.
fn agents(first: &AgentConfig, count: usize, work_dir: &Path) -> anyhow::Result<Vec<AgentConfig>> {
    let numbered = |number: usize| {
        let mut agent = first.clone();
        agent.work_dir = work_dir.to_owned();
        if number > 1 {
            agent.agent = AgentId::parse(format!("{}-{number}", first.agent)).map_err(|error| {
                let text = format!("cannot number the agents, {error}; give a shorter AGENT_ID");
                Failure::new(exit::USAGE, text)
            })?;
            agent.name = format!("{}-{number}", first.name);
        }
        anyhow::Ok(agent)
    };
    (1..=count).map(numbered).collect()
}

/// The run workers of this process: the first has the configured id, the others the same with a number.
fn run_workers(
    config: &UpSettings,
    count: usize,
    data: &DataDir,
) -> anyhow::Result<Vec<RunWorkerConfig>> {
    let numbered = |number: usize| {
        let mut worker = config.run_worker.clone();
        if config.work_dir.is_none() {
            worker.work_dir = data.join("runs");
        }
        if number > 1 {
            let id = format!("{}-{number}", worker.worker);
            worker.worker = WorkerId::parse(id).map_err(|error| {
                let text = format!(
                    "cannot number the run workers, {error}; give a shorter RUN_WORKER_NAME"
                );
                Failure::new(exit::USAGE, text)
            })?;
        }
        anyhow::Ok(worker)
    };
    (1..=count).map(numbered).collect()
}
