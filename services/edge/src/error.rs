//! Errors of an edge as a whole ([`Error`]), and of one request ([`HttpError`]).
//!
//! A failed request travels as an [`ErrorReply`] in the response's extensions until the outermost middleware, which
//! knows the request's id, writes the body.

use std::net::SocketAddr;
use std::path::PathBuf;

use aide::OperationOutput;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use quintet_bus::{KvError, RequestError};
use quintet_contract::error::{ErrorCode, ErrorReply};
use schemars::JsonSchema;
use serde::Serialize;

/// Why an edge cannot start, or fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is taken, or is none of this machine.
    #[error("cannot listen on {address}; stop what listens there, or choose another port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The certificate or key cannot be used.
    #[error("cannot use the TLS files {cert} and {key}")]
    Tls {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The listener ended.
    #[error("serving HTTP on {address}")]
    Serve {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The body of every error response.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorBody {
    /// One sentence for people.
    error: String,
    /// The machine code.
    code: ErrorCode,
    /// The id of the request, also in `x-request-id`.
    request_id: String,
}

/// A request that failed.
#[derive(Clone, Debug)]
pub(crate) struct HttpError {
    pub(crate) reply: ErrorReply,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Where it is not the one of the code.
    status: Option<StatusCode>,
}

impl HttpError {
    pub(crate) fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        ErrorReply::new(code, error).into()
    }

    pub(crate) fn not_found() -> Self {
        ErrorReply::not_found().into()
    }

    pub(crate) fn invalid(field: &str, error: impl Into<String>) -> Self {
        ErrorReply::invalid(field, error).into()
    }

    /// A body that does not fit, where that is answered 400.
    pub(crate) fn validation_failed(details: Vec<serde_json::Value>) -> Self {
        let reply = ErrorReply::new(ErrorCode::ValidationFailed, "validation failed");
        let mut error = Self::from(reply.with("details", details));
        error.status = Some(StatusCode::BAD_REQUEST);
        error
    }

    /// Adds what to do next, where the sentence of the error is fixed.
    pub(crate) fn hint(mut self, text: impl Into<String>) -> Self {
        self.reply = self.reply.with("hint", text.into());
        self
    }

    /// Replaces the message; the one before becomes the hint.
    pub(crate) fn with_error(mut self, error: &str) -> Self {
        let hint = std::mem::replace(&mut self.reply.error, error.to_owned());
        self.hint(hint)
    }

    /// Adds a header, or replaces its value.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value));
        self
    }
}

impl From<ErrorReply> for HttpError {
    fn from(reply: ErrorReply) -> Self {
        let error = Self {
            headers: Vec::new(),
            reply,
            status: None,
        };
        match error.reply.code {
            // That takes a person.
            ErrorCode::Unavailable if error.reply.is_unwritable() => error.header(
                axum::http::header::RETRY_AFTER,
                HeaderValue::from_static("10"),
            ),
            ErrorCode::Unavailable | ErrorCode::RateLimited => error.header(
                axum::http::header::RETRY_AFTER,
                HeaderValue::from_static("1"),
            ),
            _ => error,
        }
    }
}

impl From<RequestError> for HttpError {
    fn from(error: RequestError) -> Self {
        error.to_reply().into()
    }
}

impl From<KvError> for HttpError {
    fn from(error: KvError) -> Self {
        tracing::warn!(error = %quintet_service::telemetry::chain(&error), "cannot read a bucket");
        ErrorReply::unavailable(
            "the bus does not answer now; send the same request again in a moment",
        )
        .into()
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let of_code = || StatusCode::from_u16(self.reply.code.http_status()).ok();
        let status = self.status.or_else(of_code);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.headers_mut().extend(self.headers);
        response.extensions_mut().insert(self.reply);
        response
    }
}

impl OperationOutput for HttpError {
    type Inner = Self;
}
