//! The shards and their owners: the leader of each, and the state that a term starts from.
//!
//! Every runner stands for election in every shard that it is preferred for, and yields a shard when another runner is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use quintet_bus::{Bus, run_blocking};
use quintet_contract::bucket::LeaseKey;
use quintet_contract::id::RunShard;
use quintet_leader::{
    Clock, CoreOf, InboxOf, Order, Owner, Policy, Preference, ReloadReason, Status, Term,
    WhenUnwritable, lead, with_parts,
};
use quintet_service::health::ComponentHandle;
use quintet_service::tasks::{ExitPolicy, Tasks};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::RunnerConfig;
use crate::core::{Core, CoreConfig};
use crate::error::Error;
use crate::execute::Executions;
use crate::kubernetes::Kubernetes;
use crate::loading::{Loaded, load};
use crate::outbound::Outbound;
use crate::peers::{Peers, announce_leave, run_membership};
use crate::readiness::report_readiness;
use crate::{inbound, metrics, plans};

/// Life of a lease; after a kill, another runner leads so much later.
const LEASE_TTL: Duration = Duration::from_secs(2);
/// A shard whose lease is another's for so long is led: longer than the TTL of a lease.
const STANDBY_AFTER: Duration = Duration::from_secs(3);
/// Messages of one batch at most.
const BATCH: usize = 1024;
/// How long the tasks of a runner may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a runner until `shutdown` is cancelled: owns its share of all runs.
///
/// # Errors
/// When the bus refuses what it cannot work without, or an essential part ends; everything that may pass is tried again.
pub async fn run(
    config: RunnerConfig,
    bus: Bus,
    health: ComponentHandle,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let kubernetes = match config.kubernetes.is_configured() {
        true => Some(Kubernetes::connect(&config.kubernetes).await?),
        false => None,
    };
    let tasks = Tasks::new("runner");
    let (known, peers) = watch::channel(Peers::only(config.holder.clone()));
    let membership = run_membership(bus.clone(), config.holder.clone(), known, tasks.token());
    tasks.spawn("peers", ExitPolicy::Essential, membership);
    let planning = plans::serve(bus.clone(), tasks.token());
    tasks.spawn("plans", ExitPolicy::Essential, planning);
    let config = Arc::new(config);
    let (led, shards_led) = watch::channel(BTreeSet::new());
    for shard in RunShard::all() {
        let owner = ShardOwner {
            shard,
            config: config.clone(),
            bus: bus.clone(),
            kubernetes: kubernetes.clone(),
            peers: peers.clone(),
            led: led.clone(),
            tasks: tasks.clone(),
        };
        let leading = lead(owner, bus.clone(), tasks.token());
        tasks.spawn("shard", ExitPolicy::Essential, leading);
    }
    let readiness = report_readiness(health, shards_led, tasks.token());
    tasks.spawn("health", ExitPolicy::Optional, readiness);
    let outcome = with_parts(&tasks, shutdown.cancelled().map(Ok)).await;
    announce_leave(&bus, &config.holder).await;
    let report = tasks.shutdown(SHUTDOWN_TIMEOUT).await;
    if !report.is_clean() {
        warn!(aborted = ?report.aborted, "some parts of the runner did not end in time");
    }
    outcome
}

/// Owns the runs of one shard while it has the lease.
struct ShardOwner {
    shard: RunShard,
    config: Arc<RunnerConfig>,
    bus: Bus,
    kubernetes: Option<Kubernetes>,
    peers: watch::Receiver<Peers>,
    /// Shards that are led, as far as this runner knows.
    led: watch::Sender<BTreeSet<RunShard>>,
    tasks: Tasks,
}

impl ShardOwner {
    fn set_led(&self, is_led: bool) {
        self.led.send_if_modified(|led| match is_led {
            true => led.insert(self.shard),
            false => led.remove(&self.shard),
        });
    }

    fn core_config(&self) -> CoreConfig {
        CoreConfig {
            prefix: self.bus.prefix().clone(),
            task_ack_wait: self.config.task_ack_wait,
            run_retention: self.config.run_retention,
            has_kubernetes: self.kubernetes.is_some(),
        }
    }
}

impl Owner for ShardOwner {
    type Outbound = Outbound;
    const NAME: &'static str = "runner";

    fn policy(&self) -> Policy {
        Policy {
            lease: LeaseKey::Runner(self.shard),
            holder: self.config.holder.clone(),
            lease_ttl: LEASE_TTL,
            standby_after: STANDBY_AFTER,
            batch: BATCH,
            order: Order::PerKey,
            when_unwritable: WhenUnwritable::Reload,
            changing: "the runner of this run is changing; send the same request again in a moment",
        }
    }

    async fn load(&mut self) -> Result<Term<Outbound>, ReloadReason> {
        let began = Instant::now();
        let Loaded { runs, positions } = load(&self.bus, self.shard).await?;
        let (config, clock) = (self.core_config(), Clock::start());
        let (core, first) = run_blocking(move || Core::restore(config, runs, clock.now())).await;
        let (runs, ended) = core.sizes();
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(shard = %self.shard, runs, ended, took_ms, "loaded a shard of runs");
        let tasks = self.tasks.child("executions", ExitPolicy::Optional);
        let (bus, kubernetes) = (self.bus.clone(), self.kubernetes.clone());
        let executions = Executions::new(bus.clone(), kubernetes, tasks);
        let retention = self.config.run_retention;
        Ok(Term {
            core,
            clock,
            first,
            outbound: Outbound::new(bus, positions, retention, executions),
        })
    }

    async fn open(&self, inbox: &mut InboxOf<Outbound>) -> Result<(), quintet_leader::Error> {
        inbound::open(inbox, self.shard).await
    }

    fn status(&self, status: Status) {
        match status {
            Status::Standby | Status::Serving => self.set_led(true),
            Status::Unreachable => self.set_led(false),
            Status::Elected => metrics::led(1.0),
            Status::Reloading => {
                metrics::reloaded();
                self.set_led(false);
            }
            Status::Ended(_) => {
                metrics::led(-1.0);
                self.set_led(false);
            }
        }
    }

    /// Executions are begun again by the next leader.
    async fn end_term(&mut self, _: CoreOf<Outbound>, outbound: Outbound) {
        outbound.executions.shutdown(SHUTDOWN_TIMEOUT).await;
    }

    fn preference(&self) -> Preference {
        let (peers, config, shard) = (self.peers.clone(), self.config.clone(), self.shard);
        Arc::new(move |preferred| {
            let (mut peers, config) = (peers.clone(), config.clone());
            async move {
                let is_so = |peers: &Peers| peers.prefer(&config.holder, shard) == preferred;
                if peers.wait_for(is_so).await.is_err() {
                    // The runner ends, which is learnt otherwise.
                    std::future::pending().await
                }
            }
            .boxed()
        })
    }
}
