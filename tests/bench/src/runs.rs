//! Runs: chains of trivial tasks that a worker in this process does, checkpoints from outside, and reading a long log again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use quintet::system::{BusSettings, Part, System, SystemConfig};
use quintet::{Http, events};
use quintet_bus::{Bus, Change, WatchFrom};
use quintet_contract::JsonObject;
use quintet_contract::bucket::Runs;
use quintet_contract::id::{HolderId, QueueName, RunId, WorkerId};
use quintet_contract::permission::Role;
use quintet_contract::run::{RunEvent, RunStatus};
use quintet_contract::subject::LiveRunEvents;
use quintet_edge::EdgeConfig;
use quintet_runner::RunnerConfig;
use quintet_service::health::Health;
use quintet_service::telemetry::Telemetry;
use quintet_workers::{RunWorkerConfig, TaskContext, TaskFailure};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::bus_baseline::Baseline;
use crate::{BenchCommand, Measured, TIMEOUT, per_second, percentiles, push, spinner, stop};

/// Tasks of one run, one after the other.
const STEPS: usize = 10;
/// Runs, and requests, in flight at once.
const IN_FLIGHT: usize = 64;
/// The queue of the tasks.
const QUEUE: &str = "bench";
/// Runs that are measured one by one.
const SINGLES: usize = 300;
/// Checkpoints that are measured one by one.
const CHECKPOINTS: usize = 2_000;
/// Checkpoints that are posted as fast as they are taken, and the runs that they belong to.
const SUSTAINED: usize = 30_000;
const SUSTAINED_RUNS: usize = 16;
/// Entries of the log that is read again.
const LOG: usize = 10_000;

/// A system with a runner and a worker in this process, and what it is asked with.
struct Bench<'a> {
    http: Http,
    client: &'a Bus,
    ends: Ends,
}

pub(crate) async fn measure(
    command: &BenchCommand,
    settings: &BusSettings,
    client: &Bus,
    raw: &Baseline,
    results: &mut Vec<Measured>,
) -> anyhow::Result<()> {
    let mut edge = EdgeConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
    edge.run_rate = None;
    let config = SystemConfig {
        bus: settings.clone(),
        parts: vec![
            Part::Edge(edge),
            Part::Runner(RunnerConfig::new(HolderId::parse("bench")?)),
        ],
        metrics: None,
    };
    let system = System::start(config, Telemetry::for_tests().prometheus()).await?;
    system.ready(TIMEOUT).await?;
    let address = system.address().context("the edge has no address")?;
    let (closing, worker) = worker(settings).await?;
    let bench = Bench {
        http: Http::new(&format!("http://{address}"), None)?,
        client,
        ends: Ends::watch(client).await?,
    };
    bench.chains(command.runs, raw, results).await?;
    bench.singles(results).await?;
    bench.checkpoints(raw, results).await?;
    bench.resume(results).await?;
    closing.cancel();
    worker.await??;
    stop(system).await;
    Ok(())
}

/// A worker whose tasks succeed at once.
async fn worker(
    settings: &BusSettings,
) -> anyhow::Result<(
    CancellationToken,
    JoinHandle<Result<(), quintet_workers::Error>>,
)> {
    async fn nothing(_: TaskContext) -> Result<JsonObject, TaskFailure> {
        Ok(JsonObject::new())
    }
    let bus = Bus::connect(settings.config(&Role::Worker)).await?;
    let mut config = RunWorkerConfig::new(WorkerId::parse("bench")?);
    config.queues = vec![QueueName::parse(QUEUE)?];
    config.slots = 4 * IN_FLIGHT;
    let health = Health::new(QUEUE);
    let closing = CancellationToken::new();
    let serving = quintet_workers::serve(
        config,
        nothing,
        bus,
        health.component("worker"),
        closing.clone(),
    );
    let serving = tokio::spawn(serving);
    timeout(TIMEOUT, health.wait_ready())
        .await
        .context("the worker does not become ready")?;
    Ok((closing, serving))
}

/// A chain of tasks.
fn chain() -> Value {
    let nodes: Value = (0..STEPS)
        .map(|number| {
            let needs: Vec<String> = (number > 0)
                .then(|| format!("step-{}", number - 1))
                .into_iter()
                .collect();
            json!({"id": format!("step-{number}"), "kind": "task", "queue": QUEUE, "needs": needs})
        })
        .collect();
    json!({"plan": {"nodes": nodes}})
}

impl Bench<'_> {
    async fn create(&self, body: &Value) -> anyhow::Result<RunId> {
        let answer = self.http.post("/v1/runs?mode=queue", body).await?;
        let id = answer["runId"].as_str().context("a run without id")?;
        Ok(id.parse()?)
    }

    /// Ten-step runs, many at once, from REST until their last record is stored.
    async fn chains(
        &self,
        count: usize,
        raw: &Baseline,
        results: &mut Vec<Measured>,
    ) -> anyhow::Result<()> {
        let bar = spinner("ten-step runs, 64 in flight");
        let body = chain();
        let one = async || {
            let run = self.create(&body).await?;
            let status = self.ends.of(run).await?;
            anyhow::ensure!(status == RunStatus::Completed, "run {run} {status}");
            Ok(())
        };
        let many = async |count: usize| {
            futures::stream::iter(0..count)
                .map(|_| one())
                .buffer_unordered(IN_FLIGHT)
                .try_for_each(async |()| Ok(()))
                .await
        };
        many(IN_FLIGHT * 4).await?;
        let began = Instant::now();
        many(count).await?;
        let rate = per_second(count, began);
        let what = format!("{STEPS}-step runs, {count} at {IN_FLIGHT} in flight");
        push(results, &what, rate, "1/s", None);
        let steps = rate * STEPS as f64;
        let ratio = Some(steps / raw.writes_per_second);
        push(results, "their steps, each stored", steps, "1/s", ratio);
        bar.finish_and_clear();
        Ok(())
    }

    /// Ten-step runs one after the other, from REST until their last event is delivered.
    async fn singles(&self, results: &mut Vec<Measured>) -> anyhow::Result<()> {
        let bar = spinner("single ten-step runs");
        let filter = LiveRunEvents::filter(self.client.prefix(), None);
        let mut live = self.client.subscribe::<LiveRunEvents>(filter).await?;
        self.client.flush().await?;
        let body = chain();
        let mut times = Vec::new();
        for _ in 0..SINGLES {
            let began = Instant::now();
            let run = self.create(&body).await?;
            let ended = async {
                while let Some(delivery) = live.next().await {
                    let is_end = |fact: &RunEvent| matches!(fact, RunEvent::Status { status, .. } if status.is_final());
                    let events = delivery.message;
                    if events.run_id == run
                        && events.entries.iter().any(|entry| is_end(&entry.fact))
                    {
                        return Ok(());
                    }
                }
                anyhow::bail!("the bus was closed")
            };
            timeout(TIMEOUT, ended)
                .await
                .context("a run does not end")??;
            times.push(began.elapsed());
        }
        let (p50, p99) = percentiles(&mut times);
        push(results, "single 10-step run at rest, p50", p50, "ms", None);
        push(results, "single 10-step run at rest, p99", p99, "ms", None);
        bar.finish_and_clear();
        Ok(())
    }

    /// A run that an outside program does.
    async fn outside(&self) -> anyhow::Result<String> {
        Ok(self.create(&json!({"name": "bench"})).await?.to_string())
    }

    async fn checkpoint(&self, run: &str, number: usize) -> anyhow::Result<()> {
        let body = json!({"type": "step", "data": {"number": number, "text": "x".repeat(100)}});
        let path = format!("/v1/runs/{run}/checkpoints");
        self.http.post(&path, &body).await.map(drop)
    }

    async fn checkpoints(&self, raw: &Baseline, results: &mut Vec<Measured>) -> anyhow::Result<()> {
        let bar = spinner("checkpoints");
        let run = self.outside().await?;
        let mut times = Vec::new();
        for number in 0..CHECKPOINTS {
            let began = Instant::now();
            self.checkpoint(&run, number).await?;
            times.push(began.elapsed());
        }
        let (p50, p99) = percentiles(&mut times);
        let ratio = |time: f64| Some(time / raw.request_p50_ms);
        push(results, "checkpoint over REST, p50", p50, "ms", ratio(p50));
        push(results, "checkpoint over REST, p99", p99, "ms", ratio(p99));
        let mut runs = Vec::new();
        for _ in 0..SUSTAINED_RUNS {
            runs.push(self.outside().await?);
        }
        let began = Instant::now();
        futures::stream::iter(0..SUSTAINED)
            .map(|number| self.checkpoint(&runs[number % SUSTAINED_RUNS], number))
            .buffer_unordered(IN_FLIGHT)
            .try_for_each(async |()| Ok(()))
            .await?;
        let rate = per_second(SUSTAINED, began);
        let what = format!("checkpoints over REST, {IN_FLIGHT} in flight, {SUSTAINED_RUNS} runs");
        let ratio = Some(rate / raw.writes_per_second);
        push(results, &what, rate, "1/s", ratio);
        bar.finish_and_clear();
        Ok(())
    }

    /// A client that comes back and has seen nothing of a long log.
    async fn resume(&self, results: &mut Vec<Measured>) -> anyhow::Result<()> {
        let bar = spinner("a long log, read again");
        let run = self.outside().await?;
        futures::stream::iter(0..LOG)
            .map(|number| self.checkpoint(&run, number))
            .buffer_unordered(IN_FLIGHT)
            .try_for_each(async |()| Ok(()))
            .await?;
        let path = format!("/v1/runs/{run}/events");
        let mut times = Vec::new();
        for _ in 0..5 {
            let began = Instant::now();
            let mut events = events::open(&self.http, &path, Some("0")).await?;
            let mut seen = 0;
            let all = async {
                while seen < LOG {
                    let event = events.next().await?.context("the stream ended early")?;
                    seen += usize::from(event.event == "checkpoint");
                }
                anyhow::Ok(())
            };
            timeout(TIMEOUT, all)
                .await
                .context("the log was not delivered")??;
            times.push(began.elapsed());
        }
        let first = times
            .first()
            .map_or(0.0, |time| time.as_secs_f64() * 1000.0);
        let (p50, _) = percentiles(&mut times);
        let what = format!("{LOG} events over SSE from the first on, the first time");
        push(results, &what, first, "ms", None);
        let what = format!("{LOG} events over SSE from the first on, p50 of 5");
        push(results, &what, p50, "ms", None);
        bar.finish_and_clear();
        Ok(())
    }
}

/// Knows which runs have ended, as every watcher of the bucket does.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<HashMap<RunId, End>>>);

/// An end that was seen, or that a client waits for.
enum End {
    Seen(RunStatus),
    Awaited(oneshot::Sender<RunStatus>),
}

impl Ends {
    async fn watch(bus: &Bus) -> anyhow::Result<Self> {
        let ends = Self::default();
        let mut changes = bus.bucket::<Runs>().watch(WatchFrom::New).await?;
        let seen = ends.clone();
        tokio::spawn(async move {
            while let Some(Ok(change)) = changes.next().await {
                if let Change::Put { key, record, .. } = change
                    && record.run.status.is_final()
                {
                    seen.see(key.0, record.run.status);
                }
            }
        });
        Ok(ends)
    }

    fn see(&self, run: RunId, status: RunStatus) {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(End::Awaited(waiting)) = ends.remove(&run) {
            let _ = waiting.send(status);
        } else {
            ends.insert(run, End::Seen(status));
        }
    }

    async fn of(&self, run: RunId) -> anyhow::Result<RunStatus> {
        let ended = {
            let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(End::Seen(status)) = ends.remove(&run) {
                return Ok(status);
            }
            let (waiting, ended) = oneshot::channel();
            ends.insert(run, End::Awaited(waiting));
            ended
        };
        let ended = timeout(TIMEOUT, ended).await;
        Ok(ended.with_context(|| format!("run {run} does not end"))??)
    }
}
