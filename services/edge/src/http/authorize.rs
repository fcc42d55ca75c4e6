//! Authorisation: the last thing that a request passes through before its handler. What a route requires is in the
//! [`RouteTable`]; no path is matched here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use quintet_contract::access::Permission;
use quintet_contract::error::ErrorCode;

use super::route::{ErrorStyle, Limit, RouteTable, Target};
use crate::access::AccessState;
use crate::access::authenticate::QueryToken;
use crate::access::client_address::{client_address, limit_address};
use crate::access::identity::Caller;
use crate::access::policy::{Access, Policy};
use crate::access::rate_limit::shared::{RateLimitStatus, Verdict};
use crate::error::HttpError;

/// Requests about runs in a window.
pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
/// How many of them are left.
pub(crate) const RATE_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
/// In how many seconds the window ends.
pub(crate) const RATE_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// On every response to a request that counts against the limit over all edges.
pub(crate) const RATE_HEADERS: [HeaderName; 3] = [RATE_LIMIT, RATE_REMAINING, RATE_RESET];

/// Longest path with its query.
const MAX_URI_BYTES: usize = 8 * 1024;

/// What authorisation needs; clones are the same.
#[derive(Clone)]
pub(crate) struct Authorizer {
    pub(crate) access: Arc<AccessState>,
    pub(crate) routes: Arc<RouteTable>,
}

/// Authenticates the caller and checks what its route requires: rate limit and access.
pub(crate) async fn authorize(
    State(authorizer): State<Authorizer>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let Authorizer { access, routes } = &authorizer;
    if let Err(error) = check_uri(request.uri()) {
        return error.into_response();
    }
    let Some(guard) = guard(routes, &request) else {
        return next.run(request).await;
    };
    let client = client_address(address.ip(), request.headers(), &access.trusted_proxies);
    // A wrong key makes no counter: a client that guesses keys could make as many of them as it likes.
    let caller = match authenticate(access, &guard, &request, client) {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    let counted = identity(&caller, client);
    let status = match (&access.shared, guard.limit) {
        (Some(shared), Limit::Shared) => Some(shared.check(&counted).await),
        _ => None,
    };
    let limit = match (&status, &access.local, guard.limit) {
        (Some(status), ..) if status.verdict == Verdict::Rejected => Err(rate_limited(status)),
        (None, Some(local), Limit::Local) => local.check(&counted),
        _ => Ok(()),
    };
    let allowed = limit.and_then(|()| permit(&guard, caller));
    let mut response = match allowed {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
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

fn check_uri(uri: &Uri) -> Result<(), HttpError> {
    let address = uri.path_and_query().map_or("", PathAndQuery::as_str);
    if address.len() > MAX_URI_BYTES {
        let text = format!("the address is longer than {MAX_URI_BYTES} bytes; send less in it");
        return Err(HttpError::new(ErrorCode::UriTooLong, text));
    }
    Ok(())
}

/// What a request must pass.
struct Guard {
    policy: Policy,
    limit: Limit,
    errors: ErrorStyle,
}

/// The guard of a request; none for a public one. A method that a path does not take requires what reading requires.
fn guard(routes: &RouteTable, request: &Request) -> Option<Guard> {
    if request.method() == Method::OPTIONS {
        return None;
    }
    let path = request.extensions().get::<MatchedPath>();
    let (route, policy) = match routes.find(path.map(MatchedPath::as_str), request.method()) {
        Target::Route(route) => (route, route.policy),
        Target::OtherMethod(route) if route.policy.is_public() => return None,
        Target::OtherMethod(route) => (route, Access::Read.into()),
        Target::Nothing => return None,
    };
    (!policy.is_public()).then_some(Guard {
        policy,
        limit: route.limit,
        errors: route.errors,
    })
}

fn authenticate(
    access: &AccessState,
    guard: &Guard,
    request: &Request,
    client: IpAddr,
) -> Result<Caller, HttpError> {
    let query = request.uri().query();
    let token = query
        .filter(|_| guard.policy.takes_tickets())
        .and_then(token_of);
    let token = token.as_deref().map_or(QueryToken::None, QueryToken::Given);
    let caller = access.keys.caller(request.headers(), token, client);
    caller.map_err(|error| match guard.errors {
        ErrorStyle::Word if error.reply.code == ErrorCode::Unauthorized => {
            error.with_error("unauthorized")
        }
        ErrorStyle::Word | ErrorStyle::Sentence => error,
    })
}

/// Whose requests are counted together: those with one key, else those from one address.
fn identity(caller: &Caller, client: IpAddr) -> String {
    match caller.key {
        Some(_) => format!("key {}", caller.name),
        None => format!("address {}", limit_address(client)),
    }
}

fn permit(guard: &Guard, caller: Caller) -> Result<Caller, HttpError> {
    let access = guard.policy.access;
    if access.is_given_to(caller.permissions) {
        return Ok(caller);
    }
    let needed = access.permission().map_or("none", Permission::as_str);
    let text = format!(
        "the key of {} allows {}; this needs the permission {needed}",
        caller.name, caller.permissions
    );
    Err(HttpError::new(ErrorCode::Forbidden, text))
}

/// Too many requests about runs.
fn rate_limited(status: &RateLimitStatus) -> HttpError {
    let text = format!(
        "more than {} requests in this window; it ends in {} s",
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

fn token_of(query: &str) -> Option<String> {
    let params = axum::extract::Query::<std::collections::HashMap<String, String>>::try_from_uri(
        &format!("/?{query}").parse().ok()?,
    );
    // Left blank it counts as not given, as everywhere.
    params
        .ok()?
        .0
        .remove("token")
        .filter(|token| !token.is_empty())
}
