//! The listener: binds, serves, and shuts down without cutting open requests off.

pub(crate) mod accept;
mod health;
mod tls;

pub use self::health::serve_health;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use quintet_service::tasks::{ExitPolicy, Tasks};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::accept::ConnectionLimiter;
use crate::access::quota::ConnectionQuota;
use crate::config::EdgeConfig;
use crate::error::Error;

/// Most bytes of the head of a request; more is answered 431.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Requests at once of one connection of HTTP/2.
const MAX_HTTP2_STREAMS: u32 = 200;

/// An address that is taken, and not served yet.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<RustlsConfig>,
}

/// How connections are served.
#[derive(Clone, Debug)]
pub(crate) struct ServeOptions {
    /// How many one address may have.
    pub(crate) connections: ConnectionQuota,
    /// How long a client may take to send the head of a request.
    pub(crate) head_timeout: Duration,
    /// How long open requests may take to finish after the shutdown.
    pub(crate) grace: Duration,
}

impl Listener {
    /// Takes the address, and reads the certificate if there is one.
    pub(crate) async fn bind(config: &EdgeConfig) -> Result<Self, Error> {
        let failed = |source| Error::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let tls = match &config.tls {
            None => None,
            Some(files) => Some(tls::load(files).await?),
        };
        Ok(Self {
            listener,
            address,
            tls,
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then finishes open requests.
    pub(crate) async fn serve(
        self,
        router: Router,
        options: ServeOptions,
        tasks: &Tasks,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let ServeOptions {
            connections,
            head_timeout,
            grace,
        } = options;
        let Self {
            listener,
            address,
            tls,
        } = self;
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let handle = Handle::new();
        let draining = drain(handle.clone(), shutdown, grace);
        tasks.spawn("drain", ExitPolicy::Optional, infallible(draining));
        info!(%address, "listening");
        let served = match tls {
            None => match axum_server::from_tcp(listener) {
                Ok(server) => {
                    let mut server = server
                        .map(|inner| ConnectionLimiter::new(inner, connections, head_timeout));
                    set_limits(server.http_builder(), head_timeout);
                    server.handle(handle).serve(service).await
                }
                Err(error) => Err(error),
            },
            Some(tls) => match axum_server::from_tcp_rustls(listener, tls) {
                Ok(server) => {
                    let mut server = server
                        .map(|inner| ConnectionLimiter::new(inner, connections, head_timeout));
                    set_limits(server.http_builder(), head_timeout);
                    server.handle(handle).serve(service).await
                }
                Err(error) => Err(error),
            },
        };
        served.map_err(|source| Error::Serve { address, source })
    }
}

/// Bounds how long a client may take to send the head of a request, and how large that may be.
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
    info!("leaving: finishing open requests");
    handle.graceful_shutdown(Some(grace));
}
