//! Sessions of browsers: `/v1/session`.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::access::authenticate::keys_unread;
use crate::access::identity::Caller;
use crate::access::key_table::KeyPolicy;
use crate::access::session::{Session, Transport, clear_cookie, set_cookie};
use crate::access::signing::Purpose;
use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded, with_body};
use crate::http::extract::JsonBody;
use crate::state::App;

/// The key that a session stands in for.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Login {
    /// The key.
    key: String,
}

pub(crate) async fn begin(
    State(app): State<App>,
    headers: HeaderMap,
    JsonBody(login, _): JsonBody<Login>,
) -> Result<Response, HttpError> {
    match app.access.keys.table.policy() {
        KeyPolicy::Required => {}
        KeyPolicy::Open => {
            let anonymous = Caller::anonymous();
            return Ok(Json(session(&anonymous, None)).into_response());
        }
        KeyPolicy::Unknown => return Err(keys_unread()),
    }
    let caller = app.access.keys.by_key(login.key.as_bytes())?;
    let (token, expires_at) = app.access.keys.issue(Purpose::Session, &caller)?;
    let cookie = [(
        header::SET_COOKIE,
        set_cookie(&token, transport(&app, &headers)),
    )];
    Ok((cookie, Json(session(&caller, Some(expires_at)))).into_response())
}

fn session(caller: &Caller, expires_at: Option<quintet_contract::time::Timestamp>) -> Session {
    Session {
        name: caller.name.to_string(),
        permissions: caller.permissions,
        expires_at,
    }
}

/// Whether the browser speaks TLS, with us or with a proxy that reports it. A page can only make its own cookie
/// stricter.
fn transport(app: &App, headers: &HeaderMap) -> Transport {
    let proto = headers.get("x-forwarded-proto");
    match app.config.tls.is_some() || proto.is_some_and(|proto| proto == "https") {
        true => Transport::Tls,
        false => Transport::Plain,
    }
}

pub(crate) fn begin_docs(operation: Operation<'_>) -> Operation<'_> {
    with_body(operation)
        .id("beginSession")
        .summary("Begin a session")
        .description(
            "For browsers: trades a key for the cookie `quintet_session`, which scripts cannot read (HttpOnly), other sites \
             cannot use (SameSite=Strict), and which is good for 12 hours or until the key is revoked. Where no key is set \
             there is no cookie.",
        )
        .tag("keys")
        .response::<200, Json<Session>>()
        .response::<401, Json<ErrorBody>>()
}

pub(crate) async fn show(Extension(caller): Extension<Caller>) -> Json<Session> {
    Json(session(&caller, None))
}

pub(crate) fn show_docs(operation: Operation<'_>) -> Operation<'_> {
    guarded(operation)
        .id("showSession")
        .summary("Get the session of the caller")
        .description("The name and the permissions of the key that the request is made with.")
        .tag("keys")
        .response::<200, Json<Session>>()
}

pub(crate) async fn end(State(app): State<App>, request: Request) -> Response {
    let cookie = clear_cookie(transport(&app, request.headers()));
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response()
}

pub(crate) fn end_docs(operation: Operation<'_>) -> Operation<'_> {
    operation
        .id("endSession")
        .summary("End a session")
        .description("Clears the cookie.")
        .tag("keys")
        .response::<204, ()>()
}
