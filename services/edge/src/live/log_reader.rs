//! Log reader: what a stream holds of one subject, page by page, bounded in bytes: the logs of jobs and of runs.

use quintet_bus::{Bus, BusError, PageLimit};
use quintet_contract::subject::Subject;

/// Messages of a page, when they are small.
const PAGE_MESSAGES: usize = 1_000;
/// Bytes of a page, or one message that is larger.
const PAGE_BYTES: usize = 1024 * 1024;

/// Messages with their sequences, oldest first.
pub(crate) type Page<S> = Vec<(u64, <S as Subject>::Message)>;

/// Reads one subject forward.
pub(crate) struct LogReader<S> {
    bus: Bus,
    stream: String,
    subject: S,
    /// Everything up to this message was read.
    sequence: u64,
    /// Whether the last page was the last one there is.
    is_at_end: bool,
}

impl<S: Subject> LogReader<S> {
    /// Begins with the oldest message.
    pub(crate) fn new(bus: Bus, stream: String, subject: S) -> Self {
        Self {
            bus,
            stream,
            subject,
            sequence: 0,
            is_at_end: false,
        }
    }

    /// Continues at this message, or the first one after it.
    pub(crate) fn seek(&mut self, sequence: u64) {
        self.sequence = sequence.saturating_sub(1);
        self.is_at_end = false;
    }

    /// Everything up to this message is known from elsewhere.
    pub(crate) fn skip(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// Whether there was nothing more when the last page was read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// The next messages; none when there are none yet.
    pub(crate) async fn page(&mut self) -> Result<Page<S>, BusError> {
        let (stream, from) = (self.stream.clone(), self.sequence + 1);
        let page = self
            .bus
            .replay_page(stream, &self.subject, from, page_of(PAGE_MESSAGES));
        let page = page.await?;
        self.is_at_end = page.remaining == 0 || page.last_sequence < from;
        self.sequence = self.sequence.max(page.last_sequence);
        Ok(without_times(page.messages))
    }

    /// The newest messages, at most `count` and about `bytes` of them; continues after them.
    pub(crate) async fn tail(&mut self, count: usize, bytes: usize) -> Result<Page<S>, BusError> {
        let stream = self.stream.clone();
        let tail = self
            .bus
            .replay_last(stream, &self.subject, count, bytes)
            .await?;
        self.sequence = self.sequence.max(tail.last_sequence);
        Ok(without_times(tail.messages))
    }

    /// The first message at a sequence or after it; the reader stays where it is.
    pub(crate) async fn message(
        &self,
        sequence: u64,
    ) -> Result<Option<(u64, S::Message)>, BusError> {
        let stream = self.stream.clone();
        let page = self
            .bus
            .replay_page(stream, &self.subject, sequence, page_of(1))
            .await?;
        Ok(without_times(page.messages).into_iter().next())
    }
}

fn without_times<T, M>(messages: Vec<(u64, T, M)>) -> Vec<(u64, M)> {
    let messages = messages.into_iter();
    messages
        .map(|(sequence, _, message)| (sequence, message))
        .collect()
}

fn page_of(messages: usize) -> PageLimit {
    PageLimit {
        messages,
        bytes: Some(PAGE_BYTES),
    }
}
