//! Jobs over REST: in batches, one by one, and at a fixed rate.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use quintet::Http;
use quintet_bus::{Bus, Change, WatchFrom};
use quintet_contract::bucket::Jobs;
use quintet_contract::job::{Job, JobStatus};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::bus_baseline::Baseline;
use crate::{Measured, TIMEOUT, per_second, percentiles, push, spinner};

/// Jobs per request of the batch measurement.
const BATCH: usize = 1000;
/// Such requests in flight at once.
const BATCHES_AT_ONCE: usize = 4;

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
            let change = timeout(TIMEOUT, changes.next())
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

/// Jobs in batches, from REST until all have ended; how many a second.
pub(crate) async fn batches(count: usize, http: &Http, bus: &Bus) -> anyhow::Result<f64> {
    let bar = spinner("jobs in batches, from REST to their last status");
    let batches = count.div_ceil(BATCH);
    let ended = ends(bus, batches * BATCH, false).await?;
    let body: Value = (0..BATCH)
        .map(|_| json!({"inlineConfig": {"executor": "noop", "durationMs": 0}}))
        .collect();
    let began = Instant::now();
    let sent = futures::stream::iter(0..batches).map(|_| http.post("/v1/jobs/batch", &body));
    let answers: Vec<Value> = sent.buffer_unordered(BATCHES_AT_ONCE).try_collect().await?;
    let entries = answers
        .iter()
        .flat_map(|answer| answer.as_array().into_iter().flatten());
    anyhow::ensure!(
        entries.into_iter().all(|entry| entry["status"] == 201),
        "some jobs were refused"
    );
    ended.await??;
    bar.finish_and_clear();
    Ok(per_second(batches * BATCH, began))
}

pub(crate) async fn singles(
    http: &Http,
    raw: &Baseline,
    results: &mut Vec<Measured>,
) -> anyhow::Result<()> {
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
pub(crate) async fn steady(
    http: &Http,
    bus: &Bus,
    results: &mut Vec<Measured>,
) -> anyhow::Result<()> {
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
