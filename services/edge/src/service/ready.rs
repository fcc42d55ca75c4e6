//! Readiness of an edge, whether it can serve requests: the bus is there, its streams and buckets are as they should be, and
//! what is asked to be stored is stored.
//!
//! The last only a scheduler knows. A missing leader is no reason to send callers elsewhere: any other edge would find
//! the same, and it passes within seconds; but then the bus itself is checked.

use std::time::Duration;

use quintet_bus::{Bus, LinkState, RequestError};
use quintet_contract::api::ListJobs;
use quintet_contract::id::PoolName;
use quintet_contract::subject::ListJobsOf;
use quintet_service::health::ComponentHandle;
use quintet_service::telemetry::chain;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Wait between two polls.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a scheduler may take to answer a poll.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the streams and buckets are verified while all is well.
const VERIFY_INTERVAL: Duration = Duration::from_secs(30);
/// How long NATS may take to describe them all.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer of the scheduler of the default pool.
enum Leader {
    Answers,
    Unwritable(String),
    Silent,
}

/// Keeps the health component of the bus.
pub(crate) async fn watch_bus(bus: Bus, component: ComponentHandle, shutdown: CancellationToken) {
    let mut link = bus.link();
    // When the streams and buckets were last found to be there.
    let mut verified: Option<Instant> = None;
    // Held while they are not.
    let mut search = None;
    loop {
        let connected = *link.borrow_and_update() == LinkState::Connected;
        if !connected {
            component.not_ready("not connected to NATS");
            verified = None;
            search = None;
        } else {
            match probe(&bus).await {
                Leader::Unwritable(why) => {
                    component.not_ready(why);
                    verified = None;
                    // That scheduler may be cut off together with this edge.
                    search = search.or_else(|| Some(bus.server_failover()));
                }
                Leader::Answers if verified.is_some_and(|at| at.elapsed() < VERIFY_INTERVAL) => {}
                Leader::Answers | Leader::Silent => {
                    verified = verify(&bus, &component).await.then(Instant::now);
                    search = match verified {
                        Some(_) => None,
                        None => search.or_else(|| Some(bus.server_failover())),
                    };
                }
            }
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            changed = link.changed() => if changed.is_err() { return },
            () = sleep(POLL_INTERVAL) => {}
        }
    }
}

/// The smallest request that a leader answers.
async fn probe(bus: &Bus) -> Leader {
    let subject = ListJobsOf {
        pool: PoolName::default(),
    };
    let message = ListJobs {
        limit: Some(1),
        ..ListJobs::default()
    };
    match bus.request(&subject, &message, REQUEST_TIMEOUT).await {
        Ok(_) => Leader::Answers,
        Err(RequestError::Refused(reply)) if reply.is_unwritable() => {
            Leader::Unwritable(reply.error)
        }
        Err(_) => Leader::Silent,
    }
}

/// Whether everything is there.
async fn verify(bus: &Bus, component: &ComponentHandle) -> bool {
    let found = match timeout(VERIFY_TIMEOUT, bus.verify_topology()).await {
        Ok(found) => found,
        Err(_) => {
            component.not_ready(
                "NATS does not report the status of its streams; most of its cluster may be away",
            );
            return false;
        }
    };
    match found {
        Ok(report) if report.is_ok() => component.ready(),
        Ok(report) if report.is_usable() => component.degraded(report.problems().join("; ")),
        Ok(report) => {
            component.not_ready(report.problems().join("; "));
            return false;
        }
        Err(error) => {
            component.not_ready(chain(&error).to_string());
            return false;
        }
    }
    true
}
