//! The output of jobs as it comes: one subscription per job that is followed, shared by all who follow it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use quintet_bus::Bus;
use quintet_contract::error::ErrorReply;
use quintet_contract::event::JobLog;
use quintet_contract::id::JobId;
use quintet_contract::subject::LiveJobLog;
use quintet_service::tasks::{ExitPolicy, Tasks};
use tokio::sync::broadcast;

use crate::error::HttpError;
use crate::live::unpoisoned;

/// Batches that a follower may be behind; one that is further behind reads them from the stream.
const BACKLOG: usize = 256;

/// Consecutive lines and their place in the stream.
#[derive(Debug)]
pub(crate) struct LogBatch {
    pub(crate) sequence: u64,
    pub(crate) log: JobLog,
}

type Feeds = Arc<Mutex<HashMap<JobId, broadcast::Sender<Arc<LogBatch>>>>>;

pub(crate) struct LogFeeds {
    bus: Bus,
    tasks: Tasks,
    feeds: Feeds,
}

impl LogFeeds {
    pub(crate) fn new(bus: Bus, tasks: Tasks) -> Self {
        Self {
            bus,
            tasks,
            feeds: Feeds::default(),
        }
    }

    /// Everything that is stored after this call comes out of the receiver.
    pub(crate) async fn follow(
        &self,
        id: &JobId,
    ) -> Result<broadcast::Receiver<Arc<LogBatch>>, HttpError> {
        if let Some(feeds) = unpoisoned(self.feeds.lock()).get(id) {
            return Ok(feeds.subscribe());
        }
        let subscribed = self
            .bus
            .subscribe::<LiveJobLog>(LiveJobLog::filter(self.bus.prefix(), Some(id)))
            .await;
        let unavailable =
            || ErrorReply::unavailable("the bus does not answer now; try again in a moment");
        let mut lines = subscribed.map_err(|_| unavailable())?;
        // What is read from the stream next must not be older than the subscription.
        self.bus.flush().await.map_err(|_| unavailable())?;
        let (sender, receiver) = {
            let mut feeds = unpoisoned(self.feeds.lock());
            if let Some(others) = feeds.get(id) {
                // Somebody was faster.
                return Ok(others.subscribe());
            }
            let (sender, receiver) = broadcast::channel(BACKLOG);
            feeds.insert(id.clone(), sender.clone());
            (sender, receiver)
        };
        let (feeds, id, token) = (self.feeds.clone(), id.clone(), self.tasks.token());
        self.tasks.spawn("log", ExitPolicy::Optional, async move {
            loop {
                let line = tokio::select! {
                    biased;
                    () = token.cancelled() => break,
                    () = sender.closed() => {
                        let mut feeds = unpoisoned(feeds.lock());
                        if sender.receiver_count() == 0 {
                            feeds.remove(&id);
                            return Ok::<_, std::convert::Infallible>(());
                        }
                        continue;
                    }
                    line = lines.next() => line,
                };
                let Some(line) = line else { break };
                if let Some(sequence) = line.meta.sequence {
                    let _ = sender.send(Arc::new(LogBatch {
                        sequence,
                        log: line.message,
                    }));
                }
            }
            unpoisoned(feeds.lock()).remove(&id);
            Ok(())
        });
        Ok(receiver)
    }
}
