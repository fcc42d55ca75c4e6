//! Reading requests: each failure under its own status, with the field that is wrong.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Parameter, ParameterSchemaOrContent};
use aide::operation::{ParamLocation, add_parameters, parameters_from_schema};
use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRef, FromRequest, FromRequestParts, Path, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use quintet_contract::error::ErrorCode;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::access::AccessState;
use crate::access::client_address::client_address;
use crate::error::HttpError;

/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(60);

/// Most bytes of a body; a part of the state of every router whose handlers read one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimit(pub(crate) usize);

/// A JSON object as the request's body, read as `T`; errors are answered by the policy.
pub(crate) struct JsonBody<T, P = Unprocessable>(pub(crate) T, pub(crate) PhantomData<P>);

/// A JSON array as the request's body.
pub(crate) struct JsonArray(pub(crate) Vec<Value>);

/// A body of any kind.
pub(crate) struct RawBody(pub(crate) Bytes);

/// A part of the path, read as `T`.
pub(crate) struct PathId<T>(pub(crate) T);

/// The address of the client.
pub(crate) struct Client(pub(crate) IpAddr);

/// The errors of a body that is wrong.
pub(crate) trait BodyPolicy: Send {
    /// Whether the content type must be JSON.
    const CONTENT_TYPE: ContentType;

    /// The error of a value that is wrong; the path is empty where it is the whole body.
    fn invalid(path: &str, cause: &str) -> HttpError;
}

/// Whether the content type of a body must be JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentType {
    /// Another type is answered 415.
    Required,
    /// Any type: small programs send what they like.
    Ignored,
}

/// What is wrong is answered 422, with the field.
pub(crate) struct Unprocessable;

/// What is wrong is answered 400, with details.
pub(crate) struct Detailed;

/// What is wrong is answered 400; the content type is ignored.
pub(crate) struct Lenient;

impl BodyPolicy for Unprocessable {
    const CONTENT_TYPE: ContentType = ContentType::Required;

    fn invalid(path: &str, cause: &str) -> HttpError {
        match path {
            "" => HttpError::new(ErrorCode::ValidationFailed, cause),
            path => HttpError::invalid(path, format!("{path}: {cause}")),
        }
    }
}

impl BodyPolicy for Detailed {
    const CONTENT_TYPE: ContentType = ContentType::Required;

    fn invalid(path: &str, cause: &str) -> HttpError {
        HttpError::validation_failed(vec![json!({"path": path, "message": cause})])
    }
}

impl BodyPolicy for Lenient {
    const CONTENT_TYPE: ContentType = ContentType::Ignored;

    fn invalid(path: &str, cause: &str) -> HttpError {
        match path {
            "" => HttpError::new(ErrorCode::BadRequest, cause),
            path => HttpError::new(ErrorCode::BadRequest, format!("{path}: {cause}")),
        }
    }
}

/// What a part of a path may be.
pub(crate) trait PathParam: FromStr + Send {
    /// What it is called in the path.
    const NAME: &'static str;
    /// How it is documented; a struct of one field.
    type Docs: JsonSchema;

    /// The error of a text that cannot be one, and so names nothing.
    fn unknown(text: &str) -> HttpError;
}

impl<T, P, S> FromRequest<S> for JsonBody<T, P>
where
    T: DeserializeOwned + Send,
    P: BodyPolicy,
    S: Send + Sync,
    BodyLimit: FromRef<S>,
{
    type Rejection = HttpError;

    async fn from_request(request: Request, state: &S) -> Result<Self, HttpError> {
        let limit = BodyLimit::from_ref(state);
        let body = match P::CONTENT_TYPE {
            ContentType::Required => body(request, limit).await?,
            ContentType::Ignored => bytes(request, limit).await?,
        };
        object::<T, P>(&body).map(|read| Self(read, PhantomData))
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonArray
where
    BodyLimit: FromRef<S>,
{
    type Rejection = HttpError;

    async fn from_request(request: Request, state: &S) -> Result<Self, HttpError> {
        let body = body(request, BodyLimit::from_ref(state)).await?;
        array(&body).map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for RawBody
where
    BodyLimit: FromRef<S>,
{
    type Rejection = HttpError;

    async fn from_request(request: Request, state: &S) -> Result<Self, HttpError> {
        bytes(request, BodyLimit::from_ref(state)).await.map(Self)
    }
}

/// A body of at most `limit` bytes whose content type is JSON.
pub(crate) async fn body(request: Request, limit: BodyLimit) -> Result<Bytes, HttpError> {
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
pub(crate) fn object<T: DeserializeOwned, P: BodyPolicy>(body: &[u8]) -> Result<T, HttpError> {
    let value = json_value(body)?;
    if !value.is_object() {
        return Err(P::invalid("", "the body must be a JSON object"));
    }
    read::<T, P>(value)
}

/// Reads a body that must be a JSON array.
pub(crate) fn array(body: &[u8]) -> Result<Vec<Value>, HttpError> {
    match json_value(body)? {
        Value::Array(items) => Ok(items),
        _ => Err(Unprocessable::invalid("", "the body must be a JSON array")),
    }
}

/// Reads a body that must be JSON of any kind.
pub(crate) fn json_value(body: &[u8]) -> Result<Value, HttpError> {
    serde_json::from_slice(body).map_err(|error| {
        HttpError::new(
            ErrorCode::BadRequest,
            format!("the body is not JSON: {error}"),
        )
    })
}

/// A body of at most `limit` bytes of any content type.
pub(crate) async fn bytes(request: Request, limit: BodyLimit) -> Result<Bytes, HttpError> {
    let BodyLimit(limit) = limit;
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
pub(crate) fn read<T: DeserializeOwned, P: BodyPolicy>(value: Value) -> Result<T, HttpError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { "" } else { &path };
        P::invalid(path, &error.inner().to_string())
    })
}

impl<T: PathParam, S: Send + Sync> FromRequestParts<S> for PathId<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        let fields = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let Ok(Path(fields)) = fields else {
            return Err(T::unknown(""));
        };
        let text = fields.get(T::NAME).map_or("", String::as_str);
        text.parse().map(Self).map_err(|_| T::unknown(text))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Client
where
    Arc<AccessState>: FromRef<S>,
{
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        let found = ConnectInfo::<SocketAddr>::from_request_parts(parts, state).await;
        let missing = |_| {
            HttpError::new(
                ErrorCode::Internal,
                "the connection has no address; this is a defect",
            )
        };
        found
            .map(|ConnectInfo(address)| {
                let access = Arc::<AccessState>::from_ref(state);
                let proxies = &access.trusted_proxies;
                Self(client_address(address.ip(), &parts.headers, proxies))
            })
            .map_err(missing)
    }
}

impl<T: JsonSchema, P> OperationInput for JsonBody<T, P> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        axum::Json::<T>::operation_input(ctx, operation);
    }
}

impl OperationInput for JsonArray {}

impl OperationInput for RawBody {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        Bytes::operation_input(ctx, operation);
    }
}

impl<T: PathParam> OperationInput for PathId<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        Path::<T::Docs>::operation_input(ctx, operation);
    }
}

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

/// Makes ids parameters of a path: a text that cannot be one names nothing, so it is answered 404.
macro_rules! path_ids {
    ($($id:ident $docs:ident;)*) => {
        $(/// Documents the `{id}` of a path.
        #[derive(serde::Deserialize, schemars::JsonSchema)]
        #[expect(dead_code, reason = "describes the path")]
        pub(crate) struct $docs {
            /// The id.
            id: $id,
        }

        impl $crate::http::extract::PathParam for $id {
            const NAME: &'static str = "id";
            type Docs = $docs;

            fn unknown(_: &str) -> $crate::error::HttpError {
                $crate::error::HttpError::not_found()
            }
        })*
    };
}
pub(crate) use path_ids;
