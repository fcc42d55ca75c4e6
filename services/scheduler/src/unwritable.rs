//! Rejects requests while a bucket is unwritable. The bus finds out when it is writable again.
//!
//! A bucket that takes no writes stops everything a scheduler does, the lease included. Requests are rejected then with
//! the reason, at once and by every scheduler that notices, instead of waiting for a leader that cannot be. Reads of single
//! records continue: the edge reads them itself.

use std::collections::BTreeSet;

use futures::StreamExt;
use quintet_bus::Bus;
use quintet_contract::error::ErrorReply;
use quintet_contract::id::PoolName;
use quintet_service::health::ComponentHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::error::Error;
use crate::inbound::{Inbox, open_services};

/// Why rejecting ended.
#[derive(PartialEq, Eq)]
enum Outcome {
    /// NATS stores again.
    Writable,
    /// The scheduler or its connection ends.
    Closed,
}

/// Rejects requests whenever NATS stores nothing, until `shutdown`.
pub(crate) async fn reject_while_unwritable(
    bus: Bus,
    pool: PoolName,
    health: ComponentHandle,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut silent = bus.unwritable();
    loop {
        let found = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            found = silent.wait_for(|buckets| !buckets.is_empty()) => found.map(|buckets| buckets.clone()),
        };
        let Ok(buckets) = found else { return Ok(()) };
        let Some(bucket) = buckets.first() else {
            continue;
        };
        let reply = ErrorReply::unwritable(bucket);
        error!(
            ?buckets,
            "NATS stores nothing: its disk is full, or most of its cluster is away"
        );
        health.not_ready(reply.error.clone());
        if reject(&bus, &pool, &mut silent, &reply, &shutdown).await? == Outcome::Closed {
            return Ok(());
        }
        health.ready();
        info!("NATS stores again");
    }
}

/// Rejects every request until all buckets store.
async fn reject(
    bus: &Bus,
    pool: &PoolName,
    silent: &mut watch::Receiver<BTreeSet<String>>,
    reply: &ErrorReply,
    shutdown: &CancellationToken,
) -> Result<Outcome, Error> {
    let mut inbox = Inbox::new(bus, "scheduler");
    open_services(&mut inbox, pool).await?;
    let _search = bus.server_failover();
    let end = loop {
        // Each branch is cancel-safe: a stream keeps what was not taken.
        let request = tokio::select! {
            biased;
            () = shutdown.cancelled() => break Outcome::Closed,
            _ = silent.wait_for(BTreeSet::is_empty) => break Outcome::Writable,
            request = inbox.messages.next() => request,
        };
        match request {
            Some(request) => request.reject(reply).await,
            None => break Outcome::Closed,
        }
    };
    inbox.close(reply).await;
    Ok(end)
}
