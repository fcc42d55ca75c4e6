//! Shared state of every handler: the bus, access, live views, and the shutdown; nothing of a kind of work.
//!
//! Extractors of [`crate::http`] take only the part that they need, by `FromRef`; so HTTP knows nothing of this module.

use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRef;
use quintet_bus::Bus;
use quintet_contract::subject::Request;
use quintet_service::health::Health;
use quintet_service::tasks::{ExitPolicy, Tasks};
use quintet_service::telemetry::Prometheus;
use tokio_util::sync::CancellationToken;

use crate::access::AccessState;
use crate::access::authenticate::Authenticator;
use crate::access::origin::OriginPolicy;
use crate::access::quota::ConnectionQuota;
use crate::access::rate_limit::local::LocalRateLimit;
use crate::access::rate_limit::shared::SharedRateLimit;
use crate::config::EdgeConfig;
use crate::error::HttpError;
use crate::http::extract::BodyLimit;
use crate::http::websocket::accept::Sockets;
use crate::live::Live;

/// What an edge is given by the process that it runs in.
pub(crate) struct Context {
    pub(crate) bus: Bus,
    pub(crate) health: Health,
    pub(crate) prometheus: Prometheus,
}

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
    pub(crate) fn start(
        config: EdgeConfig,
        context: Context,
        tasks: &Tasks,
        shutdown: CancellationToken,
    ) -> Self {
        let Context {
            bus,
            health,
            prometheus,
        } = context;
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

impl FromRef<App> for Arc<AccessState> {
    fn from_ref(app: &App) -> Self {
        app.access.clone()
    }
}

impl FromRef<App> for BodyLimit {
    fn from_ref(app: &App) -> Self {
        Self(app.config.body_limit)
    }
}

impl FromRef<App> for Sockets {
    fn from_ref(app: &App) -> Self {
        Self {
            quota: app.streams.clone(),
            tasks: app.sockets.clone(),
        }
    }
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
