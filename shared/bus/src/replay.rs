//! Replaying what a stream kept of one subject, without a consumer.
//!
//! To join live: subscribe first, replay, then drop what the subscription brings up to
//! [`Replay::last_sequence`].

use std::collections::VecDeque;

use quintet_contract::subject::Subject;
use quintet_contract::time::Timestamp;
use tracing::debug;

use crate::codec::decode;
use crate::connect::Bus;
use crate::direct_get::{self, PageLimit};
use crate::error::{BusError, ReadError};
use crate::metrics::{self, DecodeSite};
use crate::stored::Stored;

/// A part of what a stream kept of one subject, oldest first.
pub struct Replay<S: Subject> {
    /// Sequence, time of storage, message.
    pub messages: Vec<(u64, Timestamp, S::Message)>,
    /// Everything of the subject up to here was read; the sequence before the first when there was nothing.
    pub last_sequence: u64,
    /// How many newer messages the subject had when this was read.
    pub remaining: u64,
}

/// Messages of a tail that are searched for first.
const TAIL_BEGIN: usize = 64;
/// The factor by which the next search is larger.
const TAIL_GROWTH: usize = 8;
/// Messages of one request.
const BATCH: usize = 1_000;

/// The newest messages that were read, bounded in number and bytes.
struct Tail {
    messages: VecDeque<Stored>,
    count: usize,
    bytes: usize,
    max_bytes: usize,
    /// Whether any was left out because of the bytes.
    is_cut: bool,
}

impl Tail {
    fn new(count: usize, max_bytes: usize) -> Self {
        Self {
            messages: VecDeque::new(),
            count,
            bytes: 0,
            max_bytes,
            is_cut: false,
        }
    }

    fn extend(&mut self, messages: Vec<Stored>) {
        for message in messages {
            self.bytes += message.body.len();
            self.messages.push_back(message);
            let is_large = self.bytes > self.max_bytes && self.messages.len() > 1;
            self.is_cut |= is_large;
            while self.messages.len() > self.count
                || (self.bytes > self.max_bytes && self.messages.len() > 1)
            {
                let oldest = self.messages.pop_front();
                self.bytes -= oldest.map_or(0, |oldest| oldest.body.len());
            }
        }
    }
}

fn replayed<S: Subject>(read: direct_get::Batch, from_sequence: u64) -> Replay<S> {
    let last = read.messages.last().map(|stored| stored.sequence);
    let messages = read.messages.into_iter().filter_map(read_message::<S>);
    Replay {
        messages: messages.collect(),
        last_sequence: last.unwrap_or(from_sequence.saturating_sub(1)),
        remaining: read.remaining,
    }
}

impl Bus {
    /// Sequence and time of the newest message of each subject that has one.
    ///
    /// # Errors
    /// [`BusError::NoStream`] when there is no such stream, [`BusError::Read`] when it cannot be read.
    pub async fn last_for_subjects<S: Subject>(
        &self,
        stream: String,
        subjects: &[S],
    ) -> Result<Vec<(S, u64, Timestamp)>, BusError> {
        let texts: Vec<String> = subjects
            .iter()
            .map(|subject| subject.render(self.prefix()))
            .collect();
        let newest = direct_get::last_for_subjects(self, &stream, &texts).await;
        let newest = newest.map_err(|error| failed(&stream, error))?;
        let read = newest.into_iter().filter_map(|stored| {
            let subject = S::parse(self.prefix(), &stored.subject)?;
            Some((subject, stored.sequence, stored.at))
        });
        Ok(read.collect())
    }

    /// Whether a stream still holds the message with a sequence.
    ///
    /// # Errors
    /// As [`Bus::last_for_subjects`].
    pub async fn is_stored(&self, stream: String, sequence: u64) -> Result<bool, BusError> {
        let stored = direct_get::is_stored(self, &stream, sequence).await;
        stored.map_err(|error| failed(&stream, error))
    }

    /// Up to `limit` messages of a subject, from a sequence on.
    ///
    /// # Errors
    /// As [`Bus::last_for_subjects`].
    pub async fn replay<S: Subject>(
        &self,
        stream: String,
        subject: &S,
        from_sequence: u64,
        limit: usize,
    ) -> Result<Replay<S>, BusError> {
        let subject = subject.render(self.prefix());
        let read = direct_get::read(self, &stream, &subject, from_sequence, limit).await;
        let read = read.map_err(|error| failed(&stream, error))?;
        Ok(replayed(read, from_sequence))
    }

    /// A page of the messages of a subject, from a sequence on, within a limit.
    ///
    /// # Errors
    ///
    /// The stream is not there, or did not answer in time.
    pub async fn replay_page<S: Subject>(
        &self,
        stream: String,
        subject: &S,
        from_sequence: u64,
        limit: PageLimit,
    ) -> Result<Replay<S>, BusError> {
        let subject = subject.render(self.prefix());
        let read = direct_get::read_once(self, &stream, &subject, from_sequence, limit);
        let read = read.await.map_err(|error| failed(&stream, error))?;
        Ok(replayed(read, from_sequence))
    }

    /// The newest messages of a subject, oldest first: at most `count`, and about `bytes` of them, but at least one.
    ///
    /// # Errors
    ///
    /// The stream is not there, or did not answer in time.
    pub async fn replay_last<S: Subject>(
        &self,
        stream: String,
        subject: &S,
        count: usize,
        bytes: usize,
    ) -> Result<Replay<S>, BusError> {
        let text = subject.render(self.prefix());
        let failed = |error| failed(&stream, error);
        // Few first, then more, so that what is read and left out is a small part of what is kept.
        let mut wanted = count.min(TAIL_BEGIN);
        loop {
            let from = self.start_of_last(&stream, &text, wanted).await;
            let mut next = from.map_err(failed)?;
            let mut tail = Tail::new(count.min(wanted), bytes);
            // Messages that come meanwhile belong to the newest as well.
            loop {
                let limit = PageLimit {
                    messages: BATCH,
                    bytes: Some(bytes),
                };
                let read = direct_get::read_once(self, &stream, &text, next, limit).await;
                let read = read.map_err(failed)?;
                let Some(last) = read.messages.last() else {
                    break;
                };
                next = last.sequence + 1;
                tail.extend(read.messages);
                if read.remaining == 0 {
                    break;
                }
            }
            let has_all = tail.messages.len() < wanted || wanted == count;
            if has_all || tail.is_cut {
                let messages = tail.messages.into();
                let remaining = 0;
                return Ok(replayed(
                    direct_get::Batch {
                        messages,
                        remaining,
                    },
                    next,
                ));
            }
            wanted = count.min(wanted.saturating_mul(TAIL_GROWTH));
        }
    }

    /// The sequence from which on the subject has `count` messages. The server sends with every message how
    /// many follow, so halving the distance finds it in some twenty small reads, however long the stream.
    async fn start_of_last(
        &self,
        stream: &str,
        subject: &str,
        count: usize,
    ) -> Result<u64, ReadError> {
        let wanted = u64::try_from(count).unwrap_or(u64::MAX);
        let newest = match direct_get::last_for_subject(self, stream, subject).await? {
            None => return Ok(1),
            Some(newest) if wanted == 0 => return Ok(newest.sequence + 1),
            Some(newest) => newest.sequence,
        };
        // The start is at `low` or later, and before `high`.
        let (mut low, mut high) = (1, newest + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let probe = direct_get::read(self, stream, subject, middle, 1).await?;
            let Some(found) = probe.messages.first() else {
                high = middle;
                continue;
            };
            let from_here = probe.remaining + 1;
            match from_here.cmp(&wanted) {
                std::cmp::Ordering::Equal => return Ok(found.sequence),
                // The messages between the middle and the one found are of other subjects.
                std::cmp::Ordering::Greater => low = found.sequence + 1,
                std::cmp::Ordering::Less => high = middle,
            }
        }
        // The subject has fewer than wanted.
        Ok(low)
    }
}

fn read_message<S: Subject>(stored: Stored) -> Option<(u64, Timestamp, S::Message)> {
    match decode(&stored.body) {
        Ok((message, _)) => Some((stored.sequence, stored.at, message)),
        Err(error) => {
            metrics::malformed(DecodeSite::Replay);
            debug!(subject = %stored.subject, sequence = stored.sequence, %error, "skipped an unreadable message");
            None
        }
    }
}

fn failed(stream: &str, error: ReadError) -> BusError {
    let stream = stream.to_owned();
    match error {
        ReadError::NoStream => BusError::NoStream { stream },
        ReadError::Other(source) => BusError::Read { stream, source },
    }
}
