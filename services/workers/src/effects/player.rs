//! One effect as a worker of frames: when it draws, with which settings, and its heartbeats.
//!
//! ```text
//!              start
//!   ASLEEP ─────────────▶ AWAKE: a frame for every tick
//!    ▲ │ ◀──── stop ─────── │
//!    │ │                    │
//!    │ └─────────┬──────────┘
//!    │           │ a greater session beats
//!    │           ▼
//!    └───────  QUIET: the other program draws
//!   it leaves, or is silent for 3 s
//! ```
//!
//! At most one frame is drawn at a time; of the ticks that come meanwhile the latest counts. A worker that returns
//! begins a new session, so that it gets hello and its settings again.

#[cfg(test)]
mod tests;

use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::frame::{Bitmap, Canvas};
use quintet_contract::frame_api::{FrameWorkerHeartbeat, FrameWorkerMessage};
use tokio::time::Instant;

use super::{Animation, Kind, Options, SettingError};

/// Silence after which the program of a greater session is gone.
const STALE_AFTER: Duration = Duration::from_secs(3);
/// Stands in for a canvas that is not known yet.
const ANY_CANVAS: Canvas = Canvas {
    width: 1,
    height: 1,
};

/// What happened.
pub(super) enum Event {
    /// A message came for it.
    MessageReceived(FrameWorkerMessage),
    /// A heartbeat in its name, perhaps its own.
    HeartbeatReceived(FrameWorkerHeartbeat),
    /// A frame is drawn.
    Drawn(Drawn),
    /// Another second went by; a session that was never used comes along.
    SecondPassed(String),
    /// The connection was away, and messages with it; a session that was never used comes along.
    Reconnected(String),
}

/// What is to be done about it.
pub(super) enum Effect {
    /// Beat.
    Publish(FrameWorkerHeartbeat),
    /// Draw a frame.
    Draw(Draw),
    /// Send a frame.
    Send(Vec<u8>),
    /// Report that settings are invalid.
    ReportError(SettingError),
}

/// A frame to be drawn.
pub(super) struct Draw {
    number: u64,
    effect: Box<dyn Animation>,
    options: Options,
    at: Duration,
}

/// A frame that was drawn.
pub(super) struct Drawn {
    number: u64,
    effect: Box<dyn Animation>,
    bitmap: Bitmap,
}

impl Draw {
    /// Draws it, which may take long.
    pub(super) fn run(mut self) -> Drawn {
        Drawn {
            bitmap: self.options.apply(self.effect.draw(self.at)),
            number: self.number,
            effect: self.effect,
        }
    }
}

enum State {
    /// The program of a greater session is believed to be there until then.
    Quiet {
        until: Instant,
    },
    Asleep,
    Awake,
}

/// The effect.
pub(super) struct Player {
    kind: Kind,
    session: String,
    state: State,
    canvas: Option<Canvas>,
    /// The last that were good.
    settings: JsonObject,
    options: Options,
    complaint: Option<SettingError>,
    /// None while it is asleep, has no canvas, or is being drawn.
    effect: Option<Box<dyn Animation>>,
    /// Counts the effects that were made: frames of older ones are stale.
    number: u64,
    is_drawing: bool,
    /// Settings have changed since the effect that is being drawn was made.
    is_outdated: bool,
    /// The latest tick that has no frame yet.
    due: Option<Duration>,
    seq: u32,
}

impl Player {
    pub(super) fn new(kind: Kind, session: String) -> Self {
        Self {
            kind,
            session,
            state: State::Asleep,
            canvas: None,
            settings: JsonObject::new(),
            options: Options::default(),
            complaint: None,
            effect: None,
            number: 0,
            is_drawing: false,
            is_outdated: false,
            due: None,
            seq: 0,
        }
    }

    pub(super) fn step(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            Event::MessageReceived(message) => self.message_received(message),
            Event::HeartbeatReceived(beat) => self.heartbeat_received(&beat, now),
            Event::Drawn(drawn) => self.drawn(drawn),
            Event::SecondPassed(fresh) => self.second_passed(fresh, now),
            Event::Reconnected(fresh) => self.reconnected(fresh),
        }
    }

    /// Its goodbye; nothing when another worker sends in its name.
    pub(super) fn goodbye(&self) -> Option<FrameWorkerHeartbeat> {
        let beat = self.beat()?;
        Some(FrameWorkerHeartbeat {
            leaves: true,
            ..beat
        })
    }

    fn beat(&self) -> Option<FrameWorkerHeartbeat> {
        let running = match self.state {
            State::Quiet { .. } => return None,
            State::Asleep => false,
            State::Awake => true,
        };
        Some(FrameWorkerHeartbeat {
            session: self.session.clone(),
            running,
            effects: vec![self.kind.name().to_owned()],
            ..FrameWorkerHeartbeat::default()
        })
    }

    fn heartbeat(&self) -> Vec<Effect> {
        self.beat().map(Effect::Publish).into_iter().collect()
    }

    fn message_received(&mut self, message: FrameWorkerMessage) -> Vec<Effect> {
        if let State::Quiet { .. } = self.state {
            return Vec::new();
        }
        match message {
            FrameWorkerMessage::Hello { fps: _, canvas } => self.resize(canvas),
            FrameWorkerMessage::Config { data } => self.configure(data),
            FrameWorkerMessage::Tick { t } => match self.state {
                State::Awake => {
                    self.due = Some(Duration::try_from_secs_f64(t.get()).unwrap_or_default());
                    self.draw()
                }
                State::Asleep | State::Quiet { .. } => Vec::new(),
            },
            FrameWorkerMessage::Start => self.start(),
            FrameWorkerMessage::Stop => self.stop(),
            FrameWorkerMessage::Unknown => Vec::new(),
        }
    }

    /// Starts again, unless it has started; a heartbeat reports at once that it runs.
    fn start(&mut self) -> Vec<Effect> {
        if let State::Asleep = self.state {
            self.state = State::Awake;
            self.due = None;
            self.remake();
        }
        self.heartbeat()
    }

    fn stop(&mut self) -> Vec<Effect> {
        self.state = State::Asleep;
        self.remake();
        self.heartbeat()
    }

    fn resize(&mut self, canvas: Canvas) -> Vec<Effect> {
        if self.canvas != Some(canvas) {
            self.canvas = Some(canvas);
            self.remake();
        }
        self.draw()
    }

    /// Makes the effect from the beginning, where there is to be one.
    fn remake(&mut self) {
        self.number += 1;
        self.is_outdated = false;
        self.effect = match self.state {
            State::Awake => self.made(),
            State::Asleep | State::Quiet { .. } => None,
        };
    }

    fn made(&self) -> Option<Box<dyn Animation>> {
        self.kind.make(&self.settings, self.canvas?).ok()
    }

    fn configure(&mut self, settings: JsonObject) -> Vec<Effect> {
        match self.check(&settings) {
            Ok(options) => {
                self.options = options;
                self.settings = settings;
                self.complaint = None;
            }
            Err(error) if self.complaint.as_ref() == Some(&error) => return Vec::new(),
            Err(error) => {
                self.complaint = Some(error.clone());
                return vec![Effect::ReportError(error)];
            }
        }
        match self.effect.take() {
            Some(effect) => self.effect = self.refreshed(effect),
            None => self.is_outdated = true,
        }
        Vec::new()
    }

    fn check(&self, settings: &JsonObject) -> Result<Options, SettingError> {
        self.kind
            .make(settings, self.canvas.unwrap_or(ANY_CANVAS))?;
        Options::read(settings)
    }

    /// An effect with the settings of now; what has none continues.
    fn refreshed(&self, effect: Box<dyn Animation>) -> Option<Box<dyn Animation>> {
        match effect.has_settings() {
            true => self.made(),
            false => Some(effect),
        }
    }

    /// Begins the frame of the latest tick, unless one is being drawn.
    fn draw(&mut self) -> Vec<Effect> {
        let Some(at) = self.due.filter(|_| !self.is_drawing) else {
            return Vec::new();
        };
        let Some(effect) = self.effect.take() else {
            return Vec::new();
        };
        self.due = None;
        self.is_drawing = true;
        vec![Effect::Draw(Draw {
            number: self.number,
            effect,
            options: self.options,
            at,
        })]
    }

    fn drawn(&mut self, drawn: Drawn) -> Vec<Effect> {
        self.is_drawing = false;
        let mut effects = Vec::new();
        if drawn.number == self.number {
            self.effect = match std::mem::take(&mut self.is_outdated) {
                true => self.refreshed(drawn.effect),
                false => Some(drawn.effect),
            };
            effects.push(Effect::Send(drawn.bitmap.to_rbm(self.seq, 0)));
            self.seq = self.seq.wrapping_add(1);
        }
        effects.extend(self.draw());
        effects
    }

    fn heartbeat_received(&mut self, beat: &FrameWorkerHeartbeat, now: Instant) -> Vec<Effect> {
        if beat.session <= self.session {
            return Vec::new();
        }
        if let (State::Asleep | State::Awake, true) = (&self.state, beat.leaves) {
            return Vec::new();
        }
        let until = if beat.leaves { now } else { now + STALE_AFTER };
        self.state = State::Quiet { until };
        self.remake();
        Vec::new()
    }

    fn second_passed(&mut self, fresh: String, now: Instant) -> Vec<Effect> {
        match self.state {
            State::Quiet { until } if now < until => return Vec::new(),
            State::Quiet { .. } => {
                self.state = State::Asleep;
                self.session = fresh;
            }
            // It missed earlier messages.
            State::Awake if self.canvas.is_none() => self.session = fresh,
            State::Asleep | State::Awake => {}
        }
        self.heartbeat()
    }

    fn reconnected(&mut self, fresh: String) -> Vec<Effect> {
        match self.state {
            State::Quiet { .. } => {}
            State::Asleep | State::Awake => self.session = fresh,
        }
        self.heartbeat()
    }
}
