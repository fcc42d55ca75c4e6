//! Who may ask: the last thing that a request passes through before its handler.
//!
//! Routes of runs have a limit of their own over all edges ([`crate::access::rate_limit::shared`]); all others that ask for a key have the
//! limit per second of each edge ([`crate::access::rate_limit::local`]).

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use quintet_contract::error::ErrorCode;

use crate::access::identity::{Caller, Role};
use crate::access::rate_limit::shared::{RateLimitStatus, Verdict};
use crate::error::HttpError;
use crate::frames::{STATS_SOCKET, is_of_frames, is_worker_socket};
use crate::runs::Mount;
use crate::service::tickets::TICKETS;
use crate::state::App;

/// Requests about runs in a window.
pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
/// How many of them are left.
pub(crate) const RATE_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
/// In how many seconds the window ends.
pub(crate) const RATE_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Longest path with its query.
const MAX_URI_BYTES: usize = 8 * 1024;

/// Finds out who asks, and whether they may, and not too often.
pub(crate) async fn authorize(
    State(app): State<App>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let is_of_runs = Mount::of(request.uri().path()).is_some();
    let authenticate = authenticate(&app, &request);
    let status = match (&app.run_rate, &authenticate) {
        (Some(rate), Ok(Some(caller))) if is_of_runs => {
            Some(rate.check(&identity(&app, caller, address)).await)
        }
        _ => None,
    };
    let permit = authenticate.and_then(|caller| match caller {
        None => Ok(()),
        Some(caller) => permit(&app, address, &mut request, caller, status.as_ref()),
    });
    let mut response = match permit {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    if let Some(status) = &status {
        let headers = response.headers_mut();
        for (name, value) in rate_headers(status) {
            headers.insert(name, value.into());
        }
    }
    response
}

/// Who asks, or why that is not known.
type Authentication = Result<Caller, HttpError>;

/// Looks at a request; none for one that everybody may make.
fn authenticate(app: &App, request: &Request) -> Result<Option<Authentication>, HttpError> {
    if request
        .uri()
        .path_and_query()
        .is_some_and(|address| address.as_str().len() > MAX_URI_BYTES)
    {
        let text = format!("the address is longer than {MAX_URI_BYTES} bytes; send less in it");
        return Err(HttpError::new(ErrorCode::UriTooLong, text));
    }
    let path = request.uri().path();
    if !is_guarded(path) || request.method() == Method::OPTIONS {
        return Ok(None);
    }
    let query = request.uri().query().filter(|_| takes_token(path));
    let token = query.and_then(token_of);
    Ok(Some(app.keys.caller(request.headers(), token.as_deref())))
}

/// Whose requests are counted together: those with one key, else those from one address.
fn identity(app: &App, caller: &Authentication, address: SocketAddr) -> String {
    match caller {
        Ok(caller) if !app.config.api_keys.is_empty() => format!("key {}", caller.name),
        Ok(_) | Err(_) => format!("address {}", address.ip()),
    }
}

fn permit(
    app: &App,
    address: SocketAddr,
    request: &mut Request,
    caller: Authentication,
    status: Option<&RateLimitStatus>,
) -> Result<(), HttpError> {
    let path = request.uri().path();
    let is_of_runs = Mount::of(path).is_some();
    match status {
        Some(status) if status.verdict == Verdict::Rejected => return Err(rate_limited(status)),
        Some(_) => {}
        None if is_of_runs => {}
        None => {
            if let Some(rate) = &app.rate {
                rate.check(&identity(app, &caller, address))?;
            }
        }
    }
    let caller = match caller {
        Err(error) if is_of_runs => return Err(error.said("unauthorized")),
        caller => caller?,
    };
    if !only_reads(request.method(), path) && caller.role < Role::Operator {
        let text = format!(
            "the key of {} may only read; this needs the role operator",
            caller.name
        );
        return Err(HttpError::new(ErrorCode::Forbidden, text));
    }
    request.extensions_mut().insert(caller);
    Ok(())
}

/// Whether a request changes nothing. On the socket of a worker frames come in.
fn only_reads(method: &Method, path: &str) -> bool {
    let is_get = matches!(*method, Method::GET | Method::HEAD);
    path == TICKETS || (is_get && !is_worker_socket(path))
}

/// Too many requests about runs.
fn rate_limited(status: &RateLimitStatus) -> HttpError {
    let text = format!(
        "more than {} requests in this stretch of time; it ends in {} s",
        status.limit,
        seconds(status)
    );
    HttpError::new(ErrorCode::RateLimited, "rate_limited").hint(text)
}

fn rate_headers(status: &RateLimitStatus) -> Vec<(HeaderName, u64)> {
    let mut headers = vec![
        (RATE_LIMIT, status.limit),
        (RATE_REMAINING, status.remaining),
        (RATE_RESET, seconds(status)),
    ];
    if status.verdict == Verdict::Rejected {
        headers.push((RETRY_AFTER, seconds(status)));
    }
    headers
}

fn seconds(status: &RateLimitStatus) -> u64 {
    status
        .reset
        .as_millis()
        .div_ceil(1000)
        .try_into()
        .unwrap_or(u64::MAX)
}

/// Whether a path is only for those who may.
pub(crate) fn is_guarded(path: &str) -> bool {
    path.starts_with("/v1/") || path == "/ui" || is_of_frames(path) || Mount::of(path).is_some()
}

/// Whether the key may stand in the address: a browser's event streams and sockets cannot send headers.
pub(crate) fn takes_token(path: &str) -> bool {
    let is_socket = path == "/ui" || path == STATS_SOCKET || is_worker_socket(path);
    is_socket || path.ends_with("/events") || path.ends_with("/logs")
}

fn token_of(query: &str) -> Option<String> {
    let params = axum::extract::Query::<std::collections::HashMap<String, String>>::try_from_uri(
        &format!("/?{query}").parse().ok()?,
    );
    params.ok()?.0.remove("token")
}
