//! Documentation of operations: what many of them share.

use aide::openapi::{Header, HeaderStyle, ParameterSchemaOrContent, ReferenceOr, SchemaObject};
use aide::transform::{TransformOperation, TransformResponse};
use axum::Json;
use schemars::json_schema;

use crate::error::ErrorBody;

pub(crate) type Operation<'t> = TransformOperation<'t>;

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
pub(crate) fn with_body(operation: Operation<'_>) -> Operation<'_> {
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

/// Whether an answer has a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// In every answer of this status.
    Always,
    /// In some.
    Sometimes,
}

/// Documents a header of an answer.
pub(crate) fn with_header<'t, T>(
    mut response: TransformResponse<'t, T>,
    name: &str,
    presence: Presence,
    description: &str,
) -> TransformResponse<'t, T> {
    let header = Header {
        description: Some(description.to_owned()),
        style: HeaderStyle::Simple,
        required: presence == Presence::Always,
        deprecated: None,
        format: ParameterSchemaOrContent::Schema(SchemaObject {
            json_schema: json_schema!({"type": "string"}),
            external_docs: None,
            example: None,
        }),
        example: None,
        examples: Default::default(),
        extensions: Default::default(),
    };
    let headers = &mut response.inner().headers;
    headers.insert(name.to_owned(), ReferenceOr::Item(header));
    response
}
