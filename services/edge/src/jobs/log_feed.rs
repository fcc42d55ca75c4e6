//! Log feeds, the output of jobs as it comes: one subscription per job that is followed, shared by all its followers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use quintet_bus::{Bus, Deliveries, Delivery};
use quintet_contract::error::ErrorReply;
use quintet_contract::event::JobLog;
use quintet_contract::id::JobId;
use quintet_contract::subject::LiveJobLog;
use quintet_service::tasks::{ExitPolicy, Tasks};

use crate::error::HttpError;
use crate::live::topic::{Subscription, Topic};
use crate::live::unpoisoned;

/// Bytes that a follower may be behind; one that is further behind reads them from the stream.
const BACKLOG_BYTES: usize = 1024 * 1024;
/// Bytes that a line takes besides its text.
const LINE_BYTES: usize = 64;

/// Consecutive lines and their place in the stream.
#[derive(Debug)]
pub(crate) struct LogBatch {
    pub(crate) sequence: u64,
    pub(crate) log: JobLog,
}

type Feeds = Arc<Mutex<HashMap<JobId, Topic<Arc<LogBatch>>>>>;

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

    /// Everything that is stored after this call comes out of the subscription.
    pub(crate) async fn follow(
        &self,
        id: &JobId,
    ) -> Result<Subscription<Arc<LogBatch>>, HttpError> {
        if let Some(feed) = unpoisoned(self.feeds.lock()).get(id) {
            return Ok(feed.subscribe());
        }
        let unavailable =
            || ErrorReply::unavailable("the bus does not answer now; try again in a moment");
        let filter = LiveJobLog::filter(self.bus.prefix(), Some(id));
        let lines = self.bus.subscribe::<LiveJobLog>(filter).await;
        let lines = lines.map_err(|_| unavailable())?;
        // What is read from the stream next must not be older than the subscription.
        self.bus.flush().await.map_err(|_| unavailable())?;
        let (topic, subscription) = {
            let mut feeds = unpoisoned(self.feeds.lock());
            if let Some(other) = feeds.get(id) {
                // Another client was faster.
                return Ok(other.subscribe());
            }
            let topic = Topic::new(BACKLOG_BYTES);
            feeds.insert(id.clone(), topic.clone());
            let subscription = topic.subscribe();
            (topic, subscription)
        };
        let publishing = publish(topic, lines, self.feeds.clone(), id.clone());
        let stop = self.tasks.token();
        self.tasks
            .spawn("job log", ExitPolicy::Optional, async move {
                stop.run_until_cancelled(publishing).await;
                Ok::<_, Infallible>(())
            });
        Ok(subscription)
    }
}

/// Publishes lines as they come, until they have no followers. When the subscription ends, so does the topic, and its followers
/// read from the stream.
async fn publish(
    topic: Topic<Arc<LogBatch>>,
    mut lines: Deliveries<LiveJobLog>,
    feeds: Feeds,
    id: JobId,
) {
    loop {
        // Cancel-safe: a batch is taken only when it is returned.
        let next = tokio::select! {
            biased;
            () = topic.unused() => {
                let mut feeds = unpoisoned(feeds.lock());
                // Under the lock: one may have subscribed just now.
                if topic.subscribers() == 0 {
                    feeds.remove(&id);
                    return;
                }
                continue;
            }
            next = lines.next() => next,
        };
        let Some(Delivery {
            message: log, meta, ..
        }) = next
        else {
            unpoisoned(feeds.lock()).remove(&id);
            return;
        };
        if let Some(sequence) = meta.sequence {
            let lines = log.lines.iter();
            let bytes = lines.map(|line| LINE_BYTES + line.line.len()).sum();
            topic.publish(Arc::new(LogBatch { sequence, log }), bytes);
        }
    }
}
