//! Membership: the runners, and which of them should own which shard.
//!
//! Every runner sends a heartbeat once a second. Each computes in the same way which one should own a shard: the one whose
//! name and the shard's number make the highest digest (rendezvous hashing), so that a runner that comes or goes moves
//! only its own share. That is advice; what decides is the lease.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use quintet_bus::Bus;
use quintet_contract::api::Done;
use quintet_contract::id::{HolderId, RunShard};
use quintet_contract::subject::RunnerHeartbeat;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::error::Error;

/// How often a runner sends a heartbeat.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// A runner without a heartbeat for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(3);

/// The runners that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peers(Vec<HolderId>);

impl Peers {
    pub(crate) fn only(me: HolderId) -> Self {
        Self(vec![me])
    }

    /// Whether this runner should own a shard.
    pub(crate) fn prefer(&self, me: &HolderId, shard: RunShard) -> bool {
        let weight = |holder: &HolderId| Sha256::digest(format!("{shard}/{holder}").as_bytes());
        self.0.iter().max_by_key(|holder| weight(holder)) == Some(me)
    }
}

/// Sends heartbeats of this runner, and receives those of the others, until `shutdown`.
pub(crate) async fn run_membership(
    bus: Bus,
    me: HolderId,
    known: watch::Sender<Peers>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let filter = RunnerHeartbeat::filter(bus.prefix(), None);
    let heartbeats = bus.subscribe::<RunnerHeartbeat>(filter).await;
    let mut heartbeats =
        heartbeats.map_err(quintet_leader::Error::subscribing("the other runners"))?;
    let mut others: HashMap<HolderId, Instant> = HashMap::new();
    let mut clock = interval(HEARTBEAT_INTERVAL);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let subject = RunnerHeartbeat { runner: me.clone() };
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            Some(delivery) = heartbeats.next() => {
                let runner = delivery.subject.runner;
                if !delivery.message.ok {
                    others.remove(&runner);
                } else if runner != me {
                    others.insert(runner, Instant::now());
                }
            }
            _ = clock.tick() => {
                // Lost ones come again in a second.
                let _ = bus.publish(&subject, &Done { ok: true }).await;
            }
        }
        others.retain(|_, at| at.elapsed() < GONE_AFTER);
        let mut all: Vec<HolderId> = others.keys().cloned().collect();
        all.push(me.clone());
        all.sort();
        known.send_if_modified(|peers| {
            let is_new = peers.0 != all;
            if is_new {
                info!(runners = all.len(), "the runners changed");
                peers.0 = all;
            }
            is_new
        });
    }
}

/// Announces that this runner leaves, so that the others need not wait for it.
pub(crate) async fn announce_leave(bus: &Bus, me: &HolderId) {
    let subject = RunnerHeartbeat { runner: me.clone() };
    let _ = bus.publish(&subject, &Done { ok: false }).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_one_owner_and_a_newcomer_takes_only_its_share() {
        let names = ["a", "b", "c"].map(|name| HolderId::parse(name).unwrap());
        let owner = |peers: &Peers, shard| {
            let owners: Vec<&HolderId> = peers
                .0
                .iter()
                .filter(|me| peers.prefer(me, shard))
                .collect();
            assert_eq!(owners.len(), 1);
            owners[0].clone()
        };
        let two = Peers(names[..2].to_vec());
        let three = Peers(names.to_vec());
        for shard in RunShard::all() {
            let (before, after) = (owner(&two, shard), owner(&three, shard));
            assert!(before == after || after == names[2], "{shard}");
        }
    }
}
