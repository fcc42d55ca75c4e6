//! Leases: their holder, their handover, and that a stale holder is refused.

use std::time::{Duration, Instant};

use quintet_bus::{Bus, HeldLease, LeaseCandidate};
use quintet_contract::bucket::{Lease, LeaseKey, Leases};
use quintet_contract::id::{HolderId, PoolName};

use crate::nats::{Nats, soon};

const TTL: Duration = Duration::from_secs(2);

fn key() -> LeaseKey {
    LeaseKey::Scheduler(PoolName::default())
}

fn candidate(bus: &Bus, name: &str) -> LeaseCandidate {
    bus.lease(key(), HolderId::parse(name).unwrap(), TTL)
}

fn acquire(mut candidate: LeaseCandidate) -> tokio::task::JoinHandle<HeldLease> {
    tokio::spawn(async move { candidate.acquire().await.unwrap() })
}

#[tokio::test]
async fn a_released_lease_passes_on_at_once_and_a_dead_holders_after_its_life() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let first = candidate(&bus, "first").acquire().await.unwrap();
    let second = acquire(candidate(&bus, "second"));
    assert!(first.is_held());

    // Longer than one life: renewals keep it, and the second still waits.
    let renewed = async {
        let bucket = bus.bucket::<Leases>();
        let start = bucket.get(&key()).await.unwrap().unwrap().revision;
        while bucket.get(&key()).await.unwrap().unwrap().revision.0 < start.0 + 4 {
            tokio::task::yield_now().await;
        }
    };
    soon("four renewals", renewed).await;
    assert!(first.is_held() && !second.is_finished());

    let began = Instant::now();
    first.release().await;
    let second = soon("the hand-over", second).await.unwrap();
    assert!(began.elapsed() < TTL / 2, "{:?}", began.elapsed());

    let third = acquire(candidate(&bus, "third"));
    let began = Instant::now();
    drop(second);
    let third = soon("the take-over", third).await.unwrap();
    assert!(
        began.elapsed() > TTL / 4 && began.elapsed() < TTL * 2,
        "{:?}",
        began.elapsed()
    );
    assert!(third.is_held());
}

#[tokio::test]
async fn a_stale_holder_is_refused_and_knows_it() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let mut stale = candidate(&bus, "stale").acquire().await.unwrap();
    let bucket = bus.bucket::<Leases>();
    let usurper = Lease {
        holder: HolderId::parse("usurper").unwrap(),
        since: quintet_bus::now(),
    };
    // A renewal may come between the look and the write: then look again.
    soon("a usurpation", async {
        loop {
            let current = bucket.get(&key()).await.unwrap().unwrap();
            if bucket
                .update(&key(), &usurper, current.revision, Some(TTL * 10))
                .await
                .is_ok()
            {
                break;
            }
        }
    })
    .await;
    soon("the loss", stale.lost()).await;
    assert!(!stale.is_held());
    stale.release().await;
    assert_eq!(bucket.get(&key()).await.unwrap().unwrap().record, usurper);
}

#[tokio::test]
async fn a_holder_without_a_server_loses_its_lease_within_its_life() {
    let mut nats = Nats::start().await;
    let bus = nats.bus().await;
    let mut held = candidate(&bus, "cut off").acquire().await.unwrap();
    nats.kill().await;
    let began = Instant::now();
    soon("the loss", held.lost()).await;
    assert!(
        began.elapsed() < TTL + Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );
    assert!(!held.is_held());

    nats.start_again().await;
    let again = acquire(candidate(&bus, "back"));
    assert!(soon("a new lease", again).await.unwrap().is_held());
}

#[tokio::test]
async fn waiting_can_be_interrupted_and_resumed() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let first = candidate(&bus, "first").acquire().await.unwrap();
    let mut second = candidate(&bus, "second");
    for _ in 0..50 {
        tokio::select! {
            biased;
            _ = second.acquire() => panic!("the first holds it"),
            () = tokio::task::yield_now() => {}
        }
    }
    first.release().await;
    assert!(soon("the lease", second.acquire()).await.unwrap().is_held());
}
