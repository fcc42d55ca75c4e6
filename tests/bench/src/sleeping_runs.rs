//! A hundred thousand runs that sleep: what they take of memory and of processors, in a `quintet up` of their own.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use quintet::Http;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::idle::Up;
use crate::process::{processor_time, proportional};
use crate::{Measured, TIMEOUT, per_second, push, spinner};

/// Requests in flight at once.
const IN_FLIGHT: usize = 64;
/// How long the processors are observed.
const OBSERVED: Duration = Duration::from_secs(10);
/// Share of a core in which everything that was begun is taken to have ended.
const QUIET: f64 = 0.10;

pub(crate) async fn measure(
    program: &Path,
    folder: &Path,
    count: usize,
    results: &mut Vec<Measured>,
) -> anyhow::Result<()> {
    let bar = spinner("runs that sleep");
    let up = Up::start(program, folder).await?;
    let http = Http::new(&up.url, None)?;
    until_quiet(&up).await?;
    let (before, used_before) = (memory(&up)?, share(&up, OBSERVED).await?);
    let plan = json!({"nodes": [{"id": "rest", "kind": "sleep", "for": "1h"}]});
    let body = json!({"plan": plan});
    let began = Instant::now();
    futures::stream::iter(0..count)
        .map(|_| http.post("/v1/runs?mode=queue", &body))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(async |_| Ok(()))
        .await?;
    let made = per_second(count, began);
    until_none_is_pending(&http).await?;
    until_quiet(&up).await?;
    let (after, used_after) = (memory(&up)?, share(&up, OBSERVED).await?);
    let name = format!("{count} sleeping runs");
    let mut report =
        |what: &str, value, unit| push(results, &format!("{name}, {what}"), value, unit, None);
    report("made, 64 in flight", made, "1/s");
    report("memory of the program before", before[0], "MiB");
    report("memory of the program", after[0], "MiB");
    report("more than before", after[0] - before[0], "MiB");
    report(
        "with nats-server, more than before",
        after[1] - before[1],
        "MiB",
    );
    report("share of a core before", used_before * 100.0, "%");
    report("share of a core", used_after * 100.0, "%");
    up.kill().await?;
    bar.finish_and_clear();
    Ok(())
}

/// Of the program, and of it and all that it has started.
fn memory(up: &Up) -> anyhow::Result<[f64; 2]> {
    Ok([proportional(&[up.pid])?, proportional(&up.processes()?)?])
}

/// How much of a core the program takes for a while.
async fn share(up: &Up, time: Duration) -> anyhow::Result<f64> {
    let (used, began) = (processor_time(up.pid)?, Instant::now());
    sleep(time).await;
    let used = processor_time(up.pid)? - used;
    Ok(used.as_secs_f64() / began.elapsed().as_secs_f64())
}

async fn until_quiet(up: &Up) -> anyhow::Result<()> {
    let began = Instant::now();
    while share(up, Duration::from_secs(1)).await? > QUIET {
        anyhow::ensure!(
            began.elapsed() < TIMEOUT,
            "the system does not come to rest"
        );
    }
    Ok(())
}

async fn until_none_is_pending(http: &Http) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let page = http.get("/v1/runs?status=pending&limit=1").await?;
        if page["runs"].as_array().is_some_and(Vec::<Value>::is_empty) {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < TIMEOUT, "the runs do not begin");
        sleep(Duration::from_millis(100)).await;
    }
}
