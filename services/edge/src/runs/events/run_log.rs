//! The log of a run as its stream holds it: numbered entries, with the payloads that are stored apart.
//!
//! A copy of the stream may lag behind what others know already, so a reader that knows how far the log goes asks again
//! until it is there.

use std::time::Duration;

use quintet_bus::{Bus, BusError};
use quintet_contract::error::ErrorReply;
use quintet_contract::id::RunId;
use quintet_contract::run::{LogEntry, RunLogBatch};
use quintet_contract::subject::RunLog;
use quintet_contract::topology::stream;
use quintet_service::telemetry::chain;
use tokio::time::sleep;
use tracing::warn;

use crate::error::HttpError;
use crate::live::log_reader::LogReader;
use crate::runs::payloads;

/// Wait before a copy of the stream that lags is asked again.
const LAG_RETRY_DELAY: Duration = Duration::from_millis(20);
/// How often it is asked; after that, what is missing is taken to be gone.
const MAX_LAG_RETRIES: u32 = 250;
/// A position in the stream is searched until it is known to so many messages.
const SEARCH_DISTANCE: u64 = 128;

/// An entry and the sequence of the message that holds it.
pub(crate) type Placed = (u64, LogEntry);

/// Reads the log of one run forward, entry by entry.
pub(crate) struct RunLogReader {
    bus: Bus,
    run_id: RunId,
    reader: LogReader<RunLog>,
    /// The last entry that was read.
    n: u64,
}

impl RunLogReader {
    pub(crate) fn new(bus: Bus, run_id: RunId) -> Self {
        let (stream, subject) = (stream::run_logs(bus.prefix()), RunLog { run: run_id });
        Self {
            reader: LogReader::new(bus.clone(), stream, subject),
            bus,
            run_id,
            n: 0,
        }
    }

    /// Continues after an entry, at the earliest with this message of the stream.
    pub(crate) fn seek(&mut self, n: u64, sequence: u64) {
        self.n = n;
        self.reader.seek(sequence);
    }

    /// Whether there was nothing more when the last page was read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.reader.is_at_end()
    }

    /// The next entries; none when there are none yet.
    pub(crate) async fn page(&mut self) -> Result<Vec<Placed>, HttpError> {
        let messages = self.reader.page().await.map_err(unreadable)?;
        let mut page = Vec::new();
        for (sequence, events) in messages {
            for entry in events.entries {
                if entry.n > self.n {
                    self.n = entry.n;
                    page.push((sequence, entry));
                }
            }
        }
        for (_, entry) in &mut page {
            payloads::rehydrate(&self.bus, &mut entry.fact).await?;
        }
        Ok(page)
    }

    /// The next entries of a log that is known to reach entry `end`; `None` after its last.
    pub(crate) async fn page_up_to(&mut self, end: u64) -> Result<Option<Vec<Placed>>, HttpError> {
        for _ in 0..MAX_LAG_RETRIES {
            if self.is_at_end() && self.n >= end {
                return Ok(None);
            }
            let page = self.page().await?;
            if !page.is_empty() {
                return Ok(Some(page));
            }
            if self.is_at_end() && self.n < end {
                sleep(LAG_RETRY_DELAY).await;
            }
        }
        warn!(run = %self.run_id, found = self.n, end, "a log ends before its last entry");
        Ok(None)
    }

    /// A message at which entry `n` is, or not long before it. The newest of the log is at `newest`.
    pub(crate) async fn find(&self, n: u64, newest: u64) -> Result<u64, HttpError> {
        let (mut low, mut high) = (1, newest);
        // The message with the entry is at `low` or later, and not after `high`.
        while high > low + SEARCH_DISTANCE {
            let middle = low + (high - low) / 2;
            let found = self.message(middle).await?;
            let first = found
                .as_ref()
                .and_then(|(_, events)| events.entries.first());
            match (&found, first) {
                (Some((sequence, _)), Some(first)) if first.n <= n => low = *sequence,
                // What is there is of other runs, or of later entries.
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// LogEntry `n`, which is in this message.
    pub(crate) async fn entry(&self, n: u64, sequence: u64) -> Result<Option<LogEntry>, HttpError> {
        let found = self.message(sequence).await?;
        let mut entries = found.into_iter().flat_map(|(_, events)| events.entries);
        let mut found = entries.find(|entry| entry.n == n);
        if let Some(entry) = &mut found {
            payloads::rehydrate(&self.bus, &mut entry.fact).await?;
        }
        Ok(found)
    }

    async fn message(&self, sequence: u64) -> Result<Option<(u64, RunLogBatch)>, HttpError> {
        self.reader.message(sequence).await.map_err(unreadable)
    }
}

pub(crate) fn unreadable(error: BusError) -> HttpError {
    warn!(error = %chain(&error), "cannot read the log of a run");
    ErrorReply::unavailable("the log of this run cannot be read now; try again in a moment").into()
}
