//! The events of a run, from its first to its last, also when the stream of them breaks in between.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use quintet_contract::run::RunStreamEvent;
use quintet_contract::time::Timestamp;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::request::path;
use crate::cli::exit::{self, Failure};
use crate::client::http::{Http, Message, Sse};

/// Delay before a broken stream is opened again, where the server did not say another.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// How long a server may be away.
const TIMEOUT: Duration = Duration::from_secs(120);
/// What stands for everything that was ever stored of a run.
const FROM_THE_FIRST: &str = "0";

/// An update of a watched run.
#[derive(Debug)]
pub(super) enum Update {
    /// The stream is open, again or for the first time.
    Connected,
    /// An event.
    Event(Message),
    /// The stream has ended or broken; it is opened again next.
    Disconnected,
}

/// Everything that happened and happens to a run. Awaiting the next is cancel-safe: what was begun goes on with the
/// stream.
pub(super) fn follow(http: &Http, id: &str) -> BoxStream<'static, anyhow::Result<Update>> {
    let stream = RunEventStream {
        http: http.clone(),
        path: format!("{}/events", path(id)),
        last: FROM_THE_FIRST.to_owned(),
        again: RETRY_DELAY,
        state: State::Fresh,
    };
    futures::stream::try_unfold(stream, async |mut stream| {
        let update = stream.next().await?;
        Ok(Some((update, stream)))
    })
    .boxed()
}

struct RunEventStream {
    http: Http,
    path: String,
    /// The id of the last event.
    last: String,
    again: Duration,
    state: State,
}

enum State {
    Fresh,
    Open(Sse),
    Lost { since: Instant },
}

impl RunEventStream {
    async fn next(&mut self) -> anyhow::Result<Update> {
        loop {
            match &mut self.state {
                State::Open(stream) => {
                    let message = stream.next().await;
                    self.again = stream.retry().unwrap_or(self.again);
                    if let Ok(Some(message)) = message {
                        if !message.id.is_empty() {
                            self.last.clone_from(&message.id);
                        }
                        return Ok(Update::Event(message));
                    }
                    self.state = State::Lost {
                        since: Instant::now(),
                    };
                    return Ok(Update::Disconnected);
                }
                State::Fresh => self.open().await?,
                State::Lost { since } => {
                    let since = *since;
                    sleep(self.again).await;
                    match self.open().await {
                        Ok(()) => {}
                        Err(error) if since.elapsed() > TIMEOUT || is_final(&error) => {
                            return Err(error);
                        }
                        Err(_) => continue,
                    }
                }
            }
            return Ok(Update::Connected);
        }
    }

    async fn open(&mut self) -> anyhow::Result<()> {
        let stream = self.http.events(&self.path, Some(&self.last)).await?;
        self.state = State::Open(stream);
        Ok(())
    }
}

/// Whether it will not pass: the run is gone. An edge or a bus that restarts refuses for a while.
fn is_final(error: &anyhow::Error) -> bool {
    let failure = error.downcast_ref::<Failure>();
    failure.is_some_and(|failure| failure.code() == exit::NOT_FOUND)
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
