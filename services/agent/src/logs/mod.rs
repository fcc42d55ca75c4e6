//! A job's output as log lines: bounded in memory, limited in rate, and never in the child's way.
//!
//! ```text
//!   pipe ──reader──▶ lines ──limit──▶ [ queue ] ──shipper──▶ batches ──▶ stream of events
//!                              │           │ full
//!                              └──▶ counted ◀┘  noted in the log as one line of the agent's own
//! ```
//!
//! The reader never waits for the queue, so a child can always write; what does not fit is dropped.

mod ship;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quintet_contract::event::{LogLine, LogStream};
use quintet_worker::output::{Limiter, LogLimits};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub(crate) use ship::{Shipment, ship};

/// Lines that wait for the bus; when full, lines are dropped and counted.
const QUEUE: usize = 1024;

/// Takes the lines of one job; clones share queue and limits.
#[derive(Clone, Debug)]
pub(crate) struct LogSink {
    lines: mpsc::Sender<LogLine>,
    shared: Arc<Shared>,
}

/// Writes notes to a job's log as long as the job runs, without keeping the log open.
#[derive(Clone, Debug)]
pub(crate) struct NoteSink(mpsc::WeakSender<LogLine>);

#[derive(Debug)]
struct Shared {
    limiter: Mutex<Limiter>,
    dropped: Arc<AtomicU64>,
}

/// A sink, what its shipper needs, and a receiver that is closed when everything is shipped.
pub(crate) fn channel(limits: LogLimits) -> (LogSink, Shipment, oneshot::Receiver<()>) {
    let (lines, queue) = mpsc::channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let limiter = Mutex::new(Limiter::new(limits, Instant::now()));
    let shared = Arc::new(Shared {
        limiter,
        dropped: dropped.clone(),
    });
    let (done, shipped) = oneshot::channel();
    let shipment = Shipment {
        queue,
        dropped,
        done,
    };
    (LogSink { lines, shared }, shipment, shipped)
}

impl LogSink {
    /// Takes a line, or drops and counts it. Never waits.
    pub(crate) fn push(&self, stream: LogStream, line: &str) {
        let limiter = self.shared.limiter.lock();
        let mut limiter = limiter.unwrap_or_else(PoisonError::into_inner);
        let allowed = limiter.allows(line.len(), Instant::now());
        drop(limiter);
        let is_taken = allowed && self.lines.try_send(log_line(stream, line)).is_ok();
        if !is_taken {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A sink for the agent's own remarks.
    pub(crate) fn notes(&self) -> NoteSink {
        NoteSink(self.lines.downgrade())
    }
}

impl NoteSink {
    /// Writes a note, if the log is open and has room.
    pub(crate) fn write(&self, line: &str) {
        if let Some(lines) = self.0.upgrade() {
            // A full queue means that the log is in trouble already, and reports that itself.
            let _ = lines.try_send(log_line(LogStream::Agent, line));
        }
    }
}

fn log_line(stream: LogStream, line: &str) -> LogLine {
    LogLine {
        at: quintet_bus::now(),
        stream,
        line: line.to_owned(),
    }
}
