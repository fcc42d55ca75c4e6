//! The replay buffer of a followed log: its newest events, and which checkpoints were the last.
//!
//! Numbers only grow. Both memories are bounded by count and by bytes; what fell out of them is in the stream.

use std::collections::VecDeque;
use std::sync::Arc;

use super::encode::{EncodedEvent, Kind};

/// Events that are remembered; a listener further behind reads the stream.
const MAX_EVENTS: usize = 2_048;
/// Bytes of the events that are remembered.
const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// Checkpoints that are known: the 100 that a client may request, and some that came since.
const MAX_MARKS: usize = 128;
/// Bytes of the checkpoints that are kept themselves; of further ones only the place is known.
const MAX_MARK_BYTES: usize = 4 * 1024 * 1024;
/// Events that are given to a listener at once.
const MAX_EVENTS_PER_READ: usize = 256;

/// Where a checkpoint is.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) n: u64,
    pub(crate) sequence: u64,
    /// The event, unless too many bytes came after it.
    pub(crate) encoded: Option<Arc<EncodedEvent>>,
}

/// What comes after an entry.
#[derive(Debug)]
pub(crate) enum Replay {
    /// Nothing yet.
    None,
    /// These, oldest first, without a gap.
    Events(Vec<Arc<EncodedEvent>>),
    /// More than is remembered: the stream has it.
    InStream,
}

#[derive(Debug, Default)]
pub(super) struct ReplayBuffer {
    last_n: u64,
    last_sequence: u64,
    events: VecDeque<Arc<EncodedEvent>>,
    event_bytes: usize,
    marks: VecDeque<Mark>,
    mark_bytes: usize,
    end: Option<Arc<EncodedEvent>>,
}

impl ReplayBuffer {
    /// Everything up to an entry is in the stream only.
    pub(super) fn begin_at(&mut self, n: u64, sequence: u64) {
        (self.last_n, self.last_sequence) = (n, sequence);
    }

    pub(super) fn last_n(&self) -> u64 {
        self.last_n
    }

    pub(super) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Remembers an entry; one that is known already is ignored.
    pub(super) fn push(&mut self, encoded: EncodedEvent) {
        if encoded.n <= self.last_n {
            return;
        }
        let encoded = Arc::new(encoded);
        (self.last_n, self.last_sequence) = (encoded.n, encoded.sequence);
        self.mark(&encoded);
        self.event_bytes += encoded.bytes.len();
        self.events.push_back(encoded);
        while self.events.len() > MAX_EVENTS || self.event_bytes > MAX_EVENT_BYTES {
            let oldest = self.events.pop_front();
            self.event_bytes -= oldest.map_or(0, |encoded| encoded.bytes.len());
        }
    }

    fn mark(&mut self, encoded: &Arc<EncodedEvent>) {
        match encoded.kind {
            Kind::End => self.end = Some(encoded.clone()),
            Kind::Checkpoint => {
                self.marks.push_back(Mark {
                    n: encoded.n,
                    sequence: encoded.sequence,
                    encoded: Some(encoded.clone()),
                });
                self.mark_bytes += encoded.bytes.len();
                self.trim_marks();
            }
            Kind::Other => {}
        }
    }

    fn trim_marks(&mut self) {
        while self.marks.len() > MAX_MARKS {
            let oldest = self.marks.pop_front().and_then(|mark| mark.encoded);
            self.mark_bytes -= oldest.map_or(0, |encoded| encoded.bytes.len());
        }
        for mark in &mut self.marks {
            if self.mark_bytes <= MAX_MARK_BYTES {
                break;
            }
            let encoded = mark.encoded.take();
            self.mark_bytes -= encoded.map_or(0, |encoded| encoded.bytes.len());
        }
    }

    /// Adds what was found in the log before the entries that were pushed.
    pub(super) fn add_older(&mut self, older: ReplayBuffer) {
        let first = self.marks.front().map_or(u64::MAX, |mark| mark.n);
        let mut marks = older.marks;
        marks.retain(|mark| mark.n < first);
        marks.append(&mut self.marks);
        self.marks = marks;
        let bytes = |mark: &Mark| {
            mark.encoded
                .as_ref()
                .map_or(0, |encoded| encoded.bytes.len())
        };
        self.mark_bytes = self.marks.iter().map(bytes).sum();
        self.trim_marks();
        self.end = self.end.take().or(older.end);
    }

    /// What comes after entry `n`.
    pub(super) fn after(&self, n: u64) -> Replay {
        if n >= self.last_n {
            return Replay::None;
        }
        match self.events.front() {
            Some(oldest) if oldest.n <= n + 1 => {
                let skip = self.events.partition_point(|encoded| encoded.n <= n);
                Replay::Events(
                    self.events
                        .range(skip..)
                        .take(MAX_EVENTS_PER_READ)
                        .cloned()
                        .collect(),
                )
            }
            Some(_) | None => Replay::InStream,
        }
    }

    /// The newest `count` checkpoints up to entry `n`, oldest first.
    pub(super) fn marks(&self, n: u64, count: usize) -> Vec<Mark> {
        let end = self.marks.partition_point(|mark| mark.n <= n);
        let begin = end.saturating_sub(count);
        self.marks.range(begin..end).cloned().collect()
    }

    /// The end of the run, if it is there.
    pub(super) fn end(&self) -> Option<Arc<EncodedEvent>> {
        self.end.clone()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quintet_contract::time::Timestamp;

    use super::*;

    fn encoded(n: u64, kind: Kind, bytes: usize) -> EncodedEvent {
        EncodedEvent {
            n,
            at: Timestamp::from_millis(0),
            sequence: n * 3,
            kind,
            bytes: Bytes::from(vec![b'x'; bytes]),
        }
    }

    fn numbers(news: Replay) -> Option<Vec<u64>> {
        match news {
            Replay::None => Some(Vec::new()),
            Replay::Events(events) => Some(events.iter().map(|encoded| encoded.n).collect()),
            Replay::InStream => None,
        }
    }

    #[test]
    fn a_listener_gets_what_comes_after_its_number_or_is_sent_to_the_stream() {
        let mut buffer = ReplayBuffer::default();
        buffer.begin_at(10, 30);
        assert_eq!(numbers(buffer.after(10)), Some(vec![]));
        assert_eq!(numbers(buffer.after(9)), None);
        for n in [11, 12, 12, 13] {
            buffer.push(encoded(n, Kind::Other, 1));
        }
        assert_eq!(numbers(buffer.after(10)), Some(vec![11, 12, 13]));
        assert_eq!(numbers(buffer.after(12)), Some(vec![13]));
        assert_eq!(numbers(buffer.after(99)), Some(vec![]));
        assert_eq!(numbers(buffer.after(9)), None);
        for n in 14..5_000 {
            buffer.push(encoded(n, Kind::Other, 1));
        }
        assert_eq!(numbers(buffer.after(2_000)), None);
        assert_eq!(numbers(buffer.after(4_990)).unwrap().len(), 9);
        assert_eq!(
            numbers(buffer.after(3_000)).unwrap().len(),
            MAX_EVENTS_PER_READ
        );
        buffer.push(encoded(5_000, Kind::Other, MAX_EVENT_BYTES));
        assert_eq!(numbers(buffer.after(4_999)), Some(vec![5_000]));
        assert_eq!(numbers(buffer.after(4_998)), None, "bytes are bounded, too");
    }

    #[test]
    fn the_newest_checkpoints_are_known_also_those_from_before() {
        let mut buffer = ReplayBuffer::default();
        buffer.begin_at(100, 300);
        buffer.push(encoded(101, Kind::Checkpoint, 10));
        buffer.push(encoded(102, Kind::End, 10));
        let mut older = ReplayBuffer::default();
        for n in 1..=100 {
            older.push(encoded(n, Kind::Checkpoint, 1));
        }
        buffer.add_older(older);
        let marks = |n, count| -> Vec<u64> {
            let marks = buffer.marks(n, count);
            marks.iter().map(|mark| mark.n).collect()
        };
        assert_eq!(marks(102, 3), [99, 100, 101]);
        assert_eq!(marks(100, 2), [99, 100]);
        assert_eq!(marks(50, 100).len(), 50);
        assert_eq!(buffer.end().unwrap().n, 102);
    }

    #[test]
    fn of_large_checkpoints_only_the_place_is_kept() {
        let mut buffer = ReplayBuffer::default();
        for n in 1..=20 {
            buffer.push(encoded(n, Kind::Checkpoint, MAX_MARK_BYTES / 4));
        }
        let marks = buffer.marks(20, 20);
        let kept = marks.iter().filter(|mark| mark.encoded.is_some()).count();
        assert_eq!((marks.len(), kept), (20, 4));
        assert!(marks[19].encoded.is_some() && marks[0].sequence == 3);
    }
}
