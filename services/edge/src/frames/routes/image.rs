//! What the display shows, as a PNG. A client that has the image already gets 304, without its pixels.

use std::num::IntErrorKind;
use std::sync::Arc;

use aide::transform::TransformResponse;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRef, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use quintet_bus::Bus;
use quintet_contract::error::ErrorCode;
use quintet_contract::frame::{Bitmap, Rbm};
use quintet_contract::frame_api::{GetPicture, PictureReply};
use quintet_service::tasks::Tasks;
use quintet_service::telemetry::chain;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::error::{ErrorBody, HttpError};
use crate::frames::client::FramesClient;
use crate::frames::png::{MAX_SCALE, PngDrawing};
use crate::frames::{of_frames, wrong};
use crate::http::docs::Operation;
use crate::http::docs::{Presence, with_header};
use crate::http::query::{Query, QueryParams};
use crate::live::Part;
use crate::state::App;

/// What a PNG is called.
const PNG: &str = "image/png";
/// Pixels for one of the display by default.
const SCALE: u16 = 10;
/// Large images that are drawn at the same time; the others wait for their next step.
const CONCURRENT_DRAWINGS: usize = 1;
/// Up to so many pixels an image is drawn at once; that takes about a millisecond. A larger one is drawn in steps.
const MAX_PIXELS_AT_ONCE: u64 = 256 * 1024;

/// Any: what is too small or too large is as good as the limit.
fn integer(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer"})
}

/// How an image is drawn.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct ImageQuery {
    /// Pixels of the image for one of the display, in each direction: 1 to 64; 10 by default.
    #[serde(default)]
    #[schemars(schema_with = "integer")]
    scale: Option<Scale>,
}

/// Which panel is drawn, and how.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct PanelQuery {
    /// The panel.
    #[schemars(required)]
    id: Option<String>,
    /// Pixels of the image for one of the panel, in each direction: 1 to 64; 10 by default.
    #[serde(default)]
    #[schemars(schema_with = "integer")]
    scale: Option<Scale>,
}

impl QueryParams for ImageQuery {
    fn expected(_: &str) -> String {
        "an integer".to_owned()
    }

    fn invalid(_: &str, text: String) -> HttpError {
        wrong(text)
    }
}

impl QueryParams for PanelQuery {
    fn expected(_: &str) -> String {
        "an integer".to_owned()
    }

    fn invalid(_: &str, text: String) -> HttpError {
        wrong(text)
    }
}

pub(crate) async fn frame(
    State(app): State<App>,
    Query(query): Query<ImageQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    respond(&app, None, query.scale, &headers).await
}

pub(crate) fn frame_docs(operation: Operation<'_>) -> Operation<'_> {
    image_docs(operation)
        .id("getFrameImage")
        .summary("Get what the display shows")
}

pub(crate) async fn panel(
    State(app): State<App>,
    Query(query): Query<PanelQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let unnamed = || HttpError::new(ErrorCode::NotFound, "unknown panel id");
    let id = query.id.ok_or_else(unnamed)?;
    respond(&app, Some(id), query.scale, &headers).await
}

pub(crate) fn panel_docs(operation: Operation<'_>) -> Operation<'_> {
    image_docs(operation)
        .id("getPanelImage")
        .summary("Get what one panel shows")
        .description("As it is mounted: cut out of the canvas, then turned.")
        .response::<404, Json<ErrorBody>>()
}

fn image_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .response_with::<200, Bytes, _>(|response| with_etag(png_only(response)))
        .response_with::<304, (), _>(with_etag)
        .response::<400, Json<ErrorBody>>()
}

fn png_only<T>(mut response: TransformResponse<'_, T>) -> TransformResponse<'_, T> {
    let content = &mut response.inner().content;
    let bytes = std::mem::take(content).into_values();
    content.extend(bytes.map(|media| (PNG.to_owned(), media)));
    response
}

fn with_etag<T>(response: TransformResponse<'_, T>) -> TransformResponse<'_, T> {
    let text = "names the image; send it as `If-None-Match` to learn whether it is still shown";
    with_header(response, ETAG.as_str(), Presence::Always, text)
}

async fn respond(
    app: &App,
    panel: Option<String>,
    scale: Option<Scale>,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let scale = scale.map_or(SCALE, |Scale(scale)| scale);
    let known = Known::read(headers, scale);
    let get = GetPicture {
        panel,
        unless: known.digests.first().cloned(),
    };
    let image = FramesClient::from_ref(app).picture(&get).await?;
    let tag = format!("\"{}-{scale}\"", image.digest);
    let tag = HeaderValue::from_str(&tag).map_err(|_| unreadable())?;
    let head = [
        (ETAG, tag),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    if known.has(&image.digest) {
        return Ok((StatusCode::NOT_MODIFIED, head).into_response());
    }
    let bitmap = bitmap_of(&image).ok_or_else(unreadable)?;
    let drawing = PngDrawing::new(bitmap, scale).map_err(undrawable)?;
    let body = match drawing.pixels() {
        ..=MAX_PIXELS_AT_ONCE => Body::from(drawing.whole().map_err(undrawable)?),
        _ => in_steps(app.live.part(), drawing),
    };
    Ok((head, [(CONTENT_TYPE, PNG)], body).into_response())
}

/// The pixels of an image.
fn bitmap_of(image: &PictureReply) -> Option<Bitmap> {
    let bytes = &image.rbm.as_ref()?.0;
    let canvas = Rbm::canvas_of(bytes)?;
    Some(Rbm::read(bytes, canvas).ok()?.bitmap(canvas))
}

/// Held while a step of a large image is drawn: few at a time, so that they leave the processor to others.
struct DrawingTurns(Semaphore);

impl Part for DrawingTurns {
    fn start(_: &Bus, _: &Tasks) -> Self {
        Self(Semaphore::new(CONCURRENT_DRAWINGS))
    }
}

/// Draws a step whenever the client has read the one before, so that none who is slow holds a thread.
fn in_steps(turns: Arc<DrawingTurns>, drawing: PngDrawing) -> Body {
    let parts = futures::stream::try_unfold((turns, drawing), async |(turns, mut drawing)| {
        // Few at a time: large images for many clients must not take the processor from others.
        let place = turns.0.acquire().await.map_err(std::io::Error::other)?;
        // Ends by itself after a few milliseconds.
        let step = spawn_blocking(move || drawing.part().map(|part| (part, drawing)));
        let (part, drawing) = step.await.map_err(std::io::Error::other)??;
        drop(place);
        Ok::<_, std::io::Error>(part.map(|part| (Bytes::from(part), (turns, drawing))))
    });
    Body::from_stream(parts)
}

/// Pixels of the image for one of the display; what is too small or too large is as good as the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scale(u16);

impl<'de> Deserialize<'de> for Scale {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match text.parse::<u16>() {
            Ok(scale) => Ok(Self(scale.clamp(1, MAX_SCALE))),
            Err(error) if *error.kind() == IntErrorKind::PosOverflow => Ok(Self(MAX_SCALE)),
            Err(_) if is_below_zero(&text) => Ok(Self(1)),
            Err(error) => Err(serde::de::Error::custom(error)),
        }
    }
}

fn is_below_zero(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Images that the client has.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    digests: Vec<String>,
    /// It wants none if there is any.
    any: bool,
}

impl Known {
    /// Parses a tag of an image of this scale.
    fn read(headers: &HeaderMap, scale: u16) -> Self {
        let fields = headers.get_all(IF_NONE_MATCH).iter();
        let texts = fields.filter_map(|value| value.to_str().ok());
        let tags: Vec<&str> = texts
            .flat_map(|text| text.split(','))
            .map(str::trim)
            .collect();
        let end = format!("-{scale}\"");
        let digest = |tag: &&str| {
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            let tag = tag.strip_prefix('"')?.strip_suffix(&end)?;
            Some(tag.to_owned())
        };
        Self {
            any: tags.contains(&"*"),
            digests: tags.iter().filter_map(digest).collect(),
        }
    }

    fn has(&self, digest: &str) -> bool {
        self.any || self.digests.iter().any(|known| known == digest)
    }
}

fn unreadable() -> HttpError {
    warn!("the display's image cannot be read");
    HttpError::new(
        ErrorCode::Internal,
        "the image of the display cannot be read; this is a defect",
    )
}

fn undrawable(error: png::EncodingError) -> HttpError {
    warn!(error = %chain(&error), "cannot draw the display's image");
    HttpError::new(
        ErrorCode::Internal,
        "the image of the display cannot be drawn; this is a defect",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &'static str) -> Known {
        let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(text))]);
        Known::read(&headers, 10)
    }

    #[test]
    fn an_image_is_known_by_its_digest_and_its_scale() {
        assert!(known("\"ab-10\"").has("ab"));
        assert!(known("\"x\", W/\"ab-10\" ,\"cd-10\"").has("ab"));
        assert!(known("\"x\", W/\"ab-10\" ,\"cd-10\"").has("cd"));
        assert!(known("*").has("ab"));
        for other in ["", "\"ab-1\"", "\"ab-110\"", "ab-10", "\"abc-10\"", "\""] {
            assert!(!known(other).has("ab"), "{other}");
        }
        assert!(!Known::read(&HeaderMap::new(), 10).has("ab"));
    }
}
