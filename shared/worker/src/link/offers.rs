//! Following an agent's queue: live by subscription, the rest by reading the stream.
//!
//! Every republished offer carries its sequence and that of the offer before it. A hole means that something
//! came while the link was away, and a sequence that goes back means that the stream was recreated; both
//! end with a read of the queue. Each placement is handed on once, however it came.

use quintet_contract::job::JobAttempt;

use crate::recent::Recent;

/// Placements remembered: as many as an agent's queue holds.
const REMEMBERED: usize = 4096;

/// Where the link stands in its agent's queue.
#[derive(Debug)]
pub(super) struct Offers {
    seen: Recent<JobAttempt>,
    /// Everything up to here was handed on.
    position: u64,
    reading: Reading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Idle,
    /// A read is in flight.
    Once,
    /// A read is in flight, and something happened since that makes another one necessary.
    Again,
}

impl Offers {
    pub(super) fn new() -> Self {
        Self {
            seen: Recent::new(REMEMBERED),
            position: 0,
            reading: Reading::Idle,
        }
    }

    /// The queue must be read; from where on, unless a read is under way already.
    pub(super) fn read(&mut self) -> Option<u64> {
        if self.reading == Reading::Idle {
            self.reading = Reading::Once;
            return Some(self.position + 1);
        }
        self.reading = Reading::Again;
        None
    }

    /// A live offer came. Whether it is new, and from where the queue must be read because of it.
    pub(super) fn live(
        &mut self,
        job: JobAttempt,
        sequence: Option<u64>,
        previous: Option<u64>,
    ) -> (bool, Option<u64>) {
        let mut read = None;
        if let Some(sequence) = sequence {
            if sequence <= self.position && !self.seen.contains(&job) {
                self.position = 0;
                read = self.read();
            } else if previous.is_some_and(|previous| previous > self.position) {
                read = self.read();
            } else if self.reading == Reading::Idle {
                self.position = self.position.max(sequence);
            }
        }
        (self.seen.insert(job), read)
    }

    /// One offer of a read. Whether it is new.
    pub(super) fn replayed(&mut self, job: JobAttempt) -> bool {
        self.seen.insert(job)
    }

    /// A read came to its end: everything up to `last` was in it. From where to read on, if there is more.
    pub(super) fn read_done(&mut self, last: u64, remaining: u64) -> Option<u64> {
        self.position = self.position.max(last);
        let more = remaining > 0 || self.reading == Reading::Again;
        self.reading = Reading::Idle;
        if more { self.read() } else { None }
    }

    /// A read failed. From where to try again.
    pub(super) fn read_failed(&mut self) -> u64 {
        self.reading = Reading::Once;
        self.position + 1
    }
}

#[cfg(test)]
mod tests {
    use quintet_contract::id::JobId;
    use quintet_contract::job::Attempt;

    use super::*;

    fn job(name: &str) -> JobAttempt {
        JobAttempt {
            job_id: JobId::parse(name).unwrap(),
            attempt: Attempt(1),
        }
    }

    #[test]
    fn an_offer_that_comes_live_and_by_reading_is_one_offer() {
        let mut offers = Offers::new();
        assert_eq!(offers.read(), Some(1));
        assert_eq!(offers.live(job("a"), Some(7), Some(0)), (true, None));
        assert!(!offers.replayed(job("a")));
        assert_eq!(offers.read_done(7, 0), None);
        assert_eq!(offers.live(job("b"), Some(9), Some(7)), (true, None));
    }

    #[test]
    fn a_hole_is_read() {
        let mut offers = Offers::new();
        offers.read();
        offers.read_done(7, 0);
        assert_eq!(offers.live(job("c"), Some(12), Some(9)), (true, Some(8)));
        assert!(offers.replayed(job("b")));
        assert!(!offers.replayed(job("c")));
        assert_eq!(offers.read_done(12, 0), None);
        assert_eq!(offers.read(), Some(13));
    }

    #[test]
    fn a_recreated_stream_is_read_from_its_start() {
        let mut offers = Offers::new();
        offers.read();
        offers.read_done(5000, 0);
        assert_eq!(offers.live(job("a"), Some(2), Some(1)), (true, Some(1)));
        assert_eq!(offers.read_done(2, 0), None);
        assert_eq!(offers.read(), Some(3));
    }

    #[test]
    fn a_queue_longer_than_one_read_is_read_to_its_end() {
        let mut offers = Offers::new();
        assert_eq!(offers.read(), Some(1));
        assert_eq!(offers.read(), None, "one read at a time");
        assert_eq!(offers.read_done(10, 5), Some(11));
        assert_eq!(offers.read_done(15, 0), None);
    }
}
