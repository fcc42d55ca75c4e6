//! The listener: binds, serves, and leaves without cutting anybody off.

pub(crate) mod accept;
mod health;

pub use self::health::serve_health;

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use quintet_bus::Bus;
use quintet_service::health::Health;
use quintet_service::tasks::{ExitPolicy, Tasks};
use quintet_service::telemetry::Prometheus;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::access::keys::Keys;
use crate::access::quota::ConnectionQuota;
use crate::access::rate_limit::local::LocalRateLimit;
use crate::access::rate_limit::shared::SharedRateLimit;
use crate::config::EdgeConfig;
use crate::error::Error;
use crate::jobs::pools::Pools;
use crate::live::Feeds;
use crate::live::write_pacer::WritePacers;
use crate::router::router;
use crate::server::accept::ConnectionLimiter;
use crate::service::ready::watch_bus;
use crate::state::{App, Inner};

/// Most bytes of the head of a request; more is answered 431.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Requests at once of one connection of HTTP/2.
const MAX_HTTP2_STREAMS: u32 = 200;
/// Large pictures that are drawn at the same time; the others wait for their next step.
const CONCURRENT_DRAWINGS: usize = 1;
/// How long the edge's own tasks may take to end after its last request.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// An edge that listens but does not serve yet.
#[derive(Debug)]
pub struct Edge {
    config: EdgeConfig,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<RustlsConfig>,
}

impl Edge {
    /// Takes the address, and reads the certificate if there is one.
    pub async fn bind(config: EdgeConfig) -> Result<Self, Error> {
        let failed = |source| Error::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let tls = match &config.tls {
            None => None,
            Some(files) => Some(
                RustlsConfig::from_pem_file(&files.cert, &files.key)
                    .await
                    .map_err(|source| Error::Tls {
                        cert: files.cert.clone(),
                        key: files.key.clone(),
                        source,
                    })?,
            ),
        };
        Ok(Self {
            config,
            listener,
            address,
            tls,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`; then tells streams to go elsewhere, finishes requests and returns.
    pub async fn serve(
        self,
        bus: Bus,
        health: Health,
        prometheus: Prometheus,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let Self {
            config,
            listener,
            address,
            tls,
        } = self;
        let tasks = Tasks::new("edge");
        let (grace, timeout) = (config.shutdown_grace, config.head_timeout);
        let connections = ConnectionQuota::new(config.max_connections_per_address);
        let pools = Pools::new(bus.clone());
        tasks.spawn(
            "pools",
            ExitPolicy::Essential,
            infallible(pools.clone().follow(tasks.token())),
        );
        let watching = watch_bus(bus.clone(), health.component("bus"), tasks.token());
        tasks.spawn("bus", ExitPolicy::Essential, infallible(watching));
        let app = App::new(Inner {
            feeds: Feeds::new(bus.clone(), tasks.clone()),
            keys: Keys::new(config.api_keys.clone()),
            rate: config
                .rate_limit
                .and_then(NonZeroU32::new)
                .map(LocalRateLimit::new),
            run_rate: config
                .run_rate
                .map(|limit| SharedRateLimit::new(limit, bus.clone())),
            shutdown: shutdown.child_token(),
            streams: ConnectionQuota::new(config.max_streams_per_address),
            pacers: WritePacers::default(),
            drawing: Semaphore::new(CONCURRENT_DRAWINGS),
            config,
            bus,
            pools,
            health,
            prometheus,
        });
        let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
        let handle = Handle::new();
        let leaving = drain(handle.clone(), shutdown, grace);
        tasks.spawn("leave", ExitPolicy::Optional, infallible(leaving));
        info!(%address, "serves");
        let served = match tls {
            None => match axum_server::from_tcp(listener) {
                Ok(server) => {
                    let mut server =
                        server.map(|inner| ConnectionLimiter::new(inner, connections, timeout));
                    set_limits(server.http_builder(), timeout);
                    server.handle(handle).serve(service).await
                }
                Err(error) => Err(error),
            },
            Some(tls) => match axum_server::from_tcp_rustls(listener, tls) {
                Ok(server) => {
                    let mut server =
                        server.map(|inner| ConnectionLimiter::new(inner, connections, timeout));
                    set_limits(server.http_builder(), timeout);
                    server.handle(handle).serve(service).await
                }
                Err(error) => Err(error),
            },
        };
        let report = tasks.shutdown(SHUTDOWN_TIMEOUT).await;
        if !report.is_clean() {
            warn!(aborted = ?report.aborted, "some tasks of the edge did not end in time");
        }
        served.map_err(|source| Error::Serve { address, source })
    }
}

/// Bounds how long a client may take to say what it wants, and how much it may say before it is heard.
fn set_limits(builder: &mut Builder<TokioExecutor>, timeout: Duration) {
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(timeout))
        .max_concurrent_streams(MAX_HTTP2_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32);
}

async fn infallible(work: impl Future<Output = ()>) -> Result<(), std::convert::Infallible> {
    work.await;
    Ok(())
}

async fn drain(handle: Handle<SocketAddr>, shutdown: CancellationToken, grace: Duration) {
    shutdown.cancelled().await;
    info!("leaves: finishes open requests");
    handle.graceful_shutdown(Some(grace));
}
