//! The benchmark: what this machine does, as a ratio to what the raw bus does in the same run.
//!
//! A system of its own on a nats-server of its own, in a folder that is deleted afterwards.
//!
//! - [`bus_baseline`]: the bus alone: request and answer, compare and swap.
//! - [`jobs`]: from a batch over REST to their last status, one by one, and at a fixed rate.
//! - [`retention`]: what jobs that have ended cost those that come, and a start.
//! - [`many_agents`]: thousands of agents that only send heartbeats.
//! - [`listeners`]: thousands of UI sockets and event streams on one edge.
//! - [`runs`]: ten-step runs, checkpoints, and a long log that is read again; also thousands of listeners of one run.
//! - [`sleeping_runs`]: a hundred thousand runs that sleep.
//! - [`frames`]: frames over the bus and HTTP, ticks, and the way to the panels.
//! - [`idle`]: what `quintet up` takes when there is nothing to do.

mod bus_baseline;
mod frames;
mod idle;
mod jobs;
mod listeners;
mod many_agents;
mod process;
mod retention;
mod runs;
mod sleeping_runs;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use quintet::system::{BusSettings, Part, System, SystemConfig};
use quintet::{DataDir, EmbeddedNats, Http, NatsPlan};
use quintet_agent::AgentConfig;
use quintet_bus::Bus;
use quintet_contract::id::{AgentId, HolderId};
use quintet_contract::permission::Role;
use quintet_contract::subject::Prefix;
use quintet_edge::EdgeConfig;
use quintet_scheduler::SchedulerConfig;
use quintet_service::telemetry::Telemetry;
use serde::Serialize;

use crate::process::Parts;

/// How long anything may take.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Measures this machine: the raw bus, then jobs, runs and frames, as ratios to it
#[derive(Parser)]
#[command(name = "quintet-bench", version)]
struct BenchCommand {
    /// Jobs of the batch measurement
    #[arg(long, default_value_t = 20_000)]
    jobs: usize,
    /// Agents
    #[arg(long, default_value_t = 4)]
    agents: u32,
    /// Slots of each
    #[arg(long, default_value_t = 64)]
    slots: u32,
    /// Listeners on one edge
    #[arg(long, default_value_t = 5_000)]
    listeners: usize,
    /// Ten-step runs
    #[arg(long, default_value_t = 10_000)]
    runs: usize,
    /// Listeners on one run
    #[arg(long, default_value_t = 2_000)]
    run_listeners: usize,
    /// Runs that sleep
    #[arg(long, default_value_t = 100_000)]
    sleepers: usize,
    /// Measure this part alone
    #[arg(long, value_enum)]
    only: Option<Measurement>,
    /// The program whose parts are started as processes of their own; the one beside this one without it
    #[arg(long)]
    program: Option<PathBuf>,
    /// Write the results as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// The nats-server to start
    #[arg(long, default_value = "nats-server")]
    nats_server: PathBuf,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For machines.
    Json,
    /// For people.
    Table,
}

/// What can be measured alone, beside the raw bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// Jobs, and what those that have ended cost.
    Jobs,
    /// Thousands of agents.
    #[value(alias = "crowd")]
    ManyAgents,
    /// Thousands of listeners.
    Listeners,
    /// Runs, their checkpoints and listeners, and many that sleep.
    Runs,
    /// Frames, ticks and images.
    Frames,
    /// A system with nothing to do.
    Idle,
}

/// One number.
#[derive(Debug, Serialize)]
struct Measured {
    what: String,
    value: f64,
    unit: &'static str,
    /// Share of what the raw bus does; for times, how many times as long.
    ratio: Option<f64>,
}

/// As in the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run(BenchCommand::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quintet-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: BenchCommand) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("quintet-bench-{}", std::process::id()));
    let outcome = measure(&command, &folder).await;
    let _ = std::fs::remove_dir_all(&folder);
    let results = outcome?;
    let json = serde_json::to_string_pretty(&results)?;
    if let Some(file) = &command.json {
        std::fs::write(file, &json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if command.output == Output::Json {
        println!("{json}");
        return Ok(());
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["measured", "value", "unit", "to the raw bus"].map(str::to_uppercase));
    for Measured {
        what,
        value,
        unit,
        ratio,
    } in &results
    {
        let ratio = ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default();
        table.add_row([
            what.clone(),
            format!("{value:.2}"),
            (*unit).to_owned(),
            ratio,
        ]);
    }
    println!("{table}");
    Ok(())
}

async fn measure(command: &BenchCommand, folder: &Path) -> anyhow::Result<Vec<Measured>> {
    let data = DataDir::open(folder)?;
    let agents: Vec<AgentConfig> = (1..=command.agents)
        .map(|number| {
            let mut agent = AgentConfig::new(AgentId::parse(format!("bench-{number}"))?);
            agent.slots = command.slots;
            agent.work_dir = folder.to_owned();
            anyhow::Ok(agent)
        })
        .collect::<Result<_, _>>()?;
    let plan = NatsPlan {
        program: command.nats_server.clone(),
        port: 0,
        sync_interval: "2m".to_owned(),
        prefix: Prefix::default(),
        agents: agents.iter().map(|agent| agent.agent.clone()).collect(),
    };
    let nats = EmbeddedNats::start(&data, plan).await?;
    let mut bus = BusSettings::open(&nats.url);
    bus.credentials = nats.credentials.clone();
    let owner = Bus::connect(bus.config(&Role::Scheduler)).await?;
    let client = Bus::connect(bus.config(&Role::Edge)).await?;
    owner.ensure_topology().await?;
    let mut results = Vec::new();
    let program = match &command.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("quintet"),
    };
    anyhow::ensure!(
        program.exists(),
        "there is no {}; build it (`cargo build --release -p quintet`), or name one with --program",
        program.display()
    );
    let parts = Parts {
        program: &program,
        settings: &bus,
    };
    let wants = |part| command.only.is_none_or(|only| only == part);
    if wants(Measurement::Listeners) {
        // While no jobs are retained: each listener begins with those.
        listeners::of_jobs(&parts, &client, command.listeners, &mut results).await?;
    }
    if wants(Measurement::Runs) {
        listeners::of_a_run(&parts, &client, command.run_listeners, &mut results).await?;
    }
    let raw =
        match wants(Measurement::Jobs) || wants(Measurement::Runs) || wants(Measurement::Frames) {
            true => Some(bus_baseline::measure(&owner, &client, &mut results).await?),
            false => None,
        };
    if let Some(raw) = raw.as_ref().filter(|_| wants(Measurement::Jobs)) {
        let config = || system_of_jobs(&bus, &agents);
        measure_jobs(command, &config, &client, raw, &mut results).await?;
    }
    if let Some(raw) = raw.as_ref().filter(|_| wants(Measurement::Runs)) {
        runs::measure(command, &bus, &client, raw, &mut results).await?;
    }
    if let Some(raw) = raw.as_ref().filter(|_| wants(Measurement::Frames)) {
        frames::measure(&bus, raw.request_p50_ms, &mut results).await?;
    }
    if wants(Measurement::ManyAgents) {
        many_agents::measure(&parts, &client, &mut results).await?;
    }
    owner.drain().await;
    client.drain().await;
    nats.stop().await;
    if wants(Measurement::Runs) {
        sleeping_runs::measure(
            &program,
            &folder.join("sleepers"),
            command.sleepers,
            &mut results,
        )
        .await?;
    }
    if wants(Measurement::Idle) {
        idle::measure(&program, &folder.join("idle"), &mut results).await?;
    }
    Ok(results)
}

/// What jobs are measured on.
fn system_of_jobs(bus: &BusSettings, agents: &[AgentConfig]) -> anyhow::Result<SystemConfig> {
    let mut parts = vec![
        Part::Edge(EdgeConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)))),
        Part::Scheduler(SchedulerConfig::new(HolderId::parse("bench")?)),
    ];
    parts.extend(agents.iter().cloned().map(Part::Agent));
    Ok(SystemConfig {
        bus: bus.clone(),
        parts,
        metrics: None,
    })
}

async fn measure_jobs(
    command: &BenchCommand,
    config: &dyn Fn() -> anyhow::Result<SystemConfig>,
    client: &Bus,
    raw: &bus_baseline::Baseline,
    results: &mut Vec<Measured>,
) -> anyhow::Result<()> {
    let (system, http) = start(config()?, command.agents).await?;
    let fresh = retention::cost(&http, client).await?;
    let rate = jobs::batches(command.jobs, &http, client).await?;
    let what = format!(
        "noop jobs, {} in batches, {} agents of {} slots",
        command.jobs, command.agents, command.slots
    );
    let ratio = Some(rate / raw.writes_per_second);
    push(results, &what, rate, "1/s", ratio);
    let later = retention::cost(&http, client).await?;
    retention::compare(command, fresh, later, results);
    jobs::singles(&http, raw, results).await?;
    jobs::steady(&http, client, results).await?;
    stop(system).await;
    retention::start(command, config()?, results).await
}

async fn start(config: SystemConfig, agents: u32) -> anyhow::Result<(System, Http)> {
    let system = System::start(config, Telemetry::for_tests().prometheus()).await?;
    system.ready(TIMEOUT).await?;
    let address = system.address().context("the edge has no address")?;
    let http = Http::new(&format!("http://{address}"), None)?;
    until_online(&http, agents).await?;
    Ok((system, http))
}

async fn stop(system: System) {
    let report = system.shutdown(Duration::from_secs(30)).await;
    if !report.is_clean() {
        tracing::warn!(aborted = ?report.aborted, "some parts did not end in time");
    }
}

async fn until_online(http: &Http, agents: u32) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let online = http
            .get("/v1/agents")
            .await?
            .as_array()
            .map_or(0, |agents| {
                agents
                    .iter()
                    .filter(|agent| agent["state"] == "IDLE")
                    .count()
            });
        if online >= agents as usize {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < TIMEOUT, "the agents do not come online");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn push(
    results: &mut Vec<Measured>,
    what: &str,
    value: f64,
    unit: &'static str,
    ratio: Option<f64>,
) {
    results.push(Measured {
        what: what.to_owned(),
        value,
        unit,
        ratio,
    });
}

fn per_second(count: usize, began: Instant) -> f64 {
    count as f64 / began.elapsed().as_secs_f64()
}

/// The 50th and the 99th in milliseconds.
fn percentiles(times: &mut [Duration]) -> (f64, f64) {
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times
            .get(index)
            .map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    (at(0.50), at(0.99))
}

fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} measures {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
