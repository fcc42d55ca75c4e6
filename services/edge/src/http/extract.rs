//! Reading requests: each failure under its own status, with the field that is wrong.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Parameter, ParameterSchemaOrContent};
use aide::operation::{ParamLocation, add_parameters, parameters_from_schema};
use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use quintet_contract::error::ErrorCode;
use quintet_contract::id::JobId;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::access::client_address::client_address;
use crate::error::HttpError;
use crate::state::App;

/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(60);

/// A JSON object as the request's body, read as `T`.
pub(crate) struct Body<T>(pub(crate) T);

/// A JSON array as the request's body.
pub(crate) struct Items(pub(crate) Vec<Value>);

/// The `{id}` of the path, read as `T`; what cannot be an id is nobody's.
pub(crate) struct Id<T>(pub(crate) T);

/// The address of the client.
pub(crate) struct Client(pub(crate) IpAddr);

/// What stands after the question mark.
pub(crate) struct Params(HashMap<String, String>);

impl<T: DeserializeOwned + Send> FromRequest<App> for Body<T> {
    type Rejection = HttpError;

    async fn from_request(request: Request, app: &App) -> Result<Self, HttpError> {
        body(request, app.config.body_limit)
            .await
            .and_then(|body| object(&body))
            .map(Self)
    }
}

impl FromRequest<App> for Items {
    type Rejection = HttpError;

    async fn from_request(request: Request, app: &App) -> Result<Self, HttpError> {
        body(request, app.config.body_limit)
            .await
            .and_then(|body| array(&body))
            .map(Self)
    }
}

/// A body of at most `limit` bytes that is said to be JSON.
pub(crate) async fn body(request: Request, limit: usize) -> Result<Bytes, HttpError> {
    let kind = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(is_json) {
        let text =
            "the body must be JSON; send it with the header `content-type: application/json`";
        return Err(HttpError::new(ErrorCode::UnsupportedMediaType, text));
    }
    bytes(request, limit).await
}

/// Reads a body that must be a JSON object.
pub(crate) fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, HttpError> {
    let value = json(body)?;
    if !value.is_object() {
        return Err(wrong_shape("the body must be a JSON object"));
    }
    read(value)
}

/// Reads a body that must be a JSON array.
pub(crate) fn array(body: &[u8]) -> Result<Vec<Value>, HttpError> {
    match json(body)? {
        Value::Array(items) => Ok(items),
        _ => Err(wrong_shape("the body must be a JSON array")),
    }
}

/// Reads a body that must be JSON of any kind.
pub(crate) fn json(body: &[u8]) -> Result<Value, HttpError> {
    serde_json::from_slice(body).map_err(|error| {
        HttpError::new(
            ErrorCode::BadRequest,
            format!("the body is not JSON: {error}"),
        )
    })
}

/// A body of at most `limit` bytes, whatever it is said to be.
pub(crate) async fn bytes(request: Request, limit: usize) -> Result<Bytes, HttpError> {
    let whole = axum::body::to_bytes(request.into_body(), limit);
    let Ok(read) = tokio::time::timeout(BODY_DEADLINE, whole).await else {
        let text =
            "the body did not arrive in time; send it again, in smaller parts if the line is slow";
        return Err(HttpError::new(ErrorCode::BadRequest, text));
    };
    read.map_err(|error| {
        let needs_offload = std::error::Error::source(&error)
            .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        if needs_offload {
            let text = format!("the body is larger than {limit} bytes; send less at once");
            return HttpError::new(ErrorCode::PayloadTooLarge, text);
        }
        HttpError::new(
            ErrorCode::BadRequest,
            "the body ended before it was whole; send it again",
        )
    })
}

fn is_json(kind: &str) -> bool {
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// Reads a value that is JSON; the error names the field.
pub(crate) fn read<T: DeserializeOwned>(value: Value) -> Result<T, HttpError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner().to_string();
        if path == "." {
            wrong_shape(&cause)
        } else {
            HttpError::invalid(&path, format!("{path}: {cause}"))
        }
    })
}

fn wrong_shape(text: &str) -> HttpError {
    HttpError::new(ErrorCode::ValidationFailed, text)
}

impl<T: FromStr + Send> FromRequestParts<App> for Id<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let Path(text) = Path::<String>::from_request_parts(parts, app)
            .await
            .map_err(|_| HttpError::not_found())?;
        text.parse().map(Self).map_err(|_| HttpError::not_found())
    }
}

impl FromRequestParts<App> for Client {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let found = ConnectInfo::<SocketAddr>::from_request_parts(parts, app).await;
        let missing = |_| {
            HttpError::new(
                ErrorCode::Internal,
                "the connection has no address; this is a defect",
            )
        };
        found
            .map(|ConnectInfo(address)| {
                let proxies = &app.config.trusted_proxies;
                Self(client_address(address.ip(), &parts.headers, proxies))
            })
            .map_err(missing)
    }
}

impl FromRequestParts<App> for Params {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let read = Query::<HashMap<String, String>>::from_request_parts(parts, app).await;
        let Query(params) =
            read.map_err(|error| HttpError::new(ErrorCode::BadRequest, error.body_text()))?;
        Ok(Self(params))
    }
}

impl Params {
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    /// A parameter of some type; `expected` completes "must be".
    pub(crate) fn parse<T: FromStr>(
        &self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, HttpError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let invalid = |_| HttpError::invalid(name, format!("{name} must be {expected}"));
        text.parse().map(Some).map_err(invalid)
    }

    /// `true`, `false`, `1` or `0`; a name alone means true.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, HttpError> {
        match self.0.get(name).map(String::as_str) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(_) => Err(HttpError::invalid(
                name,
                format!("{name} must be true or false"),
            )),
        }
    }
}

impl<T: JsonSchema> OperationInput for Body<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        axum::Json::<T>::operation_input(ctx, operation);
    }
}

impl OperationInput for Items {}

impl<T> OperationInput for Id<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        Path::<IdParam>::operation_input(ctx, operation);
    }
}

impl OperationInput for Params {}

/// Documents headers of a request: `T` names them.
pub(crate) struct Headers<T>(PhantomData<T>);

impl<T: JsonSchema> OperationInput for Headers<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        let schema = ctx.schema.subschema_for::<T>();
        let mut headers = parameters_from_schema(ctx, schema, ParamLocation::Header);
        for header in &mut headers {
            never_null(header);
        }
        add_parameters(ctx, operation, headers);
    }
}

/// A header that may be left out is of an optional type, but there is no null to send.
fn never_null(header: &mut Parameter) {
    let format = &mut header.parameter_data_mut().format;
    if let ParameterSchemaOrContent::Schema(schema) = format
        && let Some(Value::Array(types)) = schema.json_schema.get_mut("type")
    {
        types.retain(|kind| kind != "null");
    }
}

impl OperationInput for Client {}

/// Documents the `{id}` of a path.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "describes the path")]
struct IdParam {
    /// The id.
    id: JobId,
}
