//! The REST interface: every route beside its documentation.

pub(crate) mod agents;
pub(crate) mod batch;
mod documents;
pub(crate) mod frames;
pub(crate) mod jobs;
mod list;
mod listing;
pub(crate) mod runs;
pub(crate) mod templates;
pub(crate) mod tickets;

use aide::axum::ApiRouter;
use aide::transform::TransformOperation;
use axum::Json;

use crate::error::ErrorBody;
use crate::state::App;

/// Every route of this folder.
pub(crate) fn all() -> ApiRouter<App> {
    ApiRouter::new()
        .merge(jobs::routes())
        .merge(batch::routes())
        .merge(list::routes())
        .merge(runs::routes())
        .merge(agents::routes())
        .merge(frames::routes())
        .merge(templates::routes())
        .merge(tickets::routes())
        .merge(listing::routes())
        .merge(documents::routes())
}

type Operation<'t> = TransformOperation<'t>;

/// What any guarded request may be answered.
pub(crate) fn guarded(operation: Operation<'_>) -> Operation<'_> {
    operation
        .response::<401, Json<ErrorBody>>()
        .response::<403, Json<ErrorBody>>()
        .response::<429, Json<ErrorBody>>()
        .response::<503, Json<ErrorBody>>()
        .response::<504, Json<ErrorBody>>()
}

/// What a request with a JSON body may be answered besides.
fn with_body(operation: Operation<'_>) -> Operation<'_> {
    guarded(operation)
        .response::<400, Json<ErrorBody>>()
        .response::<413, Json<ErrorBody>>()
        .response::<415, Json<ErrorBody>>()
        .response::<422, Json<ErrorBody>>()
}

/// What a request for one thing may be answered besides.
pub(crate) fn of_one(operation: Operation<'_>) -> Operation<'_> {
    operation.response::<404, Json<ErrorBody>>()
}
