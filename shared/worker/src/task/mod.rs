//! Tasks of runs: their reports to the runners, gathered per shard and sent again until they are answered, and those that are
//! in flight.
//!
//! ```text
//!   tasks ──entries──▶ [ waiting ] ──batch──▶ message ──▶ owner of the shard
//!     ▲                                          │ ▲ │
//!     └───────────────── verdicts ───────────────┘ └─┘ no answer: again, later
//! ```
//!
//! What waits is sent as soon as the message before is answered, so that the busier a worker is the more goes with one
//! message. When an answer is late, or more waits than a message holds, further ones are sent meanwhile.

mod batch;
mod event;
mod in_flight;
mod task_reporter;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quintet_bus::Bus;
use quintet_contract::id::{RunShard, WorkerId};
use quintet_contract::subject::{RunReporting, Subject};
use quintet_contract::task::{MAX_REPORTS, Task};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use task_reporter::Entry;
use waiting::{Waiting, completed};

use crate::output::LogLimits;

pub use in_flight::{InFlight, InFlightGuard};
pub use task_reporter::{Stop, TaskReporter};

/// Reports of one shard that wait for its outbox; when full, lines of output are dropped and tasks wait.
const QUEUE: usize = 8 * 1024;
/// Most messages of one shard in flight at once.
const IN_FLIGHT: usize = 8;
/// After this without an answer other tasks do not wait for it.
const STALE_AFTER: Duration = Duration::from_millis(50);

/// The outboxes of all shards.
#[derive(Clone, Debug)]
pub struct Outboxes {
    bus: Bus,
    /// By the number of the shard.
    shards: Vec<mpsc::Sender<Entry>>,
}

impl Outboxes {
    /// Starts one per shard; each ends when no reporter of its tasks is left and everything is answered.
    pub fn start(bus: &Bus, tasks: &mut JoinSet<()>) -> Self {
        let shards = RunShard::all().map(|shard| {
            let (entries, queue) = mpsc::channel(QUEUE);
            tasks.spawn(deliver(bus.clone(), shard, queue));
            entries
        });
        Self {
            bus: bus.clone(),
            shards: shards.collect(),
        }
    }

    /// A reporter for a task that was pulled, whose output is kept within these limits.
    pub fn reporter(&self, task: &Task, worker: WorkerId, limits: LogLimits) -> Arc<TaskReporter> {
        let key = (task.run_id, task.node_id.clone());
        TaskReporter::new(key, worker, self.of(task), limits)
    }

    /// The outbox for what is reported of a task.
    fn of(&self, task: &Task) -> mpsc::Sender<Entry> {
        let named = RunReporting::parse(self.bus.prefix(), &task.report_to);
        let shard = named.map_or(RunShard::of(task.run_id), |named| named.shard);
        self.shards[usize::from(shard.number())].clone()
    }
}

async fn deliver(bus: Bus, shard: RunShard, mut queue: mpsc::Receiver<Entry>) {
    let mut waiting = Waiting::default();
    let mut flights = FuturesUnordered::new();
    let mut last_sent = Instant::now();
    let mut arrived = Vec::new();
    let mut is_open = true;
    while is_open || !flights.is_empty() || waiting.len() > 0 {
        loop {
            let is_due = flights.is_empty()
                || waiting.len() >= MAX_REPORTS
                || last_sent + STALE_AFTER <= Instant::now();
            if !is_due || flights.len() >= IN_FLIGHT {
                break;
            }
            let batch = waiting.take();
            if batch.is_empty() {
                break;
            }
            last_sent = Instant::now();
            flights.push(batch::send_batch(bus.clone(), shard, batch));
        }
        let may_send_more = waiting.len() > 0 && flights.len() < IN_FLIGHT;
        let late = last_sent + STALE_AFTER;
        let is_late_soon = may_send_more && late > Instant::now();
        // Every branch is cancel-safe: futures that are kept, a channel, a timer.
        tokio::select! {
            biased;
            Some(reporters) = flights.next(), if !flights.is_empty() => completed(&reporters),
            count = queue.recv_many(&mut arrived, MAX_REPORTS), if is_open => {
                is_open = count > 0;
                arrived.drain(..).for_each(|entry| waiting.push(entry));
            }
            () = sleep_until(late), if is_late_soon => {}
        }
    }
}
