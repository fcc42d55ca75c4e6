//! Counters that the server keeps: an addition returns the new total.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use quintet_contract::subject::Subject;
use tokio::time::timeout;

use crate::connect::Bus;
use crate::error::PublishError;
use crate::publish::failed;

/// Header with what is added.
const HEADER_INCREMENT: &str = "Nats-Incr";

impl Bus {
    /// Adds to a counter and returns its new amount. Without an answer in time it may or may not have been added.
    ///
    /// # Errors
    /// [`PublishError::Unanswered`] when the addition may or may not be counted; other variants when it is not.
    pub async fn count<S: Subject>(
        &self,
        subject: &S,
        amount: u64,
        deadline: Duration,
    ) -> Result<u64, PublishError> {
        let subject = subject.render(self.prefix());
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_INCREMENT, format!("+{amount}"));
        let unanswered = |source: crate::error::Cause| PublishError::Unanswered {
            subject: subject.clone(),
            source,
        };
        if !self.is_connected() {
            return Err(unanswered("the client is reconnecting".into()));
        }
        let added = timeout(deadline, async {
            let sent = self
                .jetstream()
                .publish_with_headers(subject.clone(), headers, Bytes::new())
                .await?;
            sent.await
        });
        let added = match added.await {
            Ok(added) => added.map_err(|error| failed(subject.clone(), error))?,
            Err(elapsed) => return Err(unanswered(elapsed.into())),
        };
        let amount = added.value.as_deref().and_then(|value| value.parse().ok());
        amount.ok_or_else(|| unanswered("the server did not send the new total".into()))
    }
}
