//! A long JSON array as a response, of which only a part is in memory at any time.

use std::io;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use serde::Serialize;

use crate::error::HttpError;

/// Bytes that are written at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What is still to be written: what comes before the next item, that item, and those after it.
type Rest<T, I> = Option<(Vec<u8>, Option<T>, I)>;

/// Writes `open`, the items with commas between them, and `close`.
///
/// # Errors
///
/// The first item cannot be read. Later the response has begun: it is cut off, which no client takes for a whole one.
pub(crate) async fn json_array<T: Serialize + Send + 'static>(
    open: impl Into<Vec<u8>>,
    items: impl Stream<Item = Result<T, HttpError>> + Send + 'static,
    close: &'static str,
) -> Result<Response, HttpError> {
    let mut items = Box::pin(items);
    let first = items.next().await.transpose()?;
    let begin: Rest<T, _> = Some((open.into(), first, items));
    let body = stream::unfold(begin, move |rest| async move {
        let (mut out, mut next, mut items) = rest?;
        loop {
            let Some(item) = next else {
                out.extend_from_slice(close.as_bytes());
                return Some((Ok(Bytes::from(out)), None));
            };
            if let Err(error) = serde_json::to_writer(&mut out, &item) {
                return Some((Err(io::Error::from(error)), None));
            }
            next = match items.next().await.transpose() {
                Ok(next) => next,
                Err(error) => return Some((Err(io::Error::other(error.reply.error)), None)),
            };
            if next.is_some() {
                out.push(b',');
            }
            if out.len() >= CHUNK_BYTES {
                return Some((Ok(Bytes::from(out)), Some((Vec::new(), next, items))));
            }
        }
    });
    let kind = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(body)).into_response())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    async fn written(items: Vec<Result<String, HttpError>>) -> Result<Value, String> {
        let response = json_array("{\"all\":[", stream::iter(items), "]}").await;
        let body = response.map_err(|error| error.reply.error)?.into_body();
        let bytes = axum::body::to_bytes(body, usize::MAX).await;
        let bytes = bytes.map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn items_of_any_number_and_size_are_written_and_a_failure_is_seen() {
        for (count, size) in [(0, 0), (1, 1), (3, 10), (10, 50_000)] {
            let items: Vec<String> = (0..count).map(|_| "x".repeat(size)).collect();
            let found = written(items.iter().cloned().map(Ok).collect()).await;
            assert_eq!(found, Ok(json!({"all": items})));
        }
        let failure = || Err(HttpError::not_found());
        assert!(written(vec![failure()]).await.is_err());
        let late = written(vec![Ok("x".repeat(100_000)), failure()]).await;
        assert!(late.is_err(), "{late:?}");
    }
}
