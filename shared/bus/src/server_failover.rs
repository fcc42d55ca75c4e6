//! Server failover: leaving an unusable server. One that is cut off from the rest of its cluster keeps running, and keeps its
//! clients.
//!
//! NATS disconnects no client from such a server. A client that makes no progress any more, and was given several
//! servers, looks for another.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::info;

use crate::connect::Bus;

/// Time that a server gets to become usable before the next one is tried.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Until it is dropped, the connection moves on to another of its servers every few seconds; with one server nothing
/// happens.
#[derive(Debug)]
#[must_use = "dropped, it ends"]
pub struct ServerFailover(Option<JoinHandle<()>>);

impl Bus {
    /// Begins to look for a usable server.
    pub fn server_failover(&self) -> ServerFailover {
        if self.config().url.split(',').count() < 2 {
            return ServerFailover(None);
        }
        let client = self.client().clone();
        ServerFailover(Some(tokio::spawn(async move {
            loop {
                sleep(TIMEOUT).await;
                info!("trying another server of the bus");
                // Fails only when the connection was closed for good.
                if client.force_reconnect().await.is_err() {
                    return;
                }
            }
        })))
    }
}

impl Drop for ServerFailover {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
