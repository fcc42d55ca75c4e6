//! Which runners there are, and which of them should own which shard.
//!
//! Every runner says once a second that it is there. Each finds by the same arithmetic who should own a shard: whoever's
//! name and the shard's number make the highest digest (rendezvous hashing), so that a runner that comes or goes moves
//! only its own share. That is advice; what decides is the lease.

use std::collections::HashMap;
use std::convert::Infallible;
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
use crate::inbound::subscribing;

/// How often a runner says that it is there.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// A runner that was not heard of for so long is gone.
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

/// Says that this runner is there, and hears who else is, until `shutdown`.
pub(crate) async fn meet(
    bus: Bus,
    me: HolderId,
    known: watch::Sender<Peers>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let filter = RunnerHeartbeat::filter(bus.prefix(), None);
    let heard = bus.subscribe::<RunnerHeartbeat>(filter).await;
    let mut heard = heard.map_err(subscribing("the other runners"))?;
    let mut others: HashMap<HolderId, Instant> = HashMap::new();
    let mut clock = interval(SAY_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let subject = RunnerHeartbeat { runner: me.clone() };
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            Some(delivery) = heard.next() => {
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

/// Says that this runner leaves, so that the others need not wait for it.
pub(crate) async fn leave(bus: &Bus, me: &HolderId) -> Result<(), Infallible> {
    let subject = RunnerHeartbeat { runner: me.clone() };
    let _ = bus.publish(&subject, &Done { ok: false }).await;
    Ok(())
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
