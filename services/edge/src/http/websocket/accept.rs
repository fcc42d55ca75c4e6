//! Accepting WebSockets: a place in the quota of the client's address, the handshake, and a task for each socket that the
//! edge's shutdown waits for.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRef, FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use quintet_contract::error::ErrorCode;
use quintet_service::tasks::{ExitPolicy, Tasks};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::access::AccessState;
use crate::access::quota::{ConnectionQuota, QuotaPermit};
use crate::error::HttpError;
use crate::http::extract::Client;
use crate::metrics::OpenStream;

/// The server's end of a WebSocket.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What sockets are opened with; a part of the state of every router that has some.
#[derive(Clone)]
pub(crate) struct Sockets {
    /// How many may be open from one address.
    pub(crate) quota: ConnectionQuota,
    /// The parent of their tasks.
    pub(crate) tasks: Tasks,
}

/// A request for a WebSocket that has its place in the quota.
pub(crate) struct SocketUpgrade {
    request: Request,
    tasks: Tasks,
    permit: QuotaPermit,
}

/// How a socket is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    /// What it is called in metrics and tasks.
    pub(crate) kind: &'static str,
    /// Largest message that the client may send, in bytes.
    pub(crate) max_message: usize,
    /// Bytes that are read at once; every socket keeps room for as much.
    pub(crate) read_buffer: usize,
}

impl<S: Send + Sync> FromRequest<S> for SocketUpgrade
where
    Arc<AccessState>: FromRef<S>,
    Sockets: FromRef<S>,
{
    type Rejection = HttpError;

    async fn from_request(request: Request, state: &S) -> Result<Self, HttpError> {
        let (mut parts, body) = request.into_parts();
        let Client(address) = Client::from_request_parts(&mut parts, state).await?;
        let Sockets { quota, tasks } = Sockets::from_ref(state);
        Ok(Self {
            permit: quota.acquire(address)?,
            tasks,
            request: Request::from_parts(parts, body),
        })
    }
}

impl SocketUpgrade {
    /// Answers the request, and runs `serve` on the socket in a task of its own.
    pub(crate) fn accept<F>(
        self,
        options: SocketOptions,
        serve: impl FnOnce(Socket) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send,
    {
        let Self {
            mut request,
            tasks,
            permit,
        } = self;
        let Ok(answer) = create_response_with_body(&request, Body::empty) else {
            let text = "this address takes WebSockets only; see /docs for their messages";
            return HttpError::new(ErrorCode::BadRequest, text).into_response();
        };
        let upgrade = hyper::upgrade::on(&mut request);
        tasks.spawn(options.kind, ExitPolicy::Optional, async move {
            // What cannot be upgraded is gone.
            if let Ok(upgraded) = upgrade.await {
                let config = WebSocketConfig::default()
                    .read_buffer_size(options.read_buffer)
                    .write_buffer_size(0)
                    .max_message_size(Some(options.max_message))
                    .max_frame_size(Some(options.max_message));
                let io = TokioIo::new(upgraded);
                let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
                let _open = OpenStream::new(options.kind);
                serve(socket).await;
            }
            drop(permit);
            Ok::<_, Infallible>(())
        });
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use axum::Router;
    use axum::extract::State;
    use axum::routing::get;
    use futures::{SinkExt, StreamExt};
    use quintet_bus::{Bus, BusConfig};
    use quintet_service::health::Health;
    use quintet_service::telemetry::Telemetry;
    use quintet_testkit::Nats;
    use tokio_tungstenite::connect_async;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::EdgeConfig;
    use crate::state::{App, Context};

    const OPTIONS: SocketOptions = SocketOptions {
        kind: "test",
        max_message: 1024,
        read_buffer: 512,
    };

    /// An address that takes sockets, whose sessions end when the client has confirmed the shutdown.
    async fn serve(app: App, is_closed: Arc<AtomicBool>, tasks: &Tasks) -> SocketAddr {
        let connect = async move |State(app): State<App>, upgrade: SocketUpgrade| {
            upgrade.accept(OPTIONS, move |mut socket| async move {
                app.shutdown.cancelled().await;
                let _ = socket.next().await;
                is_closed.store(true, Ordering::Relaxed);
            })
        };
        let router = Router::new()
            .route("/", get(connect))
            .with_state(app.clone());
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = axum::serve(listener, service).into_future();
        tasks.spawn("serve", ExitPolicy::Optional, serving);
        address
    }

    #[tokio::test]
    async fn a_shutdown_waits_for_open_sockets() {
        let nats = Nats::start().await.unwrap();
        let bus = Bus::connect(BusConfig::open(nats.url(), "edge-sockets"))
            .await
            .unwrap();
        let (tasks, stop) = (Tasks::new("edge"), CancellationToken::new());
        let context = Context {
            bus,
            health: Health::new("edge"),
            prometheus: Telemetry::for_tests().prometheus(),
        };
        let config = EdgeConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        let app = App::start(config, context, &tasks, stop.clone());
        let is_closed = Arc::<AtomicBool>::default();
        let listener = Tasks::new("listener");
        let address = serve(app.clone(), is_closed.clone(), &listener).await;
        let (mut client, _) = connect_async(format!("ws://{address}/")).await.unwrap();
        stop.cancel();
        let mut ending = pin!(app.sockets.shutdown(Duration::from_secs(10)));
        assert!(futures::poll!(&mut ending).is_pending(), "one is open");
        client.send(Message::text("bye")).await.unwrap();
        assert!(ending.await.is_clean());
        assert!(is_closed.load(Ordering::Relaxed));
        let _ = listener.shutdown(Duration::ZERO).await;
    }
}
