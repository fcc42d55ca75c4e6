//! The events of a job.

use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;

use super::events::{self, Message, Update};
use super::http::{Http, path_of};
use crate::cli::exit::{self, Failure};

/// The events of a job until its last, over any number of connections. Cancel-safe to await.
pub(crate) fn follow(http: &Http, id: &str) -> BoxStream<'static, anyhow::Result<Message>> {
    let path = format!("/v1/jobs/{}", path_of(id));
    let updates = events::follow(http, format!("{path}/events"), None);
    let start = (updates, http.clone(), path);
    futures::stream::try_unfold(start, async |(mut updates, http, path)| {
        while let Some(update) = updates.next().await {
            match update? {
                Update::Connected => {}
                Update::Message(message) => return Ok(Some((message, (updates, http, path)))),
                // The server ends the stream with the job; a connection that broke is opened again.
                Update::Disconnected => match http.get(&path).await {
                    Ok(job) if is_final(&job) => return Ok(None),
                    Err(error) if is_gone(&error) => return Err(error),
                    Ok(_) | Err(_) => {}
                },
            }
        }
        Ok(None)
    })
    .boxed()
}

fn is_gone(error: &anyhow::Error) -> bool {
    let failure = error.downcast_ref::<Failure>();
    failure.is_some_and(|failure| failure.code() == exit::NOT_FOUND)
}

fn is_final(job: &Value) -> bool {
    matches!(
        job["status"].as_str(),
        Some("STOPPED" | "FAILED" | "CANCELED")
    )
}
