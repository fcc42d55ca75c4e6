//! Configuration of a run worker.

use std::path::PathBuf;
use std::time::Duration;

use quintet_contract::id::{QueueName, WorkerId};
use quintet_contract::task::command_queue;
use quintet_worker::output::LogLimits;
use quintet_worker::process::EnvironmentFilter;

/// All settings of a run worker. [`RunWorkerConfig::new`] has defaults for all but its id.
#[derive(Clone, Debug)]
pub struct RunWorkerConfig {
    /// Its id: unique to the process, since an attempt belongs to the worker that took it.
    pub worker: WorkerId,
    /// Its display name.
    pub name: String,
    /// How often it announces itself; it counts as gone after three times as long.
    pub announce_interval: Duration,
    /// The queues that it takes tasks from.
    pub queues: Vec<QueueName>,
    /// How many tasks at once, of all queues together.
    pub slots: usize,
    /// Programs work in folders below this one.
    pub work_dir: PathBuf,
    /// How long a program may take to end after SIGTERM before it is killed.
    pub kill_grace: Duration,
    /// How long running tasks may continue when the worker is asked to end; then they are returned to the queue.
    pub drain_grace: Duration,
    /// Silence to the queue after which a task is given to another worker. The same for all workers of a queue.
    pub task_ack_wait: Duration,
    /// How much output of one program is kept.
    pub log_limits: LogLimits,
    /// The program to start with the argument `reaper`, which must call
    /// [`reaper::main`](quintet_worker::process::reaper::main); without it, what programs started may outlive a killed
    /// worker.
    pub reaper: Option<PathBuf>,
    /// Which variables of this process programs do not inherit.
    pub environment: EnvironmentFilter,
}

impl RunWorkerConfig {
    /// A worker of the queue `command` with as many slots as the machine has cores.
    pub fn new(worker: WorkerId) -> Self {
        Self {
            name: worker.to_string(),
            announce_interval: Duration::from_secs(2),
            worker,
            queues: vec![command_queue()],
            slots: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            work_dir: PathBuf::from("runs"),
            kill_grace: Duration::from_secs(5),
            drain_grace: Duration::from_secs(10),
            task_ack_wait: Duration::from_secs(10),
            log_limits: LogLimits::default(),
            reaper: None,
            environment: EnvironmentFilter::default(),
        }
    }
}
