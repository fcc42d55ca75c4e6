//! Rejects requests while a bucket is unwritable. The bus finds out when it is writable again.
//!
//! A bucket that takes no writes stops everything a scheduler does, the lease included. Whoever asks then is told why
//! at once, by every scheduler that notices, instead of waiting for a leader that cannot be. Reads of single records go
//! on: the edge reads them itself.

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
use crate::inbound::{Inbox, refusal};

/// Whether the desk may be needed again.
#[derive(PartialEq, Eq)]
enum Desk {
    /// It may: all is well for now.
    Waits,
    /// It may not: the scheduler or its connection ends.
    Closed,
}

/// Attends until `shutdown`.
pub(crate) async fn attend(
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
        let reply = refusal(&buckets);
        error!(
            ?buckets,
            "NATS stores nothing: its disk is full, or most of its cluster is away"
        );
        health.not_ready(reply.error.clone());
        if turn_away(&bus, &pool, &mut silent, &reply, &shutdown).await? == Desk::Closed {
            return Ok(());
        }
        health.ready();
        info!("NATS stores again");
    }
}

/// Refuses everything that is asked until all buckets store.
async fn turn_away(
    bus: &Bus,
    pool: &PoolName,
    silent: &mut watch::Receiver<BTreeSet<String>>,
    reply: &ErrorReply,
    shutdown: &CancellationToken,
) -> Result<Desk, Error> {
    let mut inbox = Inbox::services(bus, pool).await?;
    let _search = bus.server_failover();
    let desk = loop {
        // Each branch is cancel-safe: a stream keeps what it was not asked for.
        let asked = tokio::select! {
            biased;
            () = shutdown.cancelled() => break Desk::Closed,
            _ = silent.wait_for(BTreeSet::is_empty) => break Desk::Waits,
            asked = inbox.messages.next() => asked,
        };
        match asked {
            Some(asked) => asked.reject(reply).await,
            None => break Desk::Closed,
        }
    };
    inbox.close(reply).await;
    Ok(desk)
}
