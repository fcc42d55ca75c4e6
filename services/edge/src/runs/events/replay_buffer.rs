//! What is remembered of a log that somebody listens to: its newest events, and which checkpoints were the last.
//!
//! Numbers only grow. Both memories are bounded by count and by bytes; what fell out of them is in the stream.

use std::collections::VecDeque;
use std::sync::Arc;

use super::encode::{Kind, Told};

/// Events that are remembered; a listener further behind reads the stream.
const EVENTS: usize = 2_048;
/// Bytes of the events that are remembered.
const EVENT_BYTES: usize = 1024 * 1024;
/// Checkpoints that are known: the 100 that a listener may ask for, and some that came since it was answered.
const MARKS: usize = 128;
/// Bytes of the checkpoints that are kept themselves; of further ones only the place is known.
const MARK_BYTES: usize = 4 * 1024 * 1024;
/// Events that are given to a listener at once.
const AT_ONCE: usize = 256;

/// Where a checkpoint is.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) n: u64,
    pub(crate) sequence: u64,
    /// The event, unless too many bytes came after it.
    pub(crate) told: Option<Arc<Told>>,
}

/// What comes after an entry.
#[derive(Debug)]
pub(crate) enum News {
    /// Nothing yet.
    None,
    /// These, oldest first, without a gap.
    Events(Vec<Arc<Told>>),
    /// More than is remembered: the stream has it.
    InStream,
}

#[derive(Debug, Default)]
pub(super) struct Tail {
    last_n: u64,
    last_sequence: u64,
    events: VecDeque<Arc<Told>>,
    event_bytes: usize,
    marks: VecDeque<Mark>,
    mark_bytes: usize,
    end: Option<Arc<Told>>,
}

impl Tail {
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
    pub(super) fn push(&mut self, told: Told) {
        if told.n <= self.last_n {
            return;
        }
        let told = Arc::new(told);
        (self.last_n, self.last_sequence) = (told.n, told.sequence);
        self.mark(&told);
        self.event_bytes += told.bytes.len();
        self.events.push_back(told);
        while self.events.len() > EVENTS || self.event_bytes > EVENT_BYTES {
            let oldest = self.events.pop_front();
            self.event_bytes -= oldest.map_or(0, |told| told.bytes.len());
        }
    }

    fn mark(&mut self, told: &Arc<Told>) {
        match told.kind {
            Kind::End => self.end = Some(told.clone()),
            Kind::Checkpoint => {
                self.marks.push_back(Mark {
                    n: told.n,
                    sequence: told.sequence,
                    told: Some(told.clone()),
                });
                self.mark_bytes += told.bytes.len();
                self.trim_marks();
            }
            Kind::Other => {}
        }
    }

    fn trim_marks(&mut self) {
        while self.marks.len() > MARKS {
            let oldest = self.marks.pop_front().and_then(|mark| mark.told);
            self.mark_bytes -= oldest.map_or(0, |told| told.bytes.len());
        }
        for mark in &mut self.marks {
            if self.mark_bytes <= MARK_BYTES {
                break;
            }
            let told = mark.told.take();
            self.mark_bytes -= told.map_or(0, |told| told.bytes.len());
        }
    }

    /// Adds what was found in the log before the entries that were pushed.
    pub(super) fn add_older(&mut self, older: Tail) {
        let first = self.marks.front().map_or(u64::MAX, |mark| mark.n);
        let mut marks = older.marks;
        marks.retain(|mark| mark.n < first);
        marks.append(&mut self.marks);
        self.marks = marks;
        let bytes = |mark: &Mark| mark.told.as_ref().map_or(0, |told| told.bytes.len());
        self.mark_bytes = self.marks.iter().map(bytes).sum();
        self.trim_marks();
        self.end = self.end.take().or(older.end);
    }

    /// What comes after entry `n`.
    pub(super) fn after(&self, n: u64) -> News {
        if n >= self.last_n {
            return News::None;
        }
        match self.events.front() {
            Some(oldest) if oldest.n <= n + 1 => {
                let skip = self.events.partition_point(|told| told.n <= n);
                News::Events(self.events.range(skip..).take(AT_ONCE).cloned().collect())
            }
            Some(_) | None => News::InStream,
        }
    }

    /// The newest `count` checkpoints up to entry `n`, oldest first.
    pub(super) fn marks(&self, n: u64, count: usize) -> Vec<Mark> {
        let end = self.marks.partition_point(|mark| mark.n <= n);
        let begin = end.saturating_sub(count);
        self.marks.range(begin..end).cloned().collect()
    }

    /// The end of the run, if it is there.
    pub(super) fn end(&self) -> Option<Arc<Told>> {
        self.end.clone()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quintet_contract::time::Timestamp;

    use super::*;

    fn told(n: u64, kind: Kind, bytes: usize) -> Told {
        Told {
            n,
            at: Timestamp::from_millis(0),
            sequence: n * 3,
            kind,
            bytes: Bytes::from(vec![b'x'; bytes]),
        }
    }

    fn numbers(news: News) -> Option<Vec<u64>> {
        match news {
            News::None => Some(Vec::new()),
            News::Events(events) => Some(events.iter().map(|told| told.n).collect()),
            News::InStream => None,
        }
    }

    #[test]
    fn a_listener_gets_what_comes_after_its_number_or_is_sent_to_the_stream() {
        let mut tail = Tail::default();
        tail.begin_at(10, 30);
        assert_eq!(numbers(tail.after(10)), Some(vec![]));
        assert_eq!(numbers(tail.after(9)), None);
        for n in [11, 12, 12, 13] {
            tail.push(told(n, Kind::Other, 1));
        }
        assert_eq!(numbers(tail.after(10)), Some(vec![11, 12, 13]));
        assert_eq!(numbers(tail.after(12)), Some(vec![13]));
        assert_eq!(numbers(tail.after(99)), Some(vec![]));
        assert_eq!(numbers(tail.after(9)), None);
        for n in 14..5_000 {
            tail.push(told(n, Kind::Other, 1));
        }
        assert_eq!(numbers(tail.after(2_000)), None);
        assert_eq!(numbers(tail.after(4_990)).unwrap().len(), 9);
        assert_eq!(numbers(tail.after(3_000)).unwrap().len(), AT_ONCE);
        tail.push(told(5_000, Kind::Other, EVENT_BYTES));
        assert_eq!(numbers(tail.after(4_999)), Some(vec![5_000]));
        assert_eq!(numbers(tail.after(4_998)), None, "bytes are bounded, too");
    }

    #[test]
    fn the_newest_checkpoints_are_known_also_those_from_before() {
        let mut tail = Tail::default();
        tail.begin_at(100, 300);
        tail.push(told(101, Kind::Checkpoint, 10));
        tail.push(told(102, Kind::End, 10));
        let mut older = Tail::default();
        for n in 1..=100 {
            older.push(told(n, Kind::Checkpoint, 1));
        }
        tail.add_older(older);
        let marks = |n, count| -> Vec<u64> {
            let marks = tail.marks(n, count);
            marks.iter().map(|mark| mark.n).collect()
        };
        assert_eq!(marks(102, 3), [99, 100, 101]);
        assert_eq!(marks(100, 2), [99, 100]);
        assert_eq!(marks(50, 100).len(), 50);
        assert_eq!(tail.end().unwrap().n, 102);
    }

    #[test]
    fn of_large_checkpoints_only_the_place_is_kept() {
        let mut tail = Tail::default();
        for n in 1..=20 {
            tail.push(told(n, Kind::Checkpoint, MARK_BYTES / 4));
        }
        let marks = tail.marks(20, 20);
        let kept = marks.iter().filter(|mark| mark.told.is_some()).count();
        assert_eq!((marks.len(), kept), (20, 4));
        assert!(marks[19].told.is_some() && marks[0].sequence == 3);
    }
}
