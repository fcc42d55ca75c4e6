//! The listener: binds, serves, and leaves without cutting anybody off.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
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
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{info, warn};

use crate::admit;
use crate::auth::Keys;
use crate::config::EdgeConfig;
use crate::cors;
use crate::error::Error;
use crate::feeds::Feeds;
use crate::gate::Gate;
use crate::middleware;
use crate::pace::Paces;
use crate::pools::Pools;
use crate::rate::RateLimit;
use crate::ready::watch_bus;
use crate::run_rate::RunRate;
use crate::state::{App, Inner, Places};

/// Most bytes of the head of a request; more is answered 431.
const HEAD_BYTES: usize = 64 * 1024;
/// Requests at once of one connection of HTTP/2.
const STREAMS_OF_CONNECTION: u32 = 200;
/// Large pictures that are drawn at the same time; the others wait for their next step.
const DRAWN_AT_ONCE: usize = 1;
/// How long the edge's own tasks may take to end after its last request.
const END: Duration = Duration::from_secs(2);

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
        let (grace, patience) = (config.shutdown_grace, config.head_timeout);
        let connections = Places::new(config.max_connections_per_address);
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
                .map(RateLimit::new),
            run_rate: config
                .run_rate
                .map(|limit| RunRate::new(limit, bus.clone())),
            shutdown: shutdown.child_token(),
            streams: Places::new(config.max_streams_per_address),
            paces: Paces::default(),
            drawing: Semaphore::new(DRAWN_AT_ONCE),
            config,
            bus,
            pools,
            health,
            prometheus,
        });
        let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
        let handle = Handle::new();
        let leaving = leave(handle.clone(), shutdown, grace);
        tasks.spawn("leave", ExitPolicy::Optional, infallible(leaving));
        info!(%address, "serves");
        let served = match tls {
            None => match axum_server::from_tcp(listener) {
                Ok(server) => {
                    let mut server = server.map(|inner| Gate::new(inner, connections, patience));
                    bound(server.http_builder(), patience);
                    server.handle(handle).serve(service).await
                }
                Err(error) => Err(error),
            },
            Some(tls) => match axum_server::from_tcp_rustls(listener, tls) {
                Ok(server) => {
                    let mut server = server.map(|inner| Gate::new(inner, connections, patience));
                    bound(server.http_builder(), patience);
                    server.handle(handle).serve(service).await
                }
                Err(error) => Err(error),
            },
        };
        let report = tasks.shutdown(END).await;
        if !report.is_clean() {
            warn!(aborted = ?report.aborted, "some tasks of the edge did not end in time");
        }
        served.map_err(|source| Error::Serve { address, source })
    }
}

/// Bounds how long a client may take to say what it wants, and how much it may say before it is heard.
fn bound(builder: &mut Builder<TokioExecutor>, patience: Duration) {
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(patience))
        .max_concurrent_streams(STREAMS_OF_CONNECTION)
        .max_header_list_size(HEAD_BYTES as u32);
}

async fn infallible(work: impl Future<Output = ()>) -> Result<(), std::convert::Infallible> {
    work.await;
    Ok(())
}

async fn leave(handle: Handle<SocketAddr>, shutdown: CancellationToken, grace: Duration) {
    shutdown.cancelled().await;
    info!("leaves: finishes open requests");
    handle.graceful_shutdown(Some(grace));
}

/// All routes behind everything that a request passes through; see [`middleware`].
fn router(app: App) -> Router {
    let mut api = aide::openapi::OpenApi::default();
    let documented = crate::openapi::routes().finish_api(&mut api);
    let routes = documented
        .merge(crate::sockets::routes())
        .merge(crate::pages::routes())
        .fallback(async || crate::error::HttpError::not_found())
        .layer(from_fn_with_state(app.clone(), admit::admit));
    let cors = cors::layer(&app.config.cors_origins);
    let routes = routes.layer(from_fn_with_state(cors, cors::answer));
    wrapped(routes).with_state(app)
}

/// What stands around every route, and needs to know nothing of it.
fn wrapped<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .layer(from_fn(middleware::observe))
        .layer(CatchPanicLayer::custom(middleware::panicked))
        .layer(from_fn(middleware::finish))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use axum::routing::get;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    #[expect(clippy::panic, reason = "this is what is tested")]
    async fn broken() {
        panic!("a secret of the handler");
    }

    #[tokio::test]
    async fn a_panic_is_a_500_with_the_request_id_and_without_its_text() {
        let routes: Router = wrapped(Router::new().route("/", get(broken)));
        let request = Request::get("/").header(middleware::REQUEST_ID, "mine");
        let answer = routes
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.headers()[middleware::REQUEST_ID], "mine");
        let body = axum::body::to_bytes(answer.into_body(), 10_000)
            .await
            .unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"], "INTERNAL");
        assert_eq!(body["requestId"], "mine");
        assert!(!body.to_string().contains("secret"), "{body}");
    }
}
