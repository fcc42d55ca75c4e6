//! Reading the log of a run from its stream, page by page.
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
use crate::runs::payloads as blobs;

/// Messages of the first page; they may be large.
const FIRST_PAGE: usize = 64;
/// Most messages of a page, when they are small.
const PAGE: usize = 1_000;
/// Bytes that a page should not exceed by much, as far as the one before tells.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Wait before a copy of the stream that lags is asked again.
const LAG_RETRY_DELAY: Duration = Duration::from_millis(20);
/// How often it is asked; after that, what is missing is taken to be gone.
const MAX_LAG_RETRIES: u32 = 250;
/// A place in the stream is looked for until it is known to so many messages.
const SEARCH_DISTANCE: u64 = 128;

/// An entry and the sequence of the message that holds it.
pub(crate) type Placed = (u64, LogEntry);

/// Reads one log forward.
pub(crate) struct LogReader {
    bus: Bus,
    run_id: RunId,
    /// Everything up to this message was read.
    sequence: u64,
    /// The last entry that was read.
    n: u64,
    /// How many messages to ask for.
    size: usize,
    /// Whether the last page was the last one there is.
    is_at_end: bool,
}

impl LogReader {
    pub(crate) fn new(bus: Bus, run_id: RunId) -> Self {
        Self {
            bus,
            run_id,
            sequence: 0,
            n: 0,
            size: FIRST_PAGE,
            is_at_end: false,
        }
    }

    /// Goes on after an entry, at the earliest with this message of the stream.
    pub(crate) fn seek(&mut self, n: u64, sequence: u64) {
        self.n = n;
        self.sequence = sequence.saturating_sub(1);
        self.is_at_end = false;
    }

    /// Whether there was nothing more when the last page was read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// The next entries; none when there are none yet.
    pub(crate) async fn page(&mut self) -> Result<Vec<Placed>, HttpError> {
        let subject = RunLog { run: self.run_id };
        let replay = self
            .bus
            .replay(
                stream::run_logs(self.bus.prefix()),
                &subject,
                self.sequence + 1,
                self.size,
            )
            .await
            .map_err(unreadable)?;
        self.sequence = self.sequence.max(replay.last_sequence);
        self.is_at_end = replay.remaining == 0;
        let messages = replay.messages.into_iter();
        let messages: Vec<(u64, RunLogBatch)> = messages
            .map(|(sequence, _, events)| (sequence, events))
            .collect();
        self.size = next_size(&messages);
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
            blobs::rehydrate(&self.bus, &mut entry.fact).await?;
        }
        Ok(page)
    }

    /// The next entries of a log that is known to reach entry `end`; `None` after its last.
    pub(crate) async fn page_up_to(&mut self, end: u64) -> Result<Option<Vec<Placed>>, HttpError> {
        for _ in 0..MAX_LAG_RETRIES {
            if self.is_at_end && self.n >= end {
                return Ok(None);
            }
            let page = self.page().await?;
            if !page.is_empty() {
                return Ok(Some(page));
            }
            if self.is_at_end && self.n < end {
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

    /// Entry `n`, which is in this message.
    pub(crate) async fn entry(&self, n: u64, sequence: u64) -> Result<Option<LogEntry>, HttpError> {
        let found = self.message(sequence).await?;
        let mut entries = found.into_iter().flat_map(|(_, events)| events.entries);
        let mut found = entries.find(|entry| entry.n == n);
        if let Some(entry) = &mut found {
            blobs::rehydrate(&self.bus, &mut entry.fact).await?;
        }
        Ok(found)
    }

    /// The first message at a sequence or after it.
    async fn message(&self, sequence: u64) -> Result<Option<(u64, RunLogBatch)>, HttpError> {
        let subject = RunLog { run: self.run_id };
        let stream = stream::run_logs(self.bus.prefix());
        let found = self.bus.replay(stream, &subject, sequence, 1).await;
        let found = found.map_err(unreadable)?.messages.into_iter().next();
        Ok(found.map(|(sequence, _, events)| (sequence, events)))
    }
}

/// How many messages to ask for, after a page of these.
fn next_size(messages: &[(u64, RunLogBatch)]) -> usize {
    if messages.is_empty() {
        return FIRST_PAGE;
    }
    let entries = messages.iter().flat_map(|(_, events)| &events.entries);
    let bytes: usize = entries.map(size_of).sum();
    let each = (bytes / messages.len()).max(1);
    (PAGE_BYTES / each).clamp(FIRST_PAGE / 4, PAGE)
}

/// About how many bytes an entry takes.
fn size_of(entry: &LogEntry) -> usize {
    use quintet_contract::run::RunEvent;
    const SMALL: usize = 200;
    let free = match &entry.fact {
        RunEvent::Checkpoint { checkpoint } => checkpoint.data.as_ref().map_or(0, size_of_value),
        RunEvent::Log { line, .. } => line.len(),
        RunEvent::Output { output, .. } => output.values().map(size_of_value).sum(),
        RunEvent::Progress { data, .. } => data.values().map(size_of_value).sum(),
        RunEvent::Status { output, .. } => output.as_ref().map_or(0, size_of_value),
        RunEvent::Node { node } => {
            let output = node.output.iter().flat_map(|output| output.values());
            let items = node.items.iter().flatten();
            output.chain(items).map(size_of_value).sum()
        }
        RunEvent::Unknown => 0,
    };
    SMALL + free
}

fn size_of_value(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    const PLAIN: usize = 32;
    match value {
        Value::String(text) => PLAIN + text.len(),
        Value::Array(items) => PLAIN + items.iter().map(size_of_value).sum::<usize>(),
        Value::Object(fields) => {
            let fields = fields.iter();
            PLAIN
                + fields
                    .map(|(name, value)| name.len() + size_of_value(value))
                    .sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => PLAIN,
    }
}

pub(crate) fn unreadable(error: BusError) -> HttpError {
    warn!(error = %chain(&error), "cannot read the log of a run");
    ErrorReply::unavailable("the log of this run cannot be read now; try again in a moment").into()
}
