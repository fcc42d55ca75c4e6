//! `quintet bench`: what this machine does, as a ratio to what the raw bus does in the same run.
//!
//! A system of its own on a nats-server of its own, in a folder that is deleted afterwards. First the bus alone: request
//! and answer, compare and swap. Then jobs: from a batch over REST to their last status, one by one, and at a fixed rate.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use quintet_agent::AgentConfig;
use quintet_bus::{Bus, Change, Revision, WatchFrom};
use quintet_contract::api::TemplateRef;
use quintet_contract::bucket::{Jobs, Templates};
use quintet_contract::error::ErrorReply;
use quintet_contract::id::{AgentId, HolderId, TemplateId};
use quintet_contract::job::{Job, JobStatus};
use quintet_contract::subject::{GetTemplate, Prefix};
use quintet_contract::template::Template;
use quintet_edge::EdgeConfig;
use quintet_scheduler::SchedulerConfig;
use quintet_service::telemetry::Telemetry;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::http::Http;
use crate::args::{Global, Output};
use crate::data::DataDir;
use crate::exit::Outcome;
use crate::nats::{NatsPlan, OwnNats};
use crate::say::print;
use crate::system::{BusSettings, Speaker, System, SystemConfig};

/// Jobs per request of the batch measurement.
const BATCH: usize = 1000;
/// Such requests on their way at once.
const BATCHES_AT_ONCE: usize = 4;
/// Requests on their way at once in the measurement of the raw bus.
const IN_FLIGHT: usize = 128;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Args)]
pub(crate) struct BenchCommand {
    /// Jobs of the batch measurement
    #[arg(long, default_value_t = 20_000)]
    jobs: usize,
    /// Agents
    #[arg(long, default_value_t = 4)]
    agents: u32,
    /// Slots of each
    #[arg(long, default_value_t = 64)]
    slots: u32,
    /// Write the results as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// The nats-server to start
    #[arg(long, default_value = "nats-server")]
    nats_server: PathBuf,
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

pub(super) async fn run(command: BenchCommand, global: &Global) -> Outcome {
    let folder = std::env::temp_dir().join(format!("quintet-bench-{}", std::process::id()));
    let outcome = measure(&command, &folder).await;
    let _ = std::fs::remove_dir_all(&folder);
    let results = outcome?;
    let json = serde_json::to_string_pretty(&results)?;
    if let Some(file) = &command.json {
        std::fs::write(file, &json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if global.output == Output::Json {
        print(json);
        return Ok(());
    }
    let mut table = super::table::table(&["measured", "value", "unit", "to the raw bus"]);
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
    print(table);
    Ok(())
}

async fn measure(
    command: &BenchCommand,
    folder: &std::path::Path,
) -> anyhow::Result<Vec<Measured>> {
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
    let nats = OwnNats::start(&data, plan).await?;
    let mut bus = BusSettings::open(&nats.url);
    bus.credentials = nats.credentials.clone();
    let owner = Bus::connect(bus.config(&Speaker::Scheduler)).await?;
    let asker = Bus::connect(bus.config(&Speaker::Edge)).await?;
    owner.ensure_topology().await?;
    let mut results = Vec::new();
    let raw = raw(&owner, &asker, &mut results).await?;
    let system = SystemConfig {
        bus,
        edge: Some(EdgeConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)))),
        schedulers: vec![SchedulerConfig::new(HolderId::parse("bench")?)],
        agents,
        metrics: None,
    };
    let system = System::start(system, Telemetry::for_tests().prometheus()).await?;
    system.ready(PATIENCE).await?;
    let address = system.address().context("the edge has no address")?;
    let http = Http::new(&format!("http://{address}"), None)?;
    until_online(&http, command.agents).await?;
    batches(command, &http, &asker, &raw, &mut results).await?;
    singles(&http, &raw, &mut results).await?;
    steady(&http, &asker, &mut results).await?;
    let report = system.shutdown(Duration::from_secs(30)).await;
    if !report.is_clean() {
        tracing::warn!(aborted = ?report.aborted, "some parts did not end in time");
    }
    owner.drain().await;
    asker.drain().await;
    nats.stop().await;
    Ok(results)
}

/// What the bus does without us.
struct Raw {
    request_p50_ms: f64,
    writes_per_second: f64,
}

async fn raw(owner: &Bus, asker: &Bus, results: &mut Vec<Measured>) -> anyhow::Result<Raw> {
    let bar = spinner("the raw bus");
    let mut requests = owner
        .serve::<GetTemplate>("quintet.svc.templates.get".to_owned(), None)
        .await?;
    let answering = tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            request.responder.err(&ErrorReply::not_found()).await;
        }
    });
    owner.flush().await?;
    let message = TemplateRef {
        id: TemplateId::parse("nothing")?,
    };
    let ask = async || {
        let began = Instant::now();
        let _ = asker.request(&GetTemplate {}, &message, PATIENCE).await;
        began.elapsed()
    };
    let mut times = Vec::new();
    for _ in 0..2000 {
        times.push(ask().await);
    }
    let (p50, p99) = percentiles(&mut times);
    push(results, "raw request and answer, p50", p50, "ms", None);
    push(results, "raw request and answer, p99", p99, "ms", None);
    let (count, began) = (30_000, Instant::now());
    futures::stream::iter(0..count)
        .map(|_| ask())
        .buffer_unordered(IN_FLIGHT)
        .for_each(async |_| ())
        .await;
    push(
        results,
        "raw requests, 128 in flight",
        per_second(count, began),
        "1/s",
        None,
    );
    answering.abort();
    let bucket = owner.bucket::<Templates>();
    let template: Template = serde_json::from_value(json!({"id": "x", "executor": "noop",
        "config": {"text": "x".repeat(200)}}))?;
    let (count, began) = (20_000, Instant::now());
    let mut waiting = FuturesUnordered::new();
    for number in 0..count {
        let key = TemplateId::parse(format!("bench-{number}"))?;
        waiting.push(
            bucket
                .begin(&key, &template, Revision(0), Some(Duration::from_secs(60)))
                .await?,
        );
        while waiting.len() >= 1024 {
            waiting.try_next().await?;
        }
    }
    while waiting.try_next().await?.is_some() {}
    let writes_per_second = per_second(count, began);
    push(
        results,
        "raw compare and swap, pipelined",
        writes_per_second,
        "1/s",
        None,
    );
    bar.finish_and_clear();
    Ok(Raw {
        request_p50_ms: p50,
        writes_per_second,
    })
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
        anyhow::ensure!(began.elapsed() < PATIENCE, "the agents do not come online");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Counts jobs that reach their end, as every watcher of the bucket sees it.
async fn ends(
    bus: &Bus,
    count: usize,
    keep: bool,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<Vec<Job>>>> {
    let mut changes = bus.bucket::<Jobs>().watch(WatchFrom::New).await?;
    Ok(tokio::spawn(async move {
        let (mut seen, mut kept) = (0, Vec::new());
        while seen < count {
            let change = timeout(PATIENCE, changes.next())
                .await
                .context("the jobs do not end")?;
            let Some(Ok(Change::Put { record, .. })) = change else {
                continue;
            };
            if record.job.status.is_final() {
                seen += 1;
                if keep {
                    kept.push(record.job);
                }
            }
        }
        Ok(kept)
    }))
}

async fn batches(
    command: &BenchCommand,
    http: &Http,
    bus: &Bus,
    raw: &Raw,
    results: &mut Vec<Measured>,
) -> anyhow::Result<()> {
    let bar = spinner("jobs in batches, from REST to their last status");
    let count = command.jobs.div_ceil(BATCH) * BATCH;
    let ended = ends(bus, count, false).await?;
    let body: Value = (0..BATCH)
        .map(|_| json!({"inlineConfig": {"executor": "noop", "durationMs": 0}}))
        .collect();
    let began = Instant::now();
    let sent = futures::stream::iter(0..count / BATCH).map(|_| http.post("/v1/jobs/batch", &body));
    let answers: Vec<Value> = sent.buffer_unordered(BATCHES_AT_ONCE).try_collect().await?;
    let refused = answers
        .iter()
        .flat_map(|answer| answer.as_array().into_iter().flatten());
    anyhow::ensure!(
        refused.into_iter().all(|entry| entry["status"] == 201),
        "some jobs were refused"
    );
    ended.await??;
    let rate = per_second(count, began);
    let what = format!(
        "noop jobs, {count} in batches, {} agents of {} slots",
        command.agents, command.slots
    );
    push(
        results,
        &what,
        rate,
        "1/s",
        Some(rate / raw.writes_per_second),
    );
    bar.finish_and_clear();
    Ok(())
}

async fn singles(http: &Http, raw: &Raw, results: &mut Vec<Measured>) -> anyhow::Result<()> {
    let bar = spinner("single submissions");
    let body = json!({"inlineConfig": {"executor": "noop", "durationMs": 0}});
    let mut times = Vec::new();
    for _ in 0..2000 {
        let began = Instant::now();
        http.post("/v1/jobs", &body).await?;
        times.push(began.elapsed());
    }
    let (p50, p99) = percentiles(&mut times);
    push(
        results,
        "single submit over REST, p50",
        p50,
        "ms",
        Some(p50 / raw.request_p50_ms),
    );
    push(
        results,
        "single submit over REST, p99",
        p99,
        "ms",
        Some(p99 / raw.request_p50_ms),
    );
    bar.finish_and_clear();
    Ok(())
}

/// From a submission to RUNNING, by the job's own timeline, at a fixed rate.
async fn steady(http: &Http, bus: &Bus, results: &mut Vec<Measured>) -> anyhow::Result<()> {
    const RATE: u64 = 1000;
    const SECONDS: u64 = 3;
    let bar = spinner("1000 jobs a second");
    let ended = ends(bus, usize::try_from(RATE * SECONDS)?, true).await?;
    let body = json!({"inlineConfig": {"executor": "noop", "durationMs": 0}});
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut sent = tokio::task::JoinSet::new();
    for _ in 0..RATE * SECONDS {
        ticks.tick().await;
        let (http, body) = (http.clone(), body.clone());
        sent.spawn(async move { http.post("/v1/jobs", &body).await.map(drop) });
    }
    while let Some(sent) = sent.join_next().await {
        sent??;
    }
    let mut times: Vec<Duration> = ended.await??.iter().filter_map(to_running).collect();
    let (p50, p99) = percentiles(&mut times);
    push(
        results,
        "submit to RUNNING at 1000/s, p50 (whole ms)",
        p50,
        "ms",
        None,
    );
    push(
        results,
        "submit to RUNNING at 1000/s, p99 (whole ms)",
        p99,
        "ms",
        None,
    );
    bar.finish_and_clear();
    Ok(())
}

fn to_running(job: &Job) -> Option<Duration> {
    let running = job
        .timeline
        .iter()
        .find(|entry| entry.status == JobStatus::Running)?;
    Some(running.at.since(job.created_at))
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
