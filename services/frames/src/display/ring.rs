//! Ring: frames that wait, and when each is shown.
//!
//! A frame is due when the one before it has been shown for its time. These moments lie on a grid: being late once does not
//! make the next one late. A ring that ran empty begins a new grid with the next frame.

use std::collections::VecDeque;
use std::time::Duration;

use quintet_contract::frame::Fps;

/// How long frames are shown.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For frames without a duration of their own.
    pub fps: Fps,
    /// No frame is shown shorter than this allows.
    pub max_fps: Fps,
    /// What lies between two frames besides.
    pub gap: Duration,
}

impl Pace {
    /// How long a frame with this duration in milliseconds is shown; 0 where it has none.
    pub fn display_time(&self, duration_ms: u16) -> Duration {
        let wanted = match duration_ms {
            0 => self.fps.frame(),
            // Whole milliseconds of a frame are rounded: 17 stand for 60 a second, and are not meant to be slower.
            ms if ms == self.fps.frame_ms() => self.fps.frame(),
            ms => Duration::from_millis(ms.into()),
        };
        let display_time = wanted.max(self.max_fps.frame());
        display_time + self.gap
    }
}

/// A frame was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Frames that wait, this one counted.
    pub size: usize,
    /// Frames that can wait.
    pub capacity: usize,
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// When there will be, at least a millisecond from now.
    pub retry_after: Duration,
}

/// The ring; `T` is a frame.
#[derive(Debug)]
pub struct Ring<T> {
    frames: VecDeque<(T, u16)>,
    capacity: usize,
    pace: Pace,
    /// When the next frame may be shown.
    due: Duration,
}

impl<T> Ring<T> {
    /// An empty ring for so much time.
    pub fn new(buffer: Duration, pace: Pace) -> Self {
        Self {
            frames: VecDeque::new(),
            capacity: capacity(buffer, pace.fps),
            pace,
            due: Duration::ZERO,
        }
    }

    /// Changes the pace; what waits is kept, also when there is less room now.
    pub fn set_pace(&mut self, buffer: Duration, pace: Pace) {
        self.capacity = capacity(buffer, pace.fps);
        self.pace = pace;
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames that can wait.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Takes a frame that is to be shown for so many milliseconds, 0 for the display's own time.
    pub fn push(&mut self, frame: T, duration_ms: u16, now: Duration) -> Result<Accepted, Full> {
        if self.frames.len() >= self.capacity {
            let wait = self.due.saturating_sub(now);
            return Err(Full {
                retry_after: wait.max(Duration::from_millis(1)),
            });
        }
        self.frames.push_back((frame, duration_ms));
        Ok(Accepted {
            size: self.frames.len(),
            capacity: self.capacity,
        })
    }

    /// When the next frame is to be shown; never while none waits.
    pub fn due(&self) -> Option<Duration> {
        (!self.frames.is_empty()).then_some(self.due)
    }

    /// The frame that is to be shown now.
    pub fn next(&mut self, now: Duration) -> Option<T> {
        if self.due > now {
            return None;
        }
        let (frame, duration_ms) = self.frames.pop_front()?;
        let display_time = self.pace.display_time(duration_ms);
        // Later than the whole time of a frame: the ring was empty, or the program stood still. Nothing is made up for.
        let is_on_grid = now - self.due < display_time;
        let shown_at = if is_on_grid { self.due } else { now };
        self.due = shown_at + display_time;
        Some(frame)
    }
}

fn capacity(buffer: Duration, fps: Fps) -> usize {
    // What does not fit a usize is more than any memory holds.
    let frames = (buffer.as_secs_f64() * fps.get() + 1e-9).floor();
    (frames as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(fps: f64, max: f64) -> Pace {
        Pace {
            fps: Fps::new(fps).unwrap(),
            max_fps: Fps::new(max).unwrap(),
            gap: Duration::ZERO,
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_holds_as_much_as_the_time_allows_and_one_at_least() {
        let second = ms(1000);
        for (buffer, fps, expected) in [
            (second, 30.0, 30),
            (ms(500), 30.0, 15),
            (ms(10), 30.0, 1),
            (ms(0), 30.0, 1),
            (second, 2.5, 2),
        ] {
            assert_eq!(
                Ring::<()>::new(buffer, pace(fps, 60.0)).capacity(),
                expected
            );
        }
    }

    #[test]
    fn a_full_ring_reports_when_there_is_room() {
        let mut ring = Ring::new(ms(100), pace(20.0, 30.0));
        assert_eq!(
            ring.push(1, 0, ms(0)),
            Ok(Accepted {
                size: 1,
                capacity: 2
            })
        );
        assert_eq!(ring.next(ms(0)), Some(1));
        ring.push(2, 0, ms(0)).unwrap();
        ring.push(3, 0, ms(0)).unwrap();
        let full = Full {
            retry_after: ms(40),
        };
        assert_eq!(ring.push(4, 0, ms(10)), Err(full));
        let full = Full { retry_after: ms(1) };
        assert_eq!(
            ring.push(4, 0, ms(60)),
            Err(full),
            "it is due and about to be shown"
        );
        assert_eq!(ring.next(ms(60)), Some(2));
        assert!(ring.push(4, 0, ms(60)).is_ok());
    }

    #[test]
    fn each_frame_is_shown_for_its_time_but_not_shorter_than_the_display_can() {
        let pace = Pace {
            gap: ms(5),
            ..pace(25.0, 50.0)
        };
        for (duration, expected) in [(0, 45), (40, 45), (100, 105), (10, 25)] {
            assert_eq!(pace.display_time(duration), ms(expected));
        }
        let pace = super::tests::pace(60.0, 60.0);
        assert_eq!(
            pace.display_time(17),
            pace.display_time(0),
            "17 ms are 60 frames a second"
        );
    }

    #[test]
    fn ten_minutes_of_late_wake_ups_do_not_drift() {
        let mut ring = Ring::new(ms(1000), pace(30.0, 30.0));
        let mut now = ms(0);
        let mut shown = 0_u32;
        let mut lateness = 0_u64;
        while now < Duration::from_secs(600) {
            while ring.push((), 33, now).is_ok() {}
            now = now.max(ring.due().unwrap());
            // A waiter is woken up to seven milliseconds late.
            lateness = (lateness * 5 + 3) % 8;
            now += ms(lateness);
            if ring.next(now).is_some() {
                shown += 1;
            }
        }
        assert!((17_999..=18_001).contains(&shown), "{shown}");
    }

    #[test]
    fn after_a_pause_the_next_frame_comes_at_once_and_nothing_is_made_up_for() {
        let mut ring = Ring::new(ms(1000), pace(10.0, 30.0));
        ring.push(1, 0, ms(0)).unwrap();
        assert_eq!(ring.next(ms(0)), Some(1));
        assert_eq!(ring.due(), None);
        for frame in 2..5 {
            ring.push(frame, 0, ms(5000)).unwrap();
        }
        assert_eq!(ring.next(ms(5000)), Some(2));
        assert_eq!(ring.next(ms(5001)), None);
        assert_eq!(ring.due(), Some(ms(5100)));
    }
}
