//! The reporter of one task: the one place through which everything about it goes, in order.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::event::{LogStream, MAX_LOG_LINE_BYTES};
use quintet_contract::id::{NodeId, RunId, WorkerId};
use quintet_contract::job::Attempt;
use quintet_contract::task::{MAX_LINES, RunReport, Verdict, WorkerEvent};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::event::{EventKind, OVERHEAD_BYTES, size};
use crate::metrics;
use crate::output::{Limiter, LogLimits};

/// What one task may have unanswered, in units of [`UNIT`]: two of the largest checkpoints. When it is full, lines of
/// output are dropped and everything else waits, and with it the program.
const BUDGET: u32 = 2 * 1024 + 256;
/// Bytes of one unit.
const UNIT: usize = 1024;
/// Progress is reported at most this often; of what comes faster the newest counts.
const PROGRESS_PERIOD: Duration = Duration::from_millis(250);
/// How long reports may take to be stored before a task is returned to the queue.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a task is to be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is no longer ours.
    Gone(String),
    /// The runner answered so.
    Canceled,
    /// The worker ends.
    Drained,
}

/// One thing to report.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) reporter: Arc<TaskReporter>,
    pub(crate) event: WorkerEvent,
    /// About how many bytes it is in a message.
    pub(crate) bytes: usize,
    pub(crate) answer: Answer,
}

/// The waiter for an answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A caller waits for it.
    Awaited(oneshot::Sender<Verdict>),
    /// No caller does; it is recorded, and the room it took is free again.
    Unawaited(Option<OwnedSemaphorePermit>),
}

/// Reports everything about one task to the run's owner, in order; what is reported is sent again until it is answered.
/// Made by [`Outboxes::reporter`](super::Outboxes::reporter).
#[derive(Debug)]
pub struct TaskReporter {
    pub(crate) run_id: RunId,
    pub(crate) node_id: NodeId,
    worker: WorkerId,
    /// Zero until it is granted.
    attempt: AtomicU32,
    /// The newest number; counted by the outbox alone, when it takes the report in.
    seq: AtomicU64,
    /// Whether a message that holds a report of this task is in flight: one at a time, so that they stay in order.
    pub(super) in_flight: AtomicBool,
    beats: AtomicBool,
    room: Arc<Semaphore>,
    outbox: mpsc::Sender<Entry>,
    stop: watch::Sender<Option<Stop>>,
    ended: CancellationToken,
    output: Mutex<Output>,
}

/// What is kept back of a program's output.
#[derive(Debug)]
struct Output {
    limiter: Limiter,
    lines: u64,
    dropped: u64,
    progress: Option<JsonObject>,
    progressed: Option<Instant>,
}

impl TaskReporter {
    pub(crate) fn new(
        (run_id, node_id): (RunId, NodeId),
        worker: WorkerId,
        outbox: mpsc::Sender<Entry>,
        limits: LogLimits,
    ) -> Arc<Self> {
        Arc::new(Self {
            run_id,
            node_id,
            worker,
            attempt: AtomicU32::new(0),
            seq: AtomicU64::new(0),
            in_flight: AtomicBool::new(false),
            beats: AtomicBool::new(false),
            room: Arc::new(Semaphore::new(BUDGET as usize)),
            outbox,
            stop: watch::Sender::new(None),
            ended: CancellationToken::new(),
            output: Mutex::new(Output {
                limiter: Limiter::new(limits, Instant::now()),
                lines: 0,
                dropped: 0,
                progress: None,
                progressed: None,
            }),
        })
    }

    /// The report of an event, with the next number if its kind has one.
    pub(super) fn number(&self, event: WorkerEvent) -> RunReport {
        let has_number = !matches!(event, WorkerEvent::Take { .. } | WorkerEvent::Heartbeat);
        let seq = if has_number {
            self.seq.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            0
        };
        RunReport {
            run_id: self.run_id,
            node_id: self.node_id.clone(),
            worker: self.worker.clone(),
            attempt: self.attempt(),
            seq,
            event,
        }
    }

    /// The attempt that was granted; zero before.
    pub fn attempt(&self) -> Attempt {
        Attempt(self.attempt.load(Ordering::Relaxed))
    }

    pub(crate) fn grant(&self, attempt: Attempt) {
        self.attempt.store(attempt.0, Ordering::Relaxed);
    }

    /// Asks for the task to be stopped; the first reason counts, but for what is no longer ours, which always does.
    pub fn stop(&self, why: Stop) {
        self.stop.send_if_modified(|stop| {
            let is_new = stop.is_none() || matches!(why, Stop::Gone(_));
            if is_new {
                *stop = Some(why);
            }
            is_new
        });
    }

    /// Why the task is to be stopped, now and when that changes.
    pub fn stopping(&self) -> watch::Receiver<Option<Stop>> {
        self.stop.subscribe()
    }

    /// Nothing more is sent than what is in flight; waiters for the end may continue.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// Whether nothing more is reported of it.
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Resolves at the end. Cancel-safe: it only looks.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Reports something and waits for the answer; `None` when reporting has ended.
    pub async fn report_and_wait(self: &Arc<Self>, event: WorkerEvent) -> Option<Verdict> {
        let (answer, answered) = oneshot::channel();
        let bytes = size(&event);
        self.send(event, bytes, Answer::Awaited(answer)).await;
        answered.await.ok()
    }

    /// Reports something; waits while too much is unanswered.
    pub async fn report(self: &Arc<Self>, event: WorkerEvent) {
        let bytes = size(&event);
        // Fails only when the room is closed, which it never is.
        let permit = self.room.clone().acquire_many_owned(units(bytes)).await;
        self.send(event, bytes, Answer::Unawaited(permit.ok()))
            .await;
    }

    async fn send(self: &Arc<Self>, event: WorkerEvent, bytes: usize, answer: Answer) {
        let reporter = self.clone();
        let entry = Entry {
            reporter,
            event,
            bytes,
            answer,
        };
        // Fails when the worker ends; then the waiter for the answer learns it.
        let _ = self.outbox.send(entry).await;
    }

    /// Reports something if there is room for it.
    fn try_report(self: &Arc<Self>, event: WorkerEvent) -> bool {
        let bytes = size(&event);
        let room = self.room.clone().try_acquire_many_owned(units(bytes));
        let Ok(permit) = room else { return false };
        self.enter(event, bytes, Some(permit))
    }

    fn enter(
        self: &Arc<Self>,
        event: WorkerEvent,
        bytes: usize,
        room: Option<OwnedSemaphorePermit>,
    ) -> bool {
        let reporter = self.clone();
        let answer = Answer::Unawaited(room);
        let entry = Entry {
            reporter,
            event,
            bytes,
            answer,
        };
        self.outbox.try_send(entry).is_ok()
    }

    /// Reports that the task is in progress, unless the last such report is unanswered, and the progress that is kept
    /// back.
    pub fn beat(self: &Arc<Self>) {
        if self.beats.swap(true, Ordering::Relaxed) {
            return;
        }
        let reporter = self.clone();
        let entry = Entry {
            reporter,
            event: WorkerEvent::Heartbeat,
            bytes: OVERHEAD_BYTES,
            answer: Answer::Unawaited(None),
        };
        if self.outbox.try_send(entry).is_err() {
            self.beats.store(false, Ordering::Relaxed);
        }
        if let Some(data) = self.kept_progress() {
            self.try_report(WorkerEvent::Progress { data });
        }
    }

    /// Reports a line of output, or drops and counts it. Never waits.
    pub fn log(self: &Arc<Self>, stream: LogStream, line: &str) {
        let line = &line[..line.floor_char_boundary(MAX_LOG_LINE_BYTES)];
        let mut output = self.output();
        output.lines += 1;
        // The runner keeps no more than this of a node, and answers so when it gets one more.
        if output.lines > MAX_LINES + 1 {
            return;
        }
        let allowed = output.limiter.allows(line.len(), Instant::now());
        let dropped = output.dropped;
        drop(output);
        if allowed && dropped > 0 && self.report_dropped(dropped) {
            self.output().dropped -= dropped;
        }
        let line = line.to_owned();
        if !(allowed && self.try_report(WorkerEvent::Log { stream, line })) {
            metrics::lines_dropped(1);
            self.output().dropped += 1;
        }
    }

    /// Writes a note of the worker's own to the log.
    pub fn note(self: &Arc<Self>, line: String) {
        let stream = LogStream::Agent;
        let event = WorkerEvent::Log { stream, line };
        let bytes = size(&event);
        // Without room: notes are few, and at its end a task waits for all of its room, which would leave none for them.
        if !self.enter(event, bytes, None) {
            debug!(run = %self.run_id, node = %self.node_id, "no room for a note in the log of a task");
        }
    }

    fn report_dropped(self: &Arc<Self>, count: u64) -> bool {
        let line = format!("{count} lines dropped");
        let stream = LogStream::Agent;
        self.try_report(WorkerEvent::Log { stream, line })
    }

    /// Reports progress, or keeps it back for a moment.
    pub async fn progress(self: &Arc<Self>, data: JsonObject) {
        if let Some(data) = self.due_progress(data) {
            self.report(WorkerEvent::Progress { data }).await;
        }
    }

    fn due_progress(&self, data: JsonObject) -> Option<JsonObject> {
        let mut output = self.output();
        let now = Instant::now();
        let is_due = output
            .progressed
            .is_none_or(|at| now.saturating_duration_since(at) >= PROGRESS_PERIOD);
        if !is_due {
            output.progress = Some(data);
            return None;
        }
        output.progressed = Some(now);
        output.progress = None;
        Some(data)
    }

    fn kept_progress(&self) -> Option<JsonObject> {
        self.output().progress.take()
    }

    /// Reports what was kept back, if there is room for it.
    pub fn flush_output(self: &Arc<Self>) {
        if let Some(data) = self.kept_progress() {
            self.try_report(WorkerEvent::Progress { data });
        }
        let dropped = std::mem::take(&mut self.output().dropped);
        if dropped > 0 {
            self.report_dropped(dropped);
        }
    }

    /// Waits until everything that was reported is answered, but not for ever.
    pub async fn flush(&self) {
        let flushed = self.room.acquire_many(BUDGET);
        if timeout(FLUSH_TIMEOUT, flushed).await.is_err() {
            debug!(run = %self.run_id, node = %self.node_id, "the last reports of a task were not answered in time");
        }
    }

    /// Takes an answer without a caller that waits for it.
    pub(super) fn answered_unawaited(self: &Arc<Self>, event: EventKind, verdict: Verdict) {
        if event == EventKind::Heartbeat {
            self.beats.store(false, Ordering::Relaxed);
        }
        match verdict {
            Verdict::Gone { reason } => self.stop(Stop::Gone(reason)),
            Verdict::Refused { reason } => {
                warn!(run = %self.run_id, node = %self.node_id, reason, "a report was refused");
                // OutputLine in the log itself, unless it is the log that is refused.
                if event == EventKind::Content {
                    self.note(reason);
                }
            }
            Verdict::Ok | Verdict::Granted { .. } => {}
        }
    }

    fn output(&self) -> std::sync::MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).map_or(BUDGET, |units| units.min(BUDGET))
}
