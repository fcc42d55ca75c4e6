//! The edge as a whole: takes an address, serves it, and ends with everything that it started.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use quintet_bus::Bus;
use quintet_service::health::Health;
use quintet_service::tasks::{ExitPolicy, Tasks};
use quintet_service::telemetry::Prometheus;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::access::quota::ConnectionQuota;
use crate::config::EdgeConfig;
use crate::error::Error;
use crate::router::router;
use crate::server::{Listener, ServeOptions};
use crate::service::ready::watch_bus;
use crate::state::{App, Context};

/// How long the keys may take to be read before requests are served all the same.
const KEYS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long open sockets may take to close, and the other tasks to end, after the last request.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// An edge that listens but does not serve yet.
#[derive(Debug)]
pub struct Edge {
    config: EdgeConfig,
    listener: Listener,
}

impl Edge {
    /// Takes the address, and reads the certificate if there is one.
    ///
    /// # Errors
    ///
    /// The address is taken or none of this machine, or certificate and key cannot be used.
    pub async fn bind(config: EdgeConfig) -> Result<Self, Error> {
        let listener = Listener::bind(&config).await?;
        Ok(Self { config, listener })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`; then asks streams and sockets to reconnect elsewhere, finishes requests and returns.
    ///
    /// # Errors
    ///
    /// The listener failed.
    pub async fn serve(
        self,
        bus: Bus,
        health: Health,
        prometheus: Prometheus,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let Self { config, listener } = self;
        let tasks = Tasks::new("edge");
        let watching = watch_bus(bus.clone(), health.component("bus"), tasks.token());
        tasks.spawn("bus", ExitPolicy::Essential, async move {
            watching.await;
            Ok::<_, Infallible>(())
        });
        let options = ServeOptions {
            connections: ConnectionQuota::new(config.max_connections_per_address)
                .with_total(config.max_connections)
                .without(config.trusted_proxies.clone()),
            head_timeout: config.head_timeout,
            grace: config.shutdown_grace,
        };
        let stop = shutdown.child_token();
        let keys_health = health.component("access");
        let context = Context {
            bus: bus.clone(),
            health,
            prometheus,
        };
        let app = App::start(config, context, &tasks, stop.clone());
        let keys = &app.access.keys;
        let following = keys.table.clone();
        let following = following.follow(bus.clone(), keys_health, tasks.token());
        let loading = keys.signer.clone().load(bus, tasks.token());
        tasks.spawn("keys", ExitPolicy::Essential, async move {
            following.await;
            Ok::<_, Infallible>(())
        });
        tasks.spawn("signing secret", ExitPolicy::Optional, async move {
            loading.await;
            Ok::<_, Infallible>(())
        });
        // So that the first requests find the keys; while they are away, those that need one are answered so.
        let _ = timeout(KEYS_TIMEOUT, keys.table.loaded()).await;
        let sockets = app.sockets.clone();
        let served = listener.serve(router(app), options, &tasks, shutdown).await;
        // Also after a failure: sockets are no longer part of the connections that the listener waits for.
        stop.cancel();
        for group in [sockets, tasks] {
            let report = group.shutdown(SHUTDOWN_TIMEOUT).await;
            if !report.is_clean() {
                warn!(group = group.name(), aborted = ?report.aborted, "some tasks did not end in time");
            }
        }
        served
    }
}
