//! Ingest: the one path of all frames, from any worker and transport: checked, of the active worker, not the same image
//! again, not too many.

use std::collections::BTreeMap;
use std::time::Duration;

use quintet_contract::frame::{Canvas, Fps, Rbm, RbmError};
use quintet_contract::frame_api::FrameCounts;
use quintet_contract::id::WorkerId;

use super::bucket::Bucket;

/// Most workers whose last frame was none that are remembered.
const MOST_ERRORS: usize = 256;

/// What is done with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes to the display; [`Ingest::taken`] or [`Ingest::refused`] records its answer.
    Forward(Forwarded),
    /// The display shows the same image already.
    Duplicate,
    /// There were too many.
    Throttled,
    /// Another worker is active.
    Inactive,
    /// It is none.
    Malformed(RbmError),
}

/// A frame in flight to the display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Who drew it.
    pub worker: WorkerId,
    /// The frame, with the time of the current rate.
    pub bytes: Vec<u8>,
    checksum: u32,
}

/// What frames go through.
#[derive(Debug)]
pub struct Ingest {
    canvas: Canvas,
    bucket: Bucket,
    active: Option<WorkerId>,
    /// Of each worker's last frame that the display took.
    shown: BTreeMap<WorkerId, u32>,
    counts: FrameCounts,
    /// Why a worker's last frame was none.
    errors: BTreeMap<WorkerId, RbmError>,
}

impl Ingest {
    /// No worker is active yet.
    pub fn new(canvas: Canvas, fps: Fps, now: Duration) -> Self {
        Self {
            canvas,
            bucket: Bucket::new(fps, now),
            active: None,
            shown: BTreeMap::new(),
            counts: FrameCounts::default(),
            errors: BTreeMap::new(),
        }
    }

    /// Makes a worker the active one, or none. Its frame is shown, be it the same as before.
    pub fn activate(&mut self, worker: Option<WorkerId>) {
        if let Some(worker) = &worker {
            self.shown.remove(worker);
        }
        self.active = worker;
    }

    /// The active worker.
    pub fn active(&self) -> Option<&WorkerId> {
        self.active.as_ref()
    }

    /// The counters of frames so far.
    pub fn counts(&self) -> FrameCounts {
        self.counts
    }

    /// Why workers' last frames were none.
    pub fn errors(&self) -> &BTreeMap<WorkerId, RbmError> {
        &self.errors
    }

    /// The rate.
    pub fn fps(&self) -> Fps {
        self.bucket.fps()
    }

    /// Changes the rate.
    pub fn set_fps(&mut self, fps: Fps, now: Duration) {
        self.bucket.set_fps(fps, now);
    }

    /// Until when no ticks are given, because the display refused a frame.
    pub fn penalty_until(&self, now: Duration) -> Option<Duration> {
        self.bucket.penalty_until(now)
    }

    /// Forgets everything about a worker that is gone.
    pub fn forget(&mut self, worker: &WorkerId) {
        self.shown.remove(worker);
        self.errors.remove(worker);
    }

    /// Decides about a frame.
    pub fn offer(&mut self, worker: &WorkerId, bytes: &[u8], now: Duration) -> Outcome {
        self.counts.received += 1;
        let outcome = self.decide(worker, bytes, now);
        if !matches!(outcome, Outcome::Forward(_)) {
            self.counts.dropped += 1;
        }
        outcome
    }

    fn decide(&mut self, worker: &WorkerId, bytes: &[u8], now: Duration) -> Outcome {
        let frame = match Rbm::read(bytes, self.canvas) {
            Ok(frame) => frame,
            Err(error) => {
                if self.errors.len() >= MOST_ERRORS && !self.errors.contains_key(worker) {
                    self.errors.pop_first();
                }
                self.errors.insert(worker.clone(), error);
                return Outcome::Malformed(error);
            }
        };
        self.errors.remove(worker);
        if self.active.as_ref() != Some(worker) {
            return Outcome::Inactive;
        }
        let checksum = crc32fast::hash(frame.payload());
        if self.shown.get(worker) == Some(&checksum) {
            return Outcome::Duplicate;
        }
        if !self.bucket.has_token(now) {
            return Outcome::Throttled;
        }
        self.bucket.take();
        Outcome::Forward(Forwarded {
            worker: worker.clone(),
            bytes: frame.with_duration(self.bucket.fps().frame_ms()),
            checksum,
        })
    }

    /// The display took a frame.
    pub fn taken(&mut self, frame: &Forwarded) {
        self.counts.forwarded += 1;
        // A worker that was activated again since then shows its image again.
        if self.active.as_ref() == Some(&frame.worker) {
            self.shown.insert(frame.worker.clone(), frame.checksum);
        }
    }

    /// The display refused a frame and wants to be left alone for so long; the same frame may come again.
    pub fn refused(&mut self, wait: Duration, now: Duration) {
        self.counts.dropped += 1;
        self.bucket.refused(wait, now);
    }
}

#[cfg(test)]
mod tests {
    use quintet_contract::frame::Bitmap;

    use super::*;

    const CANVAS: Canvas = Canvas {
        width: 28,
        height: 14,
    };
    const NOW: Duration = Duration::from_secs(100);

    fn worker(name: &str) -> WorkerId {
        WorkerId::parse(name).unwrap()
    }

    fn frame(x: u16, seq: u32) -> Vec<u8> {
        let mut bitmap = Bitmap::dark(CANVAS);
        bitmap.set(x, 3, true);
        bitmap.to_rbm(seq, 0)
    }

    fn ingest(fps: f64) -> Ingest {
        let mut ingest = Ingest::new(CANVAS, Fps::new(fps).unwrap(), NOW);
        ingest.activate(Some(worker("dot")));
        ingest
    }

    /// Offers a frame, and lets the display take it.
    fn shown(ingest: &mut Ingest, name: &str, bytes: &[u8]) -> bool {
        match ingest.offer(&worker(name), bytes, NOW) {
            Outcome::Forward(frame) => {
                ingest.taken(&frame);
                true
            }
            _ => false,
        }
    }

    #[test]
    fn the_same_image_is_shown_once_until_its_worker_is_activated_again() {
        let mut ingest = ingest(30.0);
        assert!(shown(&mut ingest, "dot", &frame(1, 1)));
        assert_eq!(
            ingest.offer(&worker("dot"), &frame(1, 2), NOW),
            Outcome::Duplicate
        );
        assert!(shown(&mut ingest, "dot", &frame(2, 3)));
        assert!(shown(&mut ingest, "dot", &frame(1, 4)));
        ingest.activate(Some(worker("dot")));
        assert!(shown(&mut ingest, "dot", &frame(1, 5)));
        let counts = FrameCounts {
            received: 5,
            forwarded: 4,
            dropped: 1,
        };
        assert_eq!(ingest.counts(), counts);
    }

    #[test]
    fn a_frame_that_was_throttled_or_refused_may_come_again() {
        let mut ingest = ingest(1.0);
        let Outcome::Forward(first) = ingest.offer(&worker("dot"), &frame(1, 1), NOW) else {
            panic!("the bucket is full at first");
        };
        assert_eq!(first.bytes[12..14], 1000_u16.to_be_bytes());
        ingest.refused(Duration::from_secs(2), NOW);
        assert_eq!(
            ingest.penalty_until(NOW),
            Some(NOW + Duration::from_secs(2))
        );
        assert_eq!(
            ingest.offer(&worker("dot"), &frame(1, 2), NOW),
            Outcome::Throttled
        );
        let later = NOW + Duration::from_secs(3);
        let again = ingest.offer(&worker("dot"), &frame(1, 3), later);
        assert!(matches!(again, Outcome::Forward(_)), "{again:?}");
        let counts = ingest.counts();
        assert_eq!(
            (counts.received, counts.forwarded, counts.dropped),
            (3, 0, 2)
        );
    }

    #[test]
    fn an_inactive_worker_takes_no_token() {
        let mut ingest = ingest(1.0);
        for seq in 0..1000 {
            let offered = ingest.offer(&worker("loud"), &frame(seq as u16 % 28, seq), NOW);
            assert_eq!(offered, Outcome::Inactive);
        }
        assert!(shown(&mut ingest, "dot", &frame(1, 1)));
    }

    #[test]
    fn what_is_wrong_with_a_workers_frames_is_kept_until_one_is_right() {
        let mut ingest = ingest(30.0);
        let outcome = ingest.offer(&worker("dot"), b"RB", NOW);
        assert_eq!(outcome, Outcome::Malformed(RbmError::ShortHeader));
        assert_eq!(ingest.errors()[&worker("dot")], RbmError::ShortHeader);
        assert!(shown(&mut ingest, "dot", &frame(1, 1)));
        assert!(ingest.errors().is_empty());
    }
}
