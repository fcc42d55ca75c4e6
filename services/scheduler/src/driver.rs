//! The pool and its owner: its leader, and the state that a term starts from.

use std::time::Duration;

use quintet_bus::{Bus, KvError, Loaded, WatchFrom, run_blocking};
use quintet_contract::bucket::{Agents, Jobs, LeaseKey, Templates};
use quintet_contract::id::PoolName;
use quintet_leader::{
    Clock, InboxOf, Order, Owner, Policy, ReloadReason, Status, Term, WhenUnwritable, lead,
    with_parts,
};
use quintet_service::health::ComponentHandle;
use quintet_service::tasks::{ExitPolicy, Tasks};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::SchedulerConfig;
use crate::core::{Core, CoreConfig, Sizes, Stored};
use crate::error::Error;
use crate::inbound;
use crate::metrics;
use crate::outbound::Outbound;
use crate::templates;
use crate::unwritable::reject_while_unwritable;

/// Life of the lease; after a kill, another scheduler leads so much later.
const LEASE_TTL: Duration = Duration::from_secs(2);
/// A candidate whose lease was another's for so long stands by.
const STANDBY_AFTER: Duration = Duration::from_secs(2);
/// Messages of one batch at most.
const BATCH: usize = 1024;
/// Commits in flight. More would make each smaller: while all are in flight, what arrives gathers for the next.
const PIPELINE_DEPTH: usize = 4;
/// How long the parts beside the leader may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a scheduler until `shutdown` is cancelled: leads its pool, or stands by.
///
/// # Errors
/// When the bus refuses what it cannot work without, or an essential part ends; everything that may pass is tried again.
pub async fn run(
    config: SchedulerConfig,
    bus: Bus,
    health: ComponentHandle,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let tasks = Tasks::new("scheduler");
    let serving = templates::serve(bus.clone(), tasks.token());
    tasks.spawn("templates", ExitPolicy::Essential, serving);
    let (pool, token) = (config.pool.clone(), tasks.token());
    let rejecting = reject_while_unwritable(bus.clone(), pool, health.clone(), token);
    tasks.spawn("unwritable", ExitPolicy::Essential, rejecting);
    let owner = PoolOwner {
        config,
        bus: bus.clone(),
        health,
    };
    let outcome = with_parts(&tasks, async { Ok(lead(owner, bus, shutdown).await?) }).await;
    metrics::leading(false);
    let report = tasks.shutdown(SHUTDOWN_TIMEOUT).await;
    if !report.is_clean() {
        warn!(aborted = ?report.aborted, "some parts of the scheduler did not end in time");
    }
    outcome
}

/// Owns the jobs and agents of one pool while it has the lease.
struct PoolOwner {
    config: SchedulerConfig,
    bus: Bus,
    health: ComponentHandle,
}

impl Owner for PoolOwner {
    type Outbound = Outbound;
    const NAME: &'static str = "scheduler";

    fn policy(&self) -> Policy {
        Policy {
            lease: LeaseKey::Scheduler(self.config.pool.clone()),
            holder: self.config.holder.clone(),
            lease_ttl: LEASE_TTL,
            standby_after: STANDBY_AFTER,
            batch: BATCH,
            order: Order::Pipelined(PIPELINE_DEPTH),
            when_unwritable: WhenUnwritable::Reload,
            changing: "the scheduler of this pool is changing hands; send the same request again in a moment",
        }
    }

    async fn load(&mut self) -> Result<Term<Outbound>, ReloadReason> {
        let (began, bus) = (Instant::now(), self.bus.clone());
        let templates = bus.bucket::<Templates>();
        let (jobs, agents) = (bus.bucket::<Jobs>(), bus.bucket::<Agents>());
        let (jobs, agents, stored) =
            futures::try_join!(jobs.load(), agents.load(), templates.load())
                .map_err(|error: KvError| ReloadReason::from(error))?;
        let templates = templates.watch(WatchFrom::After(stored.last)).await?;
        let (config, clock) = (core_config(&self.config), Clock::start());
        let restore = move || {
            let outbound = Outbound::new(bus, &jobs, &agents, templates);
            let stored = stored_of(&config.pool, jobs, agents, stored);
            let (core, first) = Core::restore(config, stored, clock.now());
            Term {
                core,
                clock,
                first,
                outbound,
            }
        };
        let term = run_blocking(restore).await;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Sizes { jobs, agents, .. } = term.core.sizes();
        info!(pool = %self.config.pool, jobs, agents, took_ms, "loaded the pool");
        Ok(term)
    }

    async fn open(&self, inbox: &mut InboxOf<Outbound>) -> Result<(), quintet_leader::Error> {
        inbound::open(inbox, &self.config.pool).await
    }

    fn status(&self, status: Status) {
        // While the bus stores nothing, that is what is reported.
        let is_writable = self.bus.unwritable().borrow().is_empty();
        match status {
            Status::Standby | Status::Serving if is_writable => self.health.ready(),
            Status::Standby | Status::Serving => {}
            Status::Unreachable => self.health.not_ready(
                "the bucket of leases is missing, or most of the cluster of NATS is away",
            ),
            Status::Elected => metrics::leading(true),
            Status::Reloading => metrics::reloaded(),
            Status::Ended(_) => metrics::leading(false),
        }
    }

    fn gauges(&self, core: &Core) {
        metrics::sizes(core.sizes());
    }
}

/// What belongs to a pool.
fn stored_of(
    pool: &PoolName,
    jobs: Loaded<Jobs>,
    agents: Loaded<Agents>,
    templates: Loaded<Templates>,
) -> Stored {
    let jobs = jobs.entries.into_iter().map(|(_, found)| found.record);
    let agents = agents.entries.into_iter().map(|(_, found)| found.record);
    let templates = templates.entries.into_iter().map(|(_, found)| found.record);
    Stored {
        jobs: jobs.filter(|record| record.job.pool == *pool).collect(),
        agents: agents.filter(|record| record.agent.pool == *pool).collect(),
        templates: templates.collect(),
    }
}

fn core_config(config: &SchedulerConfig) -> CoreConfig {
    CoreConfig {
        pool: config.pool.clone(),
        heartbeat_interval: config.heartbeat_interval,
        heartbeat_timeout: config.heartbeat_timeout,
        stop_grace: config.stop_grace,
        kill_after: config.kill_after,
        assign_ack_timeout: config.assign_ack_timeout,
        job_retention: config.job_retention,
        max_agents: config.max_agents,
    }
}
