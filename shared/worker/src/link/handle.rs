//! Messages of an agent: reports in order, the jobs it has, its measurements, and goodbye.

use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::agent::{ActiveJob, AgentReport};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::clock::Moment;

/// Orders that wait for the link; when full, [`LinkHandle::report`] waits.
const ORDER_CAPACITY: usize = 1024;
/// How long a goodbye may take; the owner notices the silence by itself later.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(2);

/// Why a call of the link failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The link has ended.
    #[error("cannot reach the scheduler: the link has ended")]
    Closed,
    /// The owner did not acknowledge in time.
    #[error("the scheduler did not acknowledge all reports within {} ms", .after.as_millis())]
    Late {
        /// How long was waited.
        after: Duration,
    },
}

/// Speaks for an agent; clones are the same link.
#[derive(Clone, Debug)]
pub struct LinkHandle {
    orders: mpsc::Sender<Order>,
    jobs: watch::Sender<Vec<ActiveJob>>,
    metrics: watch::Sender<JsonObject>,
    fences_at: watch::Receiver<Option<Moment>>,
    end: CancellationToken,
}

/// What a handle asks of the link.
#[derive(Debug)]
pub(super) enum Order {
    /// Send reports; each one's span becomes the sender's side of its trace.
    Reports(Vec<(AgentReport, Span)>),
    /// Send a heartbeat now.
    Heartbeat(JsonObject),
    /// Answer once everything before this is acknowledged.
    Flush(oneshot::Sender<()>),
    /// Send goodbye after everything before this, answer, and end.
    Goodbye(String, oneshot::Sender<()>),
}

/// The link's ends of the handle's channels.
#[derive(Debug)]
pub(super) struct HandleEnd {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) jobs: watch::Receiver<Vec<ActiveJob>>,
    pub(super) metrics: watch::Receiver<JsonObject>,
    pub(super) fences_at: watch::Sender<Option<Moment>>,
    pub(super) end: CancellationToken,
}

pub(super) fn channel(jobs: Vec<ActiveJob>) -> (LinkHandle, HandleEnd) {
    let (orders, orders_end) = mpsc::channel(ORDER_CAPACITY);
    let (jobs, jobs_end) = watch::channel(jobs);
    let (metrics, metrics_end) = watch::channel(JsonObject::new());
    let (fences_at_end, fences_at) = watch::channel(None);
    let end = CancellationToken::new();
    let ends = HandleEnd {
        orders: orders_end,
        jobs: jobs_end,
        metrics: metrics_end,
        fences_at: fences_at_end,
        end: end.clone(),
    };
    let handle = LinkHandle {
        orders,
        jobs,
        metrics,
        fences_at,
        end,
    };
    (handle, ends)
}

/// Room for reports that came about together.
#[derive(Debug)]
pub struct ReportSlot<'h>(mpsc::Permit<'h, Order>);

impl ReportSlot<'_> {
    /// Queues a report, in the current span.
    pub fn send(self, report: AgentReport) {
        self.send_all(vec![(report, Span::current())]);
    }

    /// Queues reports, each with its span. They travel in one message if they fit, so that what follows from one event
    /// costs its owner one write.
    pub fn send_all(self, reports: Vec<(AgentReport, Span)>) {
        self.0.send(Order::Reports(reports));
    }
}

impl LinkHandle {
    /// Queues a report; it is sent in order and repeated until the owner has stored it. Waits while the queue
    /// is full. Cancel-safe: a cancelled call has queued nothing.
    ///
    /// # Errors
    /// [`LinkError`] when the link has ended.
    pub async fn report(&self, report: AgentReport) -> Result<(), LinkError> {
        self.slot().await?.send(report);
        Ok(())
    }

    /// Waits for room in the queue of reports. Cancel-safe.
    ///
    /// # Errors
    /// [`LinkError`] when the link has ended.
    pub async fn slot(&self) -> Result<ReportSlot<'_>, LinkError> {
        let permit = self.orders.reserve().await;
        permit.map(ReportSlot).map_err(|_| LinkError::Closed)
    }

    /// Room in the queue of reports, if there is any now.
    pub fn try_slot(&self) -> Option<ReportSlot<'_>> {
        self.orders.try_reserve().ok().map(ReportSlot)
    }

    /// Sends a heartbeat now, unless one is in flight; for [`HeartbeatMode::Forwarded`](super::HeartbeatMode).
    ///
    /// # Errors
    /// [`LinkError`] when the link has ended.
    pub async fn heartbeat(&self, metrics: JsonObject) -> Result<(), LinkError> {
        let sent = self.orders.send(Order::Heartbeat(metrics)).await;
        sent.map_err(|_| LinkError::Closed)
    }

    /// Sets the jobs of the agent: heartbeats list them, and a later hello carries them. A job belongs
    /// there from its acceptance until its end was [stored](super::LinkEvent::Stored).
    pub fn set_jobs(&self, jobs: Vec<ActiveJob>) {
        self.jobs.send_replace(jobs);
    }

    /// Sets the measurements of automatic heartbeats.
    pub fn set_metrics(&self, metrics: JsonObject) {
        self.metrics.send_replace(metrics);
    }

    /// When restartable jobs must have ended here unless the owner answers before, since they may be given away then.
    /// A watchdog that outlives a frozen process ends them at that moment.
    pub fn fences_at(&self) -> watch::Receiver<Option<Moment>> {
        self.fences_at.clone()
    }

    /// Waits until every report queued so far is stored by the owner.
    ///
    /// # Errors
    /// [`LinkError`] when the link has ended.
    pub async fn flush(&self, deadline: Duration) -> Result<(), LinkError> {
        let (done, answer) = oneshot::channel();
        let done = async {
            let sent = self.orders.send(Order::Flush(done)).await;
            sent.map_err(|_| LinkError::Closed)?;
            answer.await.map_err(|_| LinkError::Closed)
        };
        let late = |_| LinkError::Late { after: deadline };
        timeout(deadline, done).await.map_err(late)?
    }

    /// Sends goodbye after everything queued so far, and ends the link, also when no owner receives it.
    ///
    /// # Errors
    /// [`LinkError`] when the link has ended.
    pub async fn goodbye(&self, reason: impl Into<String>) -> Result<(), LinkError> {
        let (done, answer) = oneshot::channel();
        let order = Order::Goodbye(reason.into(), done);
        let done = async {
            let sent = self.orders.send(order).await;
            sent.map_err(|_| LinkError::Closed)?;
            answer.await.map_err(|_| LinkError::Closed)
        };
        let sent = timeout(GOODBYE_DEADLINE, done).await;
        self.end.cancel();
        let late = |_| LinkError::Late {
            after: GOODBYE_DEADLINE,
        };
        sent.map_err(late)?
    }

    /// HandleEnd the link at once, without a goodbye.
    pub fn close(&self) {
        self.end.cancel();
    }
}
