//! Settings of a run worker.

use std::path::PathBuf;

use quintet_contract::id::{QueueName, WorkerId};
use quintet_service::settings::{Reader, Setting};
use quintet_workers::RunWorkerConfig;

use super::environment::{self, AGENT_ENV};
use super::process::{host, unique};
use super::shared::{TASK_ACK_WAIT, WORK_DIR, setting};

/// Most slots of a run worker: each may hold a program with its pipes open.
const MAX_SLOTS: usize = 10_000;

/// The settings of this file, and those that a run worker shares with others.
pub(crate) const TABLE: &[Setting] = &[
    setting(
        "run_worker_name",
        "RUN_WORKER_NAME",
        None,
        "how run workers are called, the host name without it; each adds what makes it unique",
    ),
    setting(
        "run_worker_queues",
        "RUN_WORKER_QUEUES",
        Some("command"),
        "queues that run workers take commands from, separated by commas",
    ),
    setting(
        "run_worker_slots",
        "RUN_WORKER_SLOTS",
        None,
        "how many commands a run worker runs at once; as many as the machine has cores without it",
    ),
    setting(
        "run_worker_drain",
        "RUN_WORKER_DRAIN",
        Some("10s"),
        "how long commands may continue when their run worker is stopped; then others continue them from their last checkpoints",
    ),
    setting(
        "run_worker_kill_grace",
        "RUN_WORKER_KILL_GRACE",
        Some("5s"),
        "how long a command may take to end after SIGTERM before it is killed",
    ),
    TASK_ACK_WAIT,
    WORK_DIR,
    AGENT_ENV,
];

/// Reads [`TABLE`].
pub(crate) fn read(read: &mut Reader<'_>) -> RunWorkerConfig {
    let name = read.optional("run_worker_name").unwrap_or_else(host);
    let unique = unique(&name);
    let id = WorkerId::parse(&unique).or_else(|error| {
        read.check("run_worker_name", false, &error.to_string());
        WorkerId::parse(quintet_bus::new_session().to_string())
    });
    let mut worker = RunWorkerConfig::new(id.unwrap_or_else(|_| unreachable!("a UUID is a name")));
    worker.name = name;
    worker.queues = read.parse_list::<QueueName>("run_worker_queues");
    let has_queue = !worker.queues.is_empty();
    read.check("run_worker_queues", has_queue, "must name a queue");
    if let Some(slots) = read.parse_optional("run_worker_slots") {
        worker.slots = slots;
    }
    let has_slot = (1..=MAX_SLOTS).contains(&worker.slots);
    read.check("run_worker_slots", has_slot, "must be 1 to 10000");
    worker.drain_grace = read.duration("run_worker_drain");
    worker.kill_grace = read.duration("run_worker_kill_grace");
    worker.task_ack_wait = read.duration("task_ack_wait");
    let folder = read.optional("work_dir").map(PathBuf::from);
    worker.work_dir = folder.unwrap_or_default().join("runs");
    worker.reaper = std::env::current_exe().ok();
    worker.environment = environment::filter(read);
    worker
}
