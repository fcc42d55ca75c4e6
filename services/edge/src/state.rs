//! What every handler gets.

use std::ops::Deref;
use std::sync::Arc;

use quintet_bus::Bus;
use quintet_service::health::Health;
use quintet_service::telemetry::Prometheus;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::access::keys::Keys;
use crate::access::quota::ConnectionQuota;
use crate::access::rate_limit::local::LocalRateLimit;
use crate::access::rate_limit::shared::SharedRateLimit;
use crate::config::EdgeConfig;
use crate::jobs::pools::Pools;
use crate::live::Feeds;
use crate::live::write_pacer::WritePacers;

/// The edge, as its handlers see it; clones are the same.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: EdgeConfig,
    pub(crate) bus: Bus,
    pub(crate) pools: Pools,
    pub(crate) feeds: Feeds,
    pub(crate) health: Health,
    pub(crate) prometheus: Prometheus,
    pub(crate) keys: Keys,
    pub(crate) rate: Option<LocalRateLimit>,
    /// The limit of requests about runs.
    pub(crate) run_rate: Option<SharedRateLimit>,
    /// Cancelled when the edge leaves: streams end, sockets close.
    pub(crate) shutdown: CancellationToken,
    /// Open WebSockets and event streams.
    pub(crate) streams: ConnectionQuota,
    pub(crate) pacers: WritePacers,
    /// Held by whoever draws a step of a large picture.
    pub(crate) drawing: Semaphore,
}

impl App {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
