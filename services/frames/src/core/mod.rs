//! The frames service without its surroundings: who is active, who is ticked, what becomes of frames, what is shown when.
//!
//! ```text
//!   frame ──▶ checked ──▶ of the active worker ──▶ new picture ──▶ token ──▶ ring ──▶ shown
//!               │ error          │                    │             │         │ full: degraded,
//!               ▼                └────────────────────┴─────────────┴─────────┘ fewer tokens, no ticks
//!             told                          dropped and counted
//!
//!   wish ──▶ waits its turn ──▶ stored ──▶ holds, acted on, answered
//! ```
//!
//! What a person wants holds once it is stored, one wish after the other; frames and ticks go on meanwhile. Time is what has
//! passed since an arbitrary moment.

mod bucket;
mod event;
mod ingest;
mod roster;
mod ticker;
mod wishes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::api::Done;
use quintet_contract::display::{DisplayConfig, DisplayStats, LineState};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::frame::{Bitmap, Canvas, Fps, Rbm};
use quintet_contract::frame_api::{
    FrameStats, FrameWorkerHeartbeat, FrameWorkerMessage, FrameWorkerSettings, FramesReply,
    FramesState, GetPicture, IngestReply, PictureReply, RETRY_AFTER_MS,
};
use quintet_contract::id::WorkerId;
use quintet_contract::time::Timestamp;

pub use bucket::Bucket;
pub use event::{Answer, Change, Effect, Event, Wish};
pub use ingest::{Forwarded, Ingest, Outcome};
pub use roster::{GONE_AFTER, News, Process, Roster, SILENT_AFTER};
pub use ticker::Ticker;

use crate::display::{Pace, Screen, reply, view};

/// How often everybody is told how things are when nothing happens.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// What happens within this time of the last telling is told together: a worker that sends nonsense without pause shall
/// not flood those who listen.
const TELL_PAUSE: Duration = Duration::from_millis(50);

/// What the service is told at its start.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The display as everybody may see it.
    pub display: DisplayConfig,
    /// No frame is shown shorter than this allows.
    pub max_fps: Fps,
    /// How much time the frames that wait may fill.
    pub buffer: Duration,
    /// What lies between two frames besides.
    pub gap: Duration,
    /// Workers whose processes are started here.
    pub managed: BTreeSet<WorkerId>,
    /// What the wall clock said when the core's time was zero.
    pub epoch: Timestamp,
    /// What the display shows, as far as this process knows.
    pub shown: Option<Arc<Bitmap>>,
}

/// What people set, as it is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// For all.
    pub state: FramesState,
    /// For each worker.
    pub settings: BTreeMap<WorkerId, JsonObject>,
}

impl Stored {
    /// Whether a worker is to run.
    fn wants(&self, worker: &WorkerId) -> bool {
        let state = &self.state;
        state.active.as_ref() == Some(worker) || state.started.contains(worker)
    }

    /// What a worker is set to.
    fn settings_of(&self, worker: &WorkerId) -> JsonObject {
        self.settings.get(worker).cloned().unwrap_or_default()
    }
}

/// The service.
#[derive(Debug)]
pub struct Core {
    terms: Terms,
    stored: Stored,
    ingest: Ingest,
    ticker: Ticker,
    screen: Screen,
    roster: Roster,
    /// Wishes that wait; the first one is on its way to the store.
    wishes: VecDeque<wishes::Pending>,
    tell: Tell,
    swept: Duration,
    line: LineState,
}

/// When everybody is told how things are.
#[derive(Debug)]
struct Tell {
    last: Duration,
    /// Something happened since.
    owed: bool,
}

impl Core {
    /// A service that goes on with what people have set, and what it wants done first.
    pub fn restore(terms: Terms, stored: Stored, now: Duration) -> (Self, Vec<Effect>) {
        let configured = terms.display.fps;
        let pace = Pace {
            fps: configured,
            max_fps: terms.max_fps,
            gap: terms.gap,
        };
        let canvas = terms.display.canvas;
        let mut core = Self {
            ingest: Ingest::new(canvas, configured, now),
            ticker: Ticker::new(configured),
            screen: Screen::new(canvas, terms.buffer, pace, terms.shown.clone()),
            roster: Roster::default(),
            wishes: VecDeque::new(),
            tell: Tell {
                last: now,
                owed: true,
            },
            swept: now,
            line: LineState::Off,
            stored: Stored::default(),
            terms,
        };
        let mut effects = Vec::new();
        core.adopt(stored, now, &mut effects);
        (core, effects)
    }

    /// Goes on with what is stored after all: somebody else may have written it, or a write whose fate was not known.
    pub fn reload(&mut self, stored: Stored, now: Duration, effects: &mut Vec<Effect>) {
        let before = self.adopt(stored, now, effects);
        let mentioned: BTreeSet<&WorkerId> =
            (before.settings.keys().chain(self.stored.settings.keys())).collect();
        for worker in mentioned {
            let data = self.settings(worker);
            if data != before.settings_of(worker) {
                effects.push(Effect::Tell(
                    worker.clone(),
                    FrameWorkerMessage::Config { data },
                ));
            }
        }
    }

    /// Lets this hold, and those run whom it names. Gives what held before.
    fn adopt(&mut self, stored: Stored, now: Duration, effects: &mut Vec<Effect>) -> Stored {
        let before = std::mem::replace(&mut self.stored, stored);
        self.set_rate(self.effective_fps(), now);
        let FramesState {
            active, started, ..
        } = self.stored.state.clone();
        if before.state.active != active {
            self.activate(active.clone(), now);
        }
        let wanted: BTreeSet<WorkerId> = started.into_iter().chain(active).collect();
        let former = before.state.started.iter().chain(&before.state.active);
        for gone in former.filter(|id| !wanted.contains(*id)) {
            self.halt(gone, now, effects);
        }
        for id in wanted {
            self.run(&id, now, effects);
        }
        self.owe();
        before
    }

    /// What the display shows.
    pub fn shown(&self) -> Arc<Bitmap> {
        self.screen.shown().clone()
    }

    /// How the line to the panels is.
    pub fn set_line(&mut self, line: LineState) {
        if self.line != line {
            self.line = line;
            self.owe();
        }
    }

    /// Takes something in.
    pub fn step(&mut self, event: Event, now: Duration, effects: &mut Vec<Effect>) {
        match event {
            Event::Framed(worker, bytes, request) => {
                let answer = self.framed(&worker, &bytes, now, effects);
                effects.extend(request.map(|request| Effect::Answer(request.reply(answer))));
            }
            Event::Ingested(bytes, request) => {
                let answer = self.ingested(&bytes, now);
                effects.extend(request.map(|request| Effect::Answer(request.reply(answer))));
            }
            Event::Heard(worker, beat) => self.heard(&worker, &beat, now, effects),
            Event::Looked(request) => {
                let look = self.look(now);
                effects.push(Effect::Answer(request.reply(Ok(look))));
            }
            Event::PictureAsked(request, asked) => {
                let picture = self.picture(&asked);
                effects.push(Effect::Answer(request.reply(picture)));
            }
            Event::SettingsAsked(request, worker) => {
                let settings = self.settings(&worker);
                let reply = request.reply(Ok(FrameWorkerSettings { settings }));
                effects.push(Effect::Answer(reply));
            }
            Event::Wished(request, wish) => self.wished(request, wish, now, effects),
            Event::Stored(outcome) => self.stored(outcome, now, effects),
            Event::Began(_) => self.owe(),
            Event::Ended(worker) => self.ended(&worker, now, effects),
            Event::Due => {}
        }
        self.due_now(now, effects);
    }

    /// When [`Event::Due`] is to be told at the latest.
    pub fn due(&self) -> Duration {
        let tell = match self.tell.owed {
            true => self.tell.last + TELL_PAUSE,
            false => self.tell.last + TELL_EVERY,
        };
        let others = [self.ticker.due(), self.screen.due()];
        others.into_iter().flatten().fold(tell, Duration::min)
    }

    /// Does everything for which it is time.
    fn due_now(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if let Some(bitmap) = self.screen.show(now) {
            effects.push(Effect::Show(bitmap));
        }
        if let Some(t) = self.ticker.tick(now)
            && let Some(active) = &self.stored.state.active
        {
            effects.push(Effect::Tell(active.clone(), FrameWorkerMessage::Tick { t }));
        }
        if now >= self.swept + TELL_EVERY {
            let is_changed = self.roster.sweep(self.swept, now);
            self.swept = now;
            self.tell.owed |= is_changed;
            self.restart_silent(now, effects);
        }
        let since = now.saturating_sub(self.tell.last);
        if since >= TELL_EVERY || (self.tell.owed && since >= TELL_PAUSE) {
            effects.push(Effect::Publish(self.stats(now)));
            self.tell = Tell {
                last: now,
                owed: false,
            };
        }
    }

    fn owe(&mut self) {
        self.tell.owed = true;
    }

    fn framed(
        &mut self,
        worker: &WorkerId,
        bytes: &[u8],
        now: Duration,
        effects: &mut Vec<Effect>,
    ) -> Result<Done, ErrorReply> {
        let was_wrong = self.ingest.errors().contains_key(worker);
        let outcome = self.ingest.offer(worker, bytes, now);
        if let Outcome::Malformed(error) = &outcome {
            self.owe();
            return Err(refused(error.to_string()));
        }
        let stored = &self.stored;
        let keep = |id: &WorkerId| stored.wants(id);
        let (is_new, displaced) = self.roster.framed(worker, now, keep);
        if let Some(displaced) = displaced {
            self.ingest.forget(&displaced);
        }
        if is_new || was_wrong {
            self.owe();
        }
        if let Outcome::Forward(frame) = outcome {
            self.forward(&frame, now, effects);
        }
        Ok(Done { ok: true })
    }

    fn forward(&mut self, frame: &Forwarded, now: Duration, effects: &mut Vec<Effect>) {
        // It was checked for the same canvas a moment ago.
        let Ok(rbm) = Rbm::read(&frame.bytes, self.canvas()) else {
            return;
        };
        match self.screen.push(rbm, now) {
            Ok(_) => {
                self.ingest.taken(frame);
                effects.extend(self.screen.show(now).map(Effect::Show));
            }
            Err(full) => {
                self.ingest.refused(full.retry_after, now);
                self.ticker.pause_until(now + full.retry_after);
                self.owe();
            }
        }
    }

    fn ingested(&mut self, bytes: &[u8], now: Duration) -> Result<IngestReply, ErrorReply> {
        let rbm = match Rbm::read(bytes, self.canvas()) {
            Ok(rbm) => rbm,
            Err(error) => return Err(refused(error.to_string())),
        };
        match self.screen.push(rbm, now) {
            Ok(accepted) => Ok(IngestReply {
                size: accepted.size,
                capacity: accepted.capacity,
                seq: rbm.seq(),
            }),
            Err(full) => {
                self.owe();
                let ms = u64::try_from(full.retry_after.as_micros().div_ceil(1000));
                let ms = ms.unwrap_or(u64::MAX);
                let text =
                    format!("the display has no room for another frame; send it again in {ms} ms");
                let refusal = ErrorReply::new(ErrorCode::RateLimited, text);
                Err(refusal.with(RETRY_AFTER_MS, ms))
            }
        }
    }

    fn heard(
        &mut self,
        worker: &WorkerId,
        beat: &FrameWorkerHeartbeat,
        now: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let stored = &self.stored;
        let keep = |id: &WorkerId| stored.wants(id);
        let (news, displaced) = self.roster.heard(worker, beat, now, keep);
        if let Some(displaced) = displaced {
            self.ingest.forget(&displaced);
        }
        if news != News::None {
            self.owe();
        }
        if news == News::Newcomer {
            self.greet(worker, effects);
        }
        // Whether it runs is told until it does what is wanted.
        let known = self.roster.get(worker);
        let Some(known) = known.filter(|known| known.can_be_told(now)) else {
            return;
        };
        match (self.is_wanted(worker), known.is_running(now)) {
            (true, false) => effects.push(Effect::Tell(worker.clone(), FrameWorkerMessage::Start)),
            (false, true) => effects.push(Effect::Tell(worker.clone(), FrameWorkerMessage::Stop)),
            (true, true) | (false, false) => {}
        }
    }

    fn greet(&self, worker: &WorkerId, effects: &mut Vec<Effect>) {
        let hello = FrameWorkerMessage::Hello {
            fps: self.ingest.fps(),
            canvas: self.canvas(),
        };
        let data = self.settings(worker);
        effects.push(Effect::Tell(worker.clone(), hello));
        effects.push(Effect::Tell(
            worker.clone(),
            FrameWorkerMessage::Config { data },
        ));
    }

    /// Lets a worker run, in whatever way it can be made to.
    fn run(&mut self, worker: &WorkerId, now: Duration, effects: &mut Vec<Effect>) {
        if !self.terms.managed.contains(worker) {
            let known = self.roster.get(worker);
            if !known.is_some_and(|known| known.is_there(now)) {
                // It may listen without saying so, and would know neither the canvas nor its settings.
                self.greet(worker, effects);
            }
            effects.push(Effect::Tell(worker.clone(), FrameWorkerMessage::Start));
            return;
        }
        let process = self.roster.get(worker).map(|known| known.process());
        if process.unwrap_or_default() == Process::None {
            self.roster.set_process(worker, Process::Running(now));
            effects.push(Effect::Run(worker.clone()));
        }
        // One that ends is started again once it has.
    }

    /// Lets a worker run no longer.
    fn halt(&mut self, worker: &WorkerId, now: Duration, effects: &mut Vec<Effect>) {
        let known = self.roster.get(worker);
        if let Some(Process::Running(_)) = known.map(|known| known.process()) {
            self.roster.set_process(worker, Process::Ending);
            effects.push(Effect::Halt(worker.clone()));
        } else if !known.is_some_and(|known| known.is_there(now) && !known.can_be_told(now)) {
            effects.push(Effect::Tell(worker.clone(), FrameWorkerMessage::Stop));
        }
    }

    fn ended(&mut self, worker: &WorkerId, now: Duration, effects: &mut Vec<Effect>) {
        let was = self.roster.get(worker).map(|known| known.process());
        self.roster.set_process(worker, Process::None);
        self.owe();
        if was == Some(Process::Ending) && self.is_wanted(worker) {
            self.run(worker, now, effects);
        }
    }

    /// Starts the process of the active worker again when no frame came from it for long: it hangs, or has ended.
    fn restart_silent(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let Some(active) = self.stored.state.active.clone() else {
            return;
        };
        if !self.terms.managed.contains(&active) {
            return;
        }
        let known = self.roster.get(&active);
        let is_silent = known
            .and_then(|known| known.silent_since())
            .is_some_and(|since| now >= since + SILENT_AFTER);
        match known.map(|known| known.process()).unwrap_or_default() {
            Process::Running(_) if is_silent => {
                self.halt(&active, now, effects);
                self.owe();
            }
            Process::None => {
                self.run(&active, now, effects);
                self.owe();
            }
            Process::Running(_) | Process::Ending => {}
        }
    }

    fn is_wanted(&self, worker: &WorkerId) -> bool {
        self.stored.wants(worker)
    }

    fn is_known(&self, worker: &WorkerId, now: Duration) -> bool {
        self.terms.managed.contains(worker)
            || self.is_wanted(worker)
            || self.roster.knows(worker, now)
    }

    fn activate(&mut self, worker: Option<WorkerId>, now: Duration) {
        match &worker {
            Some(_) => self.ticker.begin(now),
            None => self.ticker.end(),
        }
        self.ingest.activate(worker);
    }

    fn effective_fps(&self) -> Fps {
        let fps = self.stored.state.fps.unwrap_or(self.terms.display.fps);
        // The display may have become a slower one since somebody set it.
        if fps > self.terms.max_fps {
            self.terms.max_fps
        } else {
            fps
        }
    }

    fn set_rate(&mut self, fps: Fps, now: Duration) {
        if fps == self.ingest.fps() {
            return;
        }
        self.ingest.set_fps(fps, now);
        self.ticker.set_fps(fps, now);
        self.screen.set_pace(Pace {
            fps,
            max_fps: self.terms.max_fps,
            gap: self.terms.gap,
        });
    }

    fn canvas(&self) -> Canvas {
        self.terms.display.canvas
    }

    fn settings(&self, worker: &WorkerId) -> JsonObject {
        self.stored.settings_of(worker)
    }

    fn stats(&self, now: Duration) -> FrameStats {
        let errors = self.ingest.errors().iter();
        FrameStats {
            active: self.stored.state.active.clone(),
            counts: self.ingest.counts(),
            sources: self.roster.sources(),
            fps: self.ingest.fps(),
            running: self.roster.running(now),
            errors: errors
                .map(|(id, error)| (id.clone(), error.to_string()))
                .collect(),
            degraded: self.ingest.penalty_until(now).is_some(),
        }
    }

    fn look(&self, now: Duration) -> FramesReply {
        let mut known: BTreeSet<WorkerId> = self.roster.known(now).cloned().collect();
        known.extend(self.terms.managed.iter().cloned());
        known.extend(self.stored.state.active.iter().cloned());
        known.extend(self.stored.state.started.iter().cloned());
        let (buffer_size, buffer_capacity) = self.screen.buffer();
        let (frames_received, writer_ticks) = self.screen.counts();
        let (last_write, interval_ms) = self.screen.last_write();
        FramesReply {
            stats: self.stats(now),
            known: known.into_iter().collect(),
            manual: self.stored.state.fps.is_some(),
            config: self.terms.display.clone(),
            display: DisplayStats {
                buffer_size,
                buffer_capacity,
                fps_configured: self.terms.display.fps,
                fps_effective: self.ingest.fps(),
                fps_max: self.terms.max_fps,
                frames_received,
                writer_ticks,
                last_write_at: last_write.map(|at| self.terms.epoch.after(at)),
                interval_ms,
                line: self.line,
            },
        }
    }

    fn picture(&self, asked: &GetPicture) -> Result<PictureReply, ErrorReply> {
        let unless = asked.unless.as_deref();
        let shown: &Arc<_> = self.screen.shown();
        let Some(id) = &asked.panel else {
            return Ok(reply(shown, unless));
        };
        let panels = &self.terms.display.panels;
        match panels.iter().find(|panel| panel.id == *id) {
            Some(panel) => Ok(reply(&view(panel, shown), unless)),
            None => {
                let text = format!("there is no panel {id}; GET /config lists the panels");
                Err(ErrorReply::new(ErrorCode::NotFound, text))
            }
        }
    }
}

fn refused(text: impl Into<String>) -> ErrorReply {
    ErrorReply::new(ErrorCode::BadRequest, text)
}

#[cfg(test)]
mod tests;
