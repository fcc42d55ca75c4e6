//! One message with reports, from its first sending to its answer.

use std::sync::Arc;
use std::time::Duration;

use quintet_bus::{Bus, CodecError, RequestError};
use quintet_contract::error::ErrorCode;
use quintet_contract::id::RunShard;
use quintet_contract::subject::RunReporting;
use quintet_contract::task::{RunReports, RunReportsReply, Verdict};
use quintet_service::telemetry::chain;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::event::EventKind;
use super::task_reporter::{Answer, TaskReporter};
use super::waiting::Numbered;
use crate::metrics;

/// How long the first sending waits for its answer; it doubles up to [`TIMEOUT_MAX`]. The runner that had it may have
/// died.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Longest wait for an answer.
const TIMEOUT_MAX: Duration = Duration::from_secs(8);
/// First wait between two sendings; it doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_millis(20);
/// Longest wait between two sendings.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The waiter for the answer to one report.
struct Waiter {
    reporter: Arc<TaskReporter>,
    kind: EventKind,
    answer: Answer,
}

impl Waiter {
    fn receive(self, verdict: Verdict) {
        match self.answer {
            // Fails when the caller is gone.
            Answer::Awaited(answer) => drop(answer.send(verdict)),
            Answer::Unawaited(_room) => self.reporter.answered_unawaited(self.kind, verdict),
        }
    }
}

/// Sends reports until they are answered, or until every caller is gone. Returns the tasks that they are of.
pub(super) async fn send_batch(
    bus: Bus,
    shard: RunShard,
    batch: Vec<Numbered>,
) -> Vec<Arc<TaskReporter>> {
    let mut message = RunReports {
        reports: Vec::with_capacity(batch.len()),
    };
    let mut waiters = Vec::with_capacity(batch.len());
    for next in batch {
        message.reports.push(next.report);
        waiters.push(Waiter {
            reporter: next.reporter,
            kind: next.kind,
            answer: next.answer,
        });
    }
    let reporters = waiters.iter().map(|waiter| waiter.reporter.clone());
    let reporters: Vec<_> = reporters.collect();
    match send(&bus, shard, &message, &reporters).await {
        Some(Ok(verdicts)) => {
            metrics::task_reports(verdicts.len());
            for (waiter, verdict) in waiters.into_iter().zip(verdicts) {
                waiter.receive(verdict);
            }
        }
        Some(Err(reason)) => refused(&bus, shard, message, waiters, reason).await,
        None => {}
    }
    reporters
}

/// A message that will never be taken: each report on its own, so that the one at fault is known.
async fn refused(
    bus: &Bus,
    shard: RunShard,
    message: RunReports,
    waiters: Vec<Waiter>,
    reason: String,
) {
    warn!(%shard, reports = waiters.len(), reason, "a message with reports was refused");
    let is_alone = waiters.len() == 1;
    for (waiter, report) in waiters.into_iter().zip(message.reports) {
        if is_alone {
            waiter.receive(Verdict::Refused {
                reason: reason.clone(),
            });
            continue;
        }
        let alone = RunReports {
            reports: vec![report],
        };
        let of = std::slice::from_ref(&waiter.reporter);
        match send(bus, shard, &alone, of).await {
            Some(Ok(mut verdicts)) => waiter.receive(verdicts.pop().unwrap_or(Verdict::Ok)),
            Some(Err(reason)) => waiter.receive(Verdict::Refused { reason }),
            None => return,
        }
    }
}

/// One verdict per report; or why there will never be any; or nothing when every caller is gone.
async fn send(
    bus: &Bus,
    shard: RunShard,
    message: &RunReports,
    reporters: &[Arc<TaskReporter>],
) -> Option<Result<Vec<Verdict>, String>> {
    let subject = RunReporting { shard };
    let (mut patience, mut wait) = (TIMEOUT_MIN, WAIT_MIN);
    loop {
        match bus.request(&subject, message, patience).await {
            Ok(RunReportsReply { verdicts }) if verdicts.len() == message.reports.len() => {
                return Some(Ok(verdicts));
            }
            Ok(reply) => {
                let (reports, verdicts) = (message.reports.len(), reply.verdicts.len());
                warn!(
                    reports,
                    verdicts, "reports were answered by the wrong number of verdicts"
                );
            }
            Err(error) if is_final(&error) => return Some(Err(chain(&error).to_string())),
            Err(error) => debug!(%shard, error = %chain(&error), "reports were not answered"),
        }
        if reporters.iter().all(|reporter| reporter.has_ended()) {
            return None;
        }
        metrics::task_reports_repeated();
        sleep(wait.mul_f64(rand::random_range(0.5..=1.0))).await;
        wait = (wait * 2).min(WAIT_MAX);
        patience = (patience * 2).min(TIMEOUT_MAX);
    }
}

/// Whether the same message would be refused for ever: the message is at fault, not the runner that had it.
fn is_final(error: &RequestError) -> bool {
    match error {
        RequestError::Refused(reply) => matches!(
            reply.code,
            ErrorCode::BadRequest | ErrorCode::ValidationFailed | ErrorCode::PayloadTooLarge
        ),
        RequestError::Codec(error) => matches!(error, CodecError::Encode { .. }),
        RequestError::NoResponders { .. }
        | RequestError::Timeout { .. }
        | RequestError::Link { .. } => false,
    }
}
