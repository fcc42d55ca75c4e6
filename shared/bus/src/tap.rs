//! Tap: every raw message, for operators.

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::{Stream, StreamExt};

use crate::connect::Bus;
use crate::error::SubscribeError;

/// A message as it passed by.
#[derive(Clone, Debug)]
pub struct Tapped {
    /// Its whole subject.
    pub subject: String,
    /// Its headers, in no particular order.
    pub headers: Vec<(String, String)>,
    /// Whether its sender waits for an answer.
    pub wants_answer: bool,
    /// Its body; see [`to_json_text`](crate::to_json_text).
    pub body: Bytes,
}

impl Bus {
    /// Every message on a subject filter, which is taken as it is, without the prefix.
    ///
    /// # Errors
    /// [`SubscribeError`] when the connection is closed.
    pub async fn tap(
        &self,
        filter: &str,
    ) -> Result<impl Stream<Item = Tapped> + Unpin + use<>, SubscribeError> {
        let subscribed = self.client().subscribe(filter.to_owned()).await;
        let subscriber = subscribed.map_err(|error| SubscribeError {
            filter: filter.to_owned(),
            source: error.into(),
        })?;
        Ok(subscriber.map(|message| Tapped {
            subject: message.subject.to_string(),
            headers: message.headers.as_ref().map(pairs).unwrap_or_default(),
            wants_answer: message.reply.is_some(),
            body: message.payload,
        }))
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let all = headers.iter();
    all.flat_map(|(name, values)| {
        values
            .iter()
            .map(move |value| (name.to_string(), value.to_string()))
    })
    .collect()
}
