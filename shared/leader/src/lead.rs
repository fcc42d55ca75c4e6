//! The life of a leader: it stands for election, loads, serves, and reloads when it does not know what is stored.
//!
//! ```text
//!               ┌────────── lease lost, or yielded ──────────┐
//!               ▼                                            │
//!   election_loop ── acquired ──▶ lead_until_lost: load ──▶ serve ── stop ──▶ drained, lease released
//!                                                    ▲        │
//!                                                    └────────┘ conflict, indeterminate write, unwritable
//! ```

use std::collections::BTreeSet;

use futures::FutureExt;
use quintet_bus::{Bus, HeldLease, LeaseCandidate};
use quintet_service::tasks::Tasks;
use quintet_service::telemetry::chain;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::election::{CandidateStatus, Election};
use crate::error::{Error, StopReason};
use crate::event_loop::{Outcome, RETRY_DELAY, serve};
use crate::owner::{Leadership, Owner, Policy, Preference, Status, WhenUnwritable};

/// Leads whenever it can, until `stop` is cancelled.
///
/// # Errors
/// Only when the bus refuses what the service cannot work without; everything that may pass is tried again.
pub async fn lead<O: Owner>(mut owner: O, bus: Bus, stop: CancellationToken) -> Result<(), Error> {
    election_loop(&mut owner, &bus, &stop).await
}

/// Runs a service beside its parts. The end of an essential one is an error: the service cannot work without it.
///
/// # Errors
/// That of the service, or the end of the part.
pub async fn with_parts<E: From<Error>>(
    tasks: &Tasks,
    service: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    tokio::select! {
        biased;
        outcome = service => outcome,
        end = tasks.wait() => Err(Error::Part(end).into()),
    }
}

async fn election_loop<O: Owner>(
    owner: &mut O,
    bus: &Bus,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let policy = owner.policy();
    let preference = owner.preference();
    let mut candidacy = Candidacy {
        bus,
        policy: &policy,
        preference: &preference,
        lease: bus.lease(
            policy.lease.clone(),
            policy.holder.clone(),
            policy.lease_ttl,
        ),
    };
    loop {
        let Some(mut lease) = elect(owner, &mut candidacy, stop).await else {
            return Ok(());
        };
        owner.status(Status::Elected);
        let leadership = Leadership {
            bus,
            policy: &policy,
            lease: &mut lease,
            preference: &preference,
        };
        let stopped = lead_until_lost(owner, leadership, stop).await;
        let reason = stopped
            .as_ref()
            .map_or(StopReason::LeaseLost, |reason| *reason);
        owner.status(Status::Ended(reason));
        match stopped? {
            StopReason::Shutdown => {
                lease.release().await;
                return Ok(());
            }
            StopReason::Yielded => {
                info!(lease = %policy.lease, "yielding to another process");
                lease.release().await;
            }
            StopReason::LeaseLost => info!(lease = %policy.lease, "no longer leader"),
        }
    }
}

/// What a process stands for election with.
struct Candidacy<'c> {
    bus: &'c Bus,
    policy: &'c Policy,
    preference: &'c Preference,
    lease: LeaseCandidate,
}

/// Waits for the lease; none when the service is to end.
async fn elect<O: Owner>(
    owner: &O,
    candidacy: &mut Candidacy<'_>,
    stop: &CancellationToken,
) -> Option<HeldLease> {
    let Candidacy {
        bus,
        policy,
        preference,
        ..
    } = *candidacy;
    let mut election = Election::begin(policy.standby_after, Instant::now());
    // Held while the lease cannot be tried for.
    let mut failover = None;
    loop {
        if preference(true).now_or_never().is_none() {
            owner.status(Status::Standby);
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = preference(true) => {}
            }
            election = Election::begin(policy.standby_after, Instant::now());
            failover = None;
        }
        let decides_at = election.deadline();
        let held = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            // Cancel-safe: a creation in flight stays with the candidate.
            held = candidacy.lease.acquire() => held,
            () = preference(false) => continue,
            () = sleep_until(decides_at.unwrap_or_else(Instant::now)), if decides_at.is_some() => {
                election.stand_by();
                failover = None;
                owner.status(Status::Standby);
                continue;
            }
        };
        match held {
            Ok(lease) => return Some(lease),
            Err(error) => {
                if election.fail(Instant::now()) {
                    warn!(lease = %policy.lease, error = %chain(&error), "cannot try for the lease");
                    owner.status(Status::Unreachable);
                }
                failover.get_or_insert_with(|| bus.server_failover());
                debug_assert_eq!(election.status(), CandidateStatus::Unreachable);
                sleep(RETRY_DELAY).await;
            }
        }
    }
}

/// Leads as long as the lease is held, loading again as often as needed.
async fn lead_until_lost<O: Owner>(
    owner: &mut O,
    mut leadership: Leadership<'_>,
    stop: &CancellationToken,
) -> Result<StopReason, Error> {
    let policy = leadership.policy;
    let mut unwritable = leadership.bus.unwritable();
    while leadership.lease.is_held() {
        if policy.when_unwritable == WhenUnwritable::Reload {
            // What is loaded now could not be changed.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(StopReason::Shutdown),
                () = leadership.lease.lost() => return Ok(StopReason::LeaseLost),
                // An error means that the connection is closed, which ends everything else as well.
                _ = unwritable.wait_for(BTreeSet::is_empty) => {}
            }
        }
        let loaded = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(StopReason::Shutdown),
            () = leadership.lease.lost() => return Ok(StopReason::LeaseLost),
            loaded = owner.load() => loaded,
        };
        let reason = match loaded {
            Ok(term) => match serve(owner, &mut leadership, term, stop).await? {
                Outcome::Stopped(reason) => return Ok(reason),
                Outcome::Reload(reason) => reason,
            },
            Err(reason) => reason,
        };
        owner.status(Status::Reloading);
        warn!(lease = %policy.lease, error = %chain(&reason), "reloading state");
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(StopReason::Shutdown),
            () = sleep(RETRY_DELAY) => {}
        }
    }
    Ok(StopReason::LeaseLost)
}
