//! The event stream of one client of a run: what was sent, and what comes next.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quintet_contract::id::RunId;
use quintet_contract::run::{RunStatus, RunStreamEvent};
use quintet_contract::run_api::RunReply;
use quintet_contract::time::Timestamp;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Last;
use super::{Kind, Mark, Replay, RunSubscription, encode, event_text};
use crate::access::quota::QuotaPermit;
use crate::error::HttpError;
use crate::http::sse::retry_event;
use crate::live::write_pacer::WritePacer;
use crate::metrics::OpenStream;
use crate::runs::events::run_log::RunLogReader;
use crate::state::App;

/// After so long a client comes back when its connection broke.
const RECONNECT_DELAY: Duration = Duration::from_secs(2);
/// Bytes that are written at once when the log is read from the stream.
const CHUNK: usize = 64 * 1024;
/// How long entries of a run that has ended may be missing before the stream ends without them.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// A listener so far behind does not read what it has seen.
const SEEK_DISTANCE: u64 = 512;

/// One listener.
pub(super) struct RunEventStream {
    run_id: RunId,
    subscription: RunSubscription,
    reader: RunLogReader,
    /// The last entry that was sent, or need not be.
    n: u64,
    /// The message that held it; it may hold more.
    sequence: u64,
    /// Nothing is sent until an entry is later than this.
    after: Option<Timestamp>,
    /// For a run that has ended, its last entry.
    end: Option<u64>,
    ready: VecDeque<Bytes>,
    is_done: bool,
    pacer: WritePacer,
    shutdown: CancellationToken,
    _permit: QuotaPermit,
    _open: OpenStream,
}

impl RunEventStream {
    pub(super) fn new(
        app: App,
        run_id: RunId,
        subscription: RunSubscription,
        permit: QuotaPermit,
    ) -> Self {
        Self {
            run_id,
            subscription,
            reader: RunLogReader::new(app.bus.clone(), run_id),
            n: 0,
            sequence: 0,
            after: None,
            end: None,
            ready: VecDeque::new(),
            is_done: false,
            pacer: app.live.pacer(),
            shutdown: app.shutdown.clone(),
            _permit: permit,
            _open: OpenStream::new("runs"),
        }
    }

    /// Greets, and finds where to begin.
    pub(super) async fn begin(
        &mut self,
        found: &RunReply,
        last: Option<Last>,
        replay: usize,
    ) -> Result<(), HttpError> {
        self.push_hello(found);
        self.end = found.run.status.is_final().then_some(found.entries);
        self.subscription.expect(found.entries);
        match last {
            Some(Last::Entry(n)) => {
                self.n = n;
                let newest = self.subscription.last_sequence();
                if n > SEEK_DISTANCE && matches!(self.subscription.after(n), Replay::InStream) {
                    self.sequence = self.reader.find(n, newest).await?;
                }
            }
            Some(Last::Time(at)) => self.after = Some(at),
            None => self.begin_with_checkpoints(found, replay).await?,
        }
        self.is_done |= self.end.is_some_and(|end| self.n >= end);
        Ok(())
    }

    fn push_hello(&mut self, found: &RunReply) {
        let hello = RunStreamEvent::Hello {
            run_id: self.run_id,
            status: found.run.status,
            entries: found.entries,
        };
        let retry = format!("retry: {}\n\n", RECONNECT_DELAY.as_millis());
        self.ready.push_back(retry.into());
        self.ready.push_back(event_text(&hello, None));
    }

    /// Sends the last checkpoints, then continues after the entries that were found; of a run that has ended, its end.
    async fn begin_with_checkpoints(
        &mut self,
        found: &RunReply,
        replay: usize,
    ) -> Result<(), HttpError> {
        self.n = found.entries;
        let status = found.run.status;
        if replay == 0 && !status.is_final() {
            return Ok(());
        }
        let (marks, end) = self.subscription.marks(self.n, replay).await?;
        for mark in marks {
            let event = match &mark.encoded {
                Some(encoded) => encoded.bytes.clone(),
                None => self.stored(&mark).await?,
            };
            self.ready.push_back(event);
        }
        if status.is_final() {
            let end = end.map_or_else(|| self.bare_end(status), |end| end.bytes.clone());
            self.ready.push_back(end);
        }
        Ok(())
    }

    /// The end of a run whose log is gone.
    fn bare_end(&self, status: RunStatus) -> Bytes {
        let event = RunStreamEvent::Status {
            run_id: self.run_id,
            status,
            error: None,
        };
        event_text(&event, None)
    }

    /// A checkpoint that is no longer in memory.
    async fn stored(&self, mark: &Mark) -> Result<Bytes, HttpError> {
        let found = self.reader.entry(mark.n, mark.sequence).await?;
        Ok(found.map_or_else(Bytes::new, |entry| {
            encode(self.run_id, mark.sequence, &entry).bytes
        }))
    }

    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                if !event.is_empty() {
                    return Some(event);
                }
            }
            if self.is_done {
                return None;
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {
                    self.is_done = true;
                    return Some(retry_event());
                }
                () = self.pacer.ready() => {}
            }
            match self.subscription.after(self.n) {
                Replay::Events(events) => {
                    for encoded in events {
                        if self.advance(encoded.n, encoded.at, encoded.sequence, encoded.kind) {
                            self.ready.push_back(encoded.bytes.clone());
                        }
                    }
                    self.pacer.record_write();
                }
                Replay::InStream => self.read().await,
                Replay::None => self.wait().await,
            }
        }
    }

    /// Records an entry; whether it is to be sent.
    fn advance(&mut self, n: u64, at: Timestamp, sequence: u64, kind: Kind) -> bool {
        if self.is_done || n <= self.n {
            return false;
        }
        (self.n, self.sequence) = (n, sequence);
        self.is_done = kind == Kind::End || self.end.is_some_and(|end| n >= end);
        if self.after.is_some_and(|after| at <= after) {
            return false;
        }
        self.after = None;
        true
    }

    async fn wait(&mut self) {
        // Of a run that has ended, nothing comes that is not there.
        let patience = self.end.map_or(Duration::MAX, |_| END_TIMEOUT);
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {}
            more = timeout(patience, self.subscription.changed()) => if more != Ok(true) {
                // The client comes back, here or elsewhere.
                self.is_done = true;
            }
        }
    }

    /// Reads a page of the stream.
    async fn read(&mut self) {
        self.reader.seek(self.n, self.sequence);
        let page = match self.reader.page_up_to(self.n + 1).await {
            Ok(Some(page)) => page,
            Ok(None) | Err(_) => {
                self.is_done = true;
                return;
            }
        };
        let mut chunk = BytesMut::new();
        for (sequence, entry) in page {
            let kind = Kind::of(&entry.fact);
            if self.advance(entry.n, entry.at, sequence, kind) {
                chunk.extend_from_slice(&encode(self.run_id, sequence, &entry).bytes);
            }
            if chunk.len() >= CHUNK {
                self.ready.push_back(chunk.split().freeze());
            }
        }
        self.ready.push_back(chunk.freeze());
    }
}
