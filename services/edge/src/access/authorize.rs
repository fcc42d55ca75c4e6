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
use crate::access::rate_limit::shared::{Standing, Verdict};
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
const ADDRESS_BYTES: usize = 8 * 1024;

/// Finds out who asks, and whether they may, and not too often.
pub(crate) async fn admit(
    State(app): State<App>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let is_of_runs = Mount::of(request.uri().path()).is_some();
    let checked = checked(&app, &request);
    let standing = match (&app.run_rate, &checked) {
        (Some(rate), Ok(Some(asked))) if is_of_runs => {
            Some(rate.check(&identity(&app, asked, address)).await)
        }
        _ => None,
    };
    let admitted = checked.and_then(|asked| match asked {
        None => Ok(()),
        Some(asked) => admitted(&app, address, &mut request, asked, standing.as_ref()),
    });
    let mut response = match admitted {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    if let Some(standing) = &standing {
        let headers = response.headers_mut();
        for (name, value) in rate_headers(standing) {
            headers.insert(name, value.into());
        }
    }
    response
}

/// Who asks, or why that is not known.
type Asked = Result<Caller, HttpError>;

/// Looks at a request; none for one that everybody may make.
fn checked(app: &App, request: &Request) -> Result<Option<Asked>, HttpError> {
    if request
        .uri()
        .path_and_query()
        .is_some_and(|address| address.as_str().len() > ADDRESS_BYTES)
    {
        let text = format!("the address is longer than {ADDRESS_BYTES} bytes; send less in it");
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
fn identity(app: &App, asked: &Asked, address: SocketAddr) -> String {
    match asked {
        Ok(caller) if !app.config.api_keys.is_empty() => format!("key {}", caller.name),
        Ok(_) | Err(_) => format!("address {}", address.ip()),
    }
}

fn admitted(
    app: &App,
    address: SocketAddr,
    request: &mut Request,
    asked: Asked,
    standing: Option<&Standing>,
) -> Result<(), HttpError> {
    let path = request.uri().path();
    let is_of_runs = Mount::of(path).is_some();
    match standing {
        Some(standing) if standing.verdict == Verdict::Refused => return Err(limited(standing)),
        Some(_) => {}
        None if is_of_runs => {}
        None => {
            if let Some(rate) = &app.rate {
                rate.check(&identity(app, &asked, address))?;
            }
        }
    }
    let caller = match asked {
        Err(error) if is_of_runs => return Err(error.said("unauthorized")),
        asked => asked?,
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
fn limited(standing: &Standing) -> HttpError {
    let text = format!(
        "more than {} requests in this stretch of time; it ends in {} s",
        standing.limit,
        seconds(standing)
    );
    HttpError::new(ErrorCode::RateLimited, "rate_limited").hint(text)
}

fn rate_headers(standing: &Standing) -> Vec<(HeaderName, u64)> {
    let mut headers = vec![
        (RATE_LIMIT, standing.limit),
        (RATE_REMAINING, standing.remaining),
        (RATE_RESET, seconds(standing)),
    ];
    if standing.verdict == Verdict::Refused {
        headers.push((RETRY_AFTER, seconds(standing)));
    }
    headers
}

fn seconds(standing: &Standing) -> u64 {
    standing
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
