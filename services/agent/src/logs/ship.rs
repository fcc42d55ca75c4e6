//! Log shipping: lines go to the bus in batches, in order, repeated while the bus is away.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quintet_bus::{Bus, PublishError};
use quintet_contract::event::{JobLog, LogLine, LogStream};
use quintet_contract::job::JobAttempt;
use quintet_contract::subject::JobLogged;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::log_line;
use crate::metrics;

/// Most lines of a batch.
const BATCH_LINES: usize = 100;
/// Most bytes of a batch, well below the largest message of the bus.
const BATCH_BYTES: usize = 256 * 1024;
/// How long the first line of a batch waits for company.
const BATCH_WAIT: Duration = Duration::from_millis(200);
/// How long a batch is tried; then its lines count as dropped.
const SHIP_TIMEOUT: Duration = Duration::from_secs(30);
/// Waits between two tries of a batch.
const RETRY: Duration = Duration::from_millis(250);

/// The far end of a [`LogSink`](super::LogSink).
#[derive(Debug)]
pub(crate) struct Shipment {
    pub(super) queue: mpsc::Receiver<LogLine>,
    pub(super) dropped: Arc<AtomicU64>,
    pub(super) done: oneshot::Sender<()>,
}

/// Ships until every sink is gone and the queue is empty.
pub(crate) async fn ship(
    bus: Bus,
    placement: JobAttempt,
    mut shipment: Shipment,
) -> Result<(), Infallible> {
    let subject = JobLogged {
        job: placement.job_id.clone(),
    };
    loop {
        let mut lines = next_batch(&mut shipment.queue).await;
        let dropped = shipment.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            metrics::log_lines("dropped", dropped);
            let text = format!("{dropped} lines dropped");
            lines.push(log_line(LogStream::Agent, &text));
        }
        if lines.is_empty() {
            break;
        }
        let count = lines.len() as u64;
        let log = JobLog {
            job_id: placement.job_id.clone(),
            attempt: Some(placement.attempt),
            lines,
        };
        match store(&bus, &subject, &log).await {
            Ok(()) => metrics::log_lines("stored", count),
            Err(error) => {
                debug!(%error, "log lines could not be stored");
                shipment.dropped.fetch_add(count, Ordering::Relaxed);
                if shipment.queue.is_closed() && shipment.queue.is_empty() {
                    break;
                }
            }
        }
    }
    // Fails when no caller waits for the end.
    let _ = shipment.done.send(());
    Ok(())
}

/// Waits for a line and gathers those that follow soon; empty when the log has ended.
async fn next_batch(queue: &mut mpsc::Receiver<LogLine>) -> Vec<LogLine> {
    let Some(first) = queue.recv().await else {
        return Vec::new();
    };
    let deadline = Instant::now() + BATCH_WAIT;
    let mut bytes = first.line.len();
    let mut lines = vec![first];
    while lines.len() < BATCH_LINES && bytes < BATCH_BYTES {
        match timeout_at(deadline, queue.recv()).await {
            Ok(Some(line)) => {
                bytes += line.line.len();
                lines.push(line);
            }
            Ok(None) | Err(_) => break,
        }
    }
    lines
}

async fn store(bus: &Bus, subject: &JobLogged, log: &JobLog) -> Result<(), PublishError> {
    let end = Instant::now() + SHIP_TIMEOUT;
    loop {
        let error = match try_store(bus, subject, log).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let is_hopeless = matches!(
            error,
            PublishError::TooLarge { .. } | PublishError::Codec(_)
        );
        if is_hopeless || Instant::now() + RETRY >= end {
            return Err(error);
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_store(bus: &Bus, subject: &JobLogged, log: &JobLog) -> Result<(), PublishError> {
    bus.store(subject, log, None).await?.await.map(|_| ())
}
