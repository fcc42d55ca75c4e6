//! Screen: the frames that wait, the image that is shown, and the counters of both.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use quintet_contract::frame::{Base64, Bitmap, Canvas, Rbm, Thousandths};
use quintet_contract::frame_api::PictureReply;
use sha2::{Digest, Sha256};

use super::ring::{Accepted, Full, Pace, Ring};

/// A display without its line.
#[derive(Debug)]
pub struct Screen {
    ring: Ring<Bitmap>,
    buffer: Duration,
    shown: Arc<Bitmap>,
    received: u64,
    ticks: u64,
    wrote: Option<Duration>,
    interval: Option<Duration>,
}

impl Screen {
    /// A display with room for frames of so much time; dark, unless it is known what it shows.
    pub fn new(canvas: Canvas, buffer: Duration, pace: Pace, shown: Option<Arc<Bitmap>>) -> Self {
        Self {
            ring: Ring::new(buffer, pace),
            buffer,
            shown: shown.unwrap_or_else(|| Arc::new(Bitmap::dark(canvas))),
            received: 0,
            ticks: 0,
            wrote: None,
            interval: None,
        }
    }

    /// Takes a frame, if there is room.
    pub fn push(&mut self, frame: Rbm<'_>, now: Duration) -> Result<Accepted, Full> {
        let bitmap = frame.bitmap(self.shown.canvas());
        let accepted = self.ring.push(bitmap, frame.duration_ms(), now)?;
        self.received += 1;
        Ok(accepted)
    }

    /// When the next frame is to be shown.
    pub fn due(&self) -> Option<Duration> {
        self.ring.due()
    }

    /// Shows the next frame, if it is time.
    pub fn show(&mut self, now: Duration) -> Option<Arc<Bitmap>> {
        self.shown = Arc::new(self.ring.next(now)?);
        self.ticks += 1;
        self.interval = self.wrote.map(|last| now.saturating_sub(last));
        self.wrote = Some(now);
        Some(self.shown.clone())
    }

    /// Changes the pace.
    pub fn set_pace(&mut self, pace: Pace) {
        self.ring.set_pace(self.buffer, pace);
    }

    /// What is shown.
    pub fn shown(&self) -> &Arc<Bitmap> {
        &self.shown
    }

    /// Frames that wait, and that can wait.
    pub fn buffer(&self) -> (usize, usize) {
        (self.ring.len(), self.ring.capacity())
    }

    /// Frames that were taken, and that were shown.
    pub fn counts(&self) -> (u64, u64) {
        (self.received, self.ticks)
    }

    /// When the last frame was shown, and how long after the one before it.
    pub fn last_write(&self) -> (Option<Duration>, Option<Thousandths>) {
        let thousandths = |interval: Duration| {
            Thousandths(i64::try_from(interval.as_micros()).unwrap_or(i64::MAX))
        };
        (self.wrote, self.interval.map(thousandths))
    }
}

/// An image for a client, without its pixels if it has them already.
pub fn reply(bitmap: &Bitmap, unless: Option<&str>) -> PictureReply {
    let rbm = bitmap.to_rbm(0, 0);
    let digest = Sha256::digest(&rbm);
    // Half of it distinguishes images.
    let digest = digest[..16].iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    let is_known = unless == Some(digest.as_str());
    PictureReply {
        rbm: (!is_known).then_some(Base64(rbm)),
        digest,
    }
}
