//! Configuration of an agent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use quintet_contract::capability::{Capabilities, Resolution};
use quintet_contract::id::{AgentId, PoolName};
use quintet_worker::output::LogLimits;
use quintet_worker::process::EnvironmentFilter;

use crate::executors::Executor;

/// All settings of an agent. [`AgentConfig::new`] has defaults for all but its id.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Its id, stable over restarts.
    pub agent: AgentId,
    /// Its display name.
    pub name: String,
    /// The pool whose scheduler owns it.
    pub pool: PoolName,
    /// How many jobs at once.
    pub slots: u32,
    /// The largest resolution it can handle.
    pub max_resolution: Option<Resolution>,
    /// Labels that requirements match by equality.
    pub labels: BTreeMap<String, String>,
    /// Tags that requirements match by containment.
    pub tags: Vec<String>,
    /// What it may run; jobs for other executors are refused.
    pub executors: BTreeSet<Executor>,
    /// Relative paths of jobs start here.
    pub work_dir: PathBuf,
    /// The ffmpeg program, a path or a name to find.
    pub ffmpeg: PathBuf,
    /// An encoder whose frames and bytes stand still for this long has stalled.
    pub stall_timeout: Duration,
    /// How long children may take to stop when the agent is asked to leave.
    pub drain_grace: Duration,
    /// How much output of one job is kept.
    pub log_limits: LogLimits,
    /// The program to start with the argument `reaper`, which must call
    /// [`reaper::main`](quintet_worker::process::reaper::main);
    /// without it, processes started by children may outlive a killed agent.
    pub reaper: Option<PathBuf>,
    /// Which variables of this process jobs do not inherit.
    pub environment: EnvironmentFilter,
}

impl AgentConfig {
    /// An agent with as many slots as the machine has cores.
    pub fn new(agent: AgentId) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Self {
            name: agent.to_string(),
            agent,
            pool: PoolName::default(),
            slots: u32::try_from(cores).unwrap_or(u32::MAX),
            max_resolution: None,
            labels: BTreeMap::new(),
            tags: Vec::new(),
            executors: Executor::ALL.into(),
            work_dir: PathBuf::from("."),
            ffmpeg: PathBuf::from("ffmpeg"),
            stall_timeout: Duration::from_secs(15),
            drain_grace: Duration::from_secs(10),
            log_limits: LogLimits::default(),
            reaper: None,
            environment: EnvironmentFilter::default(),
        }
    }

    /// What it announces.
    pub(crate) fn capabilities(&self, executors: Vec<String>) -> Capabilities {
        Capabilities {
            slots: self.slots,
            max_resolution: self.max_resolution,
            labels: self.labels.clone(),
            tags: self.tags.clone(),
            self_fence: true,
            executors,
            commands: crate::executors::COMMANDS.map(str::to_owned).to_vec(),
        }
    }
}
