//! Shared state of every handler: the bus, access, live views, and the shutdown; nothing of a kind of work.

use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;

use quintet_bus::Bus;
use quintet_contract::subject::Request;
use quintet_service::health::Health;
use quintet_service::tasks::{ExitPolicy, Tasks};
use quintet_service::telemetry::Prometheus;
use tokio_util::sync::CancellationToken;

use crate::access::authenticate::Authenticator;
use crate::access::authorize::AccessState;
use crate::access::origin::OriginPolicy;
use crate::access::quota::ConnectionQuota;
use crate::access::rate_limit::local::LocalRateLimit;
use crate::access::rate_limit::shared::SharedRateLimit;
use crate::config::EdgeConfig;
use crate::error::HttpError;
use crate::live::Live;

/// The edge, as its handlers see it; clones are the same.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: EdgeConfig,
    pub(crate) bus: Bus,
    pub(crate) health: Health,
    pub(crate) prometheus: Prometheus,
    pub(crate) access: Arc<AccessState>,
    pub(crate) live: Live,
    /// Open WebSockets and event streams.
    pub(crate) streams: ConnectionQuota,
    /// The tasks of open WebSockets.
    pub(crate) sockets: Tasks,
    /// Cancelled when the edge shuts down: streams end, sockets close.
    pub(crate) shutdown: CancellationToken,
}

impl App {
    /// An edge whose tasks are `tasks`, and which shuts down with `shutdown`.
    #[expect(
        clippy::too_many_arguments,
        reason = "what an edge is started with has no other common owner"
    )]
    pub(crate) fn start(
        config: EdgeConfig,
        bus: Bus,
        health: Health,
        prometheus: Prometheus,
        tasks: &Tasks,
        shutdown: CancellationToken,
    ) -> Self {
        let local = config.rate_limit.and_then(NonZeroU32::new);
        let shared = config.run_rate;
        let access = AccessState {
            keys: Authenticator::new(&config.api_keys, config.open_to),
            origins: OriginPolicy::new(&config.allowed_hosts, &config.cors_origins),
            trusted_proxies: config.trusted_proxies.clone(),
            local: local.map(LocalRateLimit::new),
            shared: shared.map(|limit| SharedRateLimit::new(limit, bus.clone())),
        };
        Self(Arc::new(Inner {
            access: Arc::new(access),
            live: Live::new(bus.clone(), tasks.clone()),
            streams: ConnectionQuota::new(config.max_streams_per_address),
            sockets: tasks.child("sockets", ExitPolicy::Optional),
            shutdown,
            config,
            bus,
            health,
            prometheus,
        }))
    }

    /// Sends a request until it is answered or its time is over: for requests whose repetition changes nothing.
    pub(crate) async fn request<S: Request>(
        &self,
        subject: &S,
        message: &S::Message,
    ) -> Result<S::Reply, HttpError> {
        let timeout = self.config.request_timeout;
        Ok(self.bus.request_until(subject, message, timeout).await?)
    }
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
