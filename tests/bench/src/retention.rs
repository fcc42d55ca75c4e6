//! What jobs that have ended cost those that come, and a start.

use std::time::{Duration, Instant};

use quintet::Http;
use quintet::system::SystemConfig;
use quintet_bus::Bus;

use crate::{BenchCommand, Measured, jobs, process, push, stop};

/// Jobs by which the cost is compared.
pub(crate) const SAMPLE: usize = 10_000;

/// What a job costs now, in processor time of everything that runs here, nats-server and client included. Not in time:
/// what else the machine does must not count.
pub(crate) async fn cost(http: &Http, bus: &Bus) -> anyhow::Result<Duration> {
    let before = process::ours()?;
    jobs::batches(SAMPLE, http, bus).await?;
    Ok((process::ours()? - before) / SAMPLE as u32)
}

/// What a job costs with everything retained, and as a multiple of what it cost at first.
pub(crate) fn compare(
    command: &BenchCommand,
    fresh: Duration,
    later: Duration,
    results: &mut Vec<Measured>,
) {
    let micros = |cost: Duration| cost.as_secs_f64() * 1e6;
    let what = "processor time per job, with none retained";
    push(results, what, micros(fresh), "us", None);
    let retained = command.jobs + SAMPLE;
    let what = format!("processor time per job, with {retained} retained");
    push(results, &what, micros(later), "us", None);
    let ratio = later.as_secs_f64() / fresh.as_secs_f64();
    push(results, "the second to the first", ratio, "times", None);
}

/// How long a new system takes until its agents are seen, with everything that was done before in its buckets.
pub(crate) async fn start(
    command: &BenchCommand,
    config: SystemConfig,
    results: &mut Vec<Measured>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let (system, http) = super::start(config, command.agents).await?;
    let took = began.elapsed().as_secs_f64() * 1000.0;
    http.get("/v1/jobs?limit=1").await?;
    let what = format!(
        "start of everything with {} jobs retained, until agents are idle",
        command.jobs + 2 * SAMPLE
    );
    push(results, &what, took, "ms", None);
    stop(system).await;
    Ok(())
}
