//! What jobs that have ended cost those that come, and a start.

use std::time::Instant;

use quintet_bus::Bus;

use super::{BenchCommand, Measured, jobs, push, stop};
use crate::client::http::Http;
use crate::exit::Outcome;
use crate::system::SystemConfig;

/// Jobs by which the cost is compared.
pub(super) const SAMPLE: usize = 10_000;

/// The time per job now, with all the jobs before retained, as a multiple of what it was at first.
pub(super) async fn cost(
    command: &BenchCommand,
    fresh: f64,
    http: &Http,
    bus: &Bus,
    results: &mut Vec<Measured>,
) -> Outcome {
    let now = jobs::batches(SAMPLE, http, bus).await?;
    let what = format!(
        "time per job with {} retained, to that with none",
        command.jobs + SAMPLE
    );
    push(results, &what, fresh / now, "times", None);
    Ok(())
}

/// How long a new system takes until its agents are seen, with everything that was done before in its buckets.
pub(super) async fn start(
    command: &BenchCommand,
    config: SystemConfig,
    results: &mut Vec<Measured>,
) -> Outcome {
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
