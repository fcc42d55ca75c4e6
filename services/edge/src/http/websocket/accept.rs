//! Accepting WebSockets: a place in the quota of the client's address, the handshake, and a task for each socket that the
//! edge's shutdown waits for.

use std::convert::Infallible;
use std::future::Future;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use quintet_contract::error::ErrorCode;
use quintet_service::tasks::{ExitPolicy, Tasks};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::access::quota::QuotaPermit;
use crate::error::HttpError;
use crate::http::extract::Client;
use crate::metrics::OpenStream;
use crate::state::App;

/// The server's end of a WebSocket.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

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

impl FromRequest<App> for SocketUpgrade {
    type Rejection = HttpError;

    async fn from_request(request: Request, app: &App) -> Result<Self, HttpError> {
        let (mut parts, body) = request.into_parts();
        let Client(address) = Client::from_request_parts(&mut parts, app).await?;
        Ok(Self {
            permit: app.streams.acquire(address)?,
            tasks: app.sockets.clone(),
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
            let text = "this address takes WebSockets only; see /docs for what they say";
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
