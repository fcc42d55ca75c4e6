//! What the bus does without us: everything else is shown as a ratio to it.

use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use quintet_bus::{Bus, Revision};
use quintet_contract::api::TemplateRef;
use quintet_contract::bucket::Templates;
use quintet_contract::error::ErrorReply;
use quintet_contract::id::TemplateId;
use quintet_contract::subject::GetTemplate;
use quintet_contract::template::Template;
use serde_json::json;

use crate::{Measured, TIMEOUT, per_second, percentiles, push, spinner};

/// Requests in flight at once.
const IN_FLIGHT: usize = 128;

/// What the bus does without us.
pub(crate) struct Baseline {
    /// Time of one request and its answer, the median.
    pub(crate) request_p50_ms: f64,
    /// Writes by compare and swap, many in flight at once.
    pub(crate) writes_per_second: f64,
}

pub(crate) async fn measure(
    owner: &Bus,
    client: &Bus,
    results: &mut Vec<Measured>,
) -> anyhow::Result<Baseline> {
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
        let _ = client.request(&GetTemplate {}, &message, TIMEOUT).await;
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
    Ok(Baseline {
        request_p50_ms: p50,
        writes_per_second,
    })
}
