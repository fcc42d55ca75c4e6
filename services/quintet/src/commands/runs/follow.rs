//! The events of a run, from its first to its last, also when the stream of them breaks in between.

use futures::stream::BoxStream;
use quintet_contract::run::RunStreamEvent;
use quintet_contract::time::Timestamp;
use serde_json::json;

use super::request::path;
use crate::client::events::{self, Message, Update};
use crate::client::http::Http;

/// What stands for everything that was ever stored of a run.
const FROM_THE_FIRST: &str = "0";

/// Everything that happened and happens to a run. Cancel-safe to await.
pub(super) fn follow(http: &Http, id: &str) -> BoxStream<'static, anyhow::Result<Update<Message>>> {
    events::follow(http, format!("{}/events", path(id)), Some(FROM_THE_FIRST))
}

/// The event in a message; none for one of a newer server.
pub(super) fn event_of(message: &Message) -> Option<RunStreamEvent> {
    let tagged = json!({"type": message.event, "data": message.data});
    serde_json::from_value(tagged).ok()
}

/// The moment in the id of an event.
pub(super) fn moment_of(message: &Message) -> Option<Timestamp> {
    let (moment, _) = message.id.rsplit_once('_')?;
    moment.parse().ok()
}
