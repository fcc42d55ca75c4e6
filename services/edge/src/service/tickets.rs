//! Tickets for streams: `POST /v1/tickets`.

use axum::extract::State;
use axum::{Extension, Json};
use quintet_contract::time::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::access::identity::Caller;
use crate::access::signing::Purpose;
use crate::error::HttpError;
use crate::http::docs::{Operation, guarded};
use crate::state::App;

pub(crate) fn docs(operation: Operation<'_>) -> Operation<'_> {
    guarded(operation)
        .id("issueTicket")
        .summary("Get a ticket for streams")
        .description(
            "For browsers, whose event streams and sockets cannot send headers: it stands in for the key as `?token=` \
             of a stream, on every edge, for a minute.",
        )
        .tag("service")
        .response::<200, Json<Ticket>>()
}

/// A ticket.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ticket {
    /// What to send as `?token=`.
    ticket: String,
    /// Until when a stream may be opened with it; an open one continues.
    expires_at: Timestamp,
}

pub(crate) async fn issue(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Ticket>, HttpError> {
    let (ticket, expires_at) = app.access.keys.issue(Purpose::Ticket, &caller)?;
    Ok(Json(Ticket { ticket, expires_at }))
}
