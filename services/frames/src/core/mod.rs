//! The frames service without I/O: the active worker, ticks, ingest of frames, and the display.
//!
//! ```text
//!   frame ──▶ checked ──▶ of the active worker ──▶ new image ──▶ token ──▶ ring ──▶ shown
//!               │ error          │                    │             │         │ full: degraded,
//!               ▼                └────────────────────┴─────────────┴─────────┘ fewer tokens, no ticks
//!           refused                         dropped and counted
//!
//!   command ──▶ queued ──▶ stored ──▶ applied, answered
//! ```
//!
//! A command holds once it is stored, one after the other; frames and ticks continue meanwhile: `step` acts and never
//! writes, `reconcile` writes what the next command changes. Time is what has passed since the clock was started.

mod bucket;
mod commands;
mod event;
mod ingest;
mod registry;
mod ticker;

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
pub use event::{Action, Answer, Command, Event, Write};
pub use ingest::{Forwarded, Ingest, Outcome};
pub use registry::{GONE_AFTER, Process, Registry, SILENT_AFTER, Transition};
pub use ticker::Ticker;

use crate::display::{Pace, Screen, reply, view};

/// What a step leads to.
pub type Effects = quintet_leader::Effects<Write, Action>;

/// How often statistics are published when nothing happens.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// Changes within this time of the last statistics are published together: a worker that sends invalid frames without
/// pause must not flood the subscribers.
const STATS_MIN_INTERVAL: Duration = Duration::from_millis(50);

/// Configuration of the core.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// The display as clients see it.
    pub display: DisplayConfig,
    /// No frame is shown shorter than this allows.
    pub max_fps: Fps,
    /// How much time the frames that wait may fill.
    pub buffer: Duration,
    /// What lies between two frames besides.
    pub gap: Duration,
    /// Workers whose processes are started here.
    pub managed: BTreeSet<WorkerId>,
    /// What the wall clock showed when the core's time was zero.
    pub epoch: Timestamp,
    /// What the display shows, as far as this process knows.
    pub shown: Option<Arc<Bitmap>>,
}

/// The desired state, as it is stored.
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
    config: CoreConfig,
    stored: Stored,
    ingest: Ingest,
    ticker: Ticker,
    screen: Screen,
    registry: Registry,
    /// Commands that wait; of the first one the write may be in flight.
    commands: VecDeque<commands::Pending>,
    is_writing: bool,
    stats: StatsPublisher,
    swept: Duration,
    line: LineState,
}

/// When statistics are published.
#[derive(Debug)]
struct StatsPublisher {
    last: Duration,
    /// Something changed since.
    is_dirty: bool,
}

impl StatsPublisher {
    fn due(&self) -> Duration {
        match self.is_dirty {
            true => self.last + STATS_MIN_INTERVAL,
            false => self.last + STATS_INTERVAL,
        }
    }
}

impl Core {
    /// Restores the core from what is stored, and what it wants done first.
    pub fn restore(config: CoreConfig, stored: Stored, now: Duration) -> (Self, Effects) {
        let configured = config.display.fps;
        let pace = Pace {
            fps: configured,
            max_fps: config.max_fps,
            gap: config.gap,
        };
        let canvas = config.display.canvas;
        let mut core = Self {
            ingest: Ingest::new(canvas, configured, now),
            ticker: Ticker::new(configured),
            screen: Screen::new(canvas, config.buffer, pace, config.shown.clone()),
            registry: Registry::default(),
            commands: VecDeque::new(),
            is_writing: false,
            stats: StatsPublisher {
                last: now,
                is_dirty: true,
            },
            swept: now,
            line: LineState::Off,
            stored: Stored::default(),
            config,
        };
        let mut effects = Effects::default();
        core.adopt(stored, now, &mut effects);
        (core, effects)
    }

    /// Adopts what is stored after all: another process may have written it, or a write that was not confirmed.
    pub fn reload(&mut self, stored: Stored, now: Duration) -> Effects {
        let mut effects = Effects::default();
        let before = self.adopt(stored, now, &mut effects);
        let mentioned: BTreeSet<&WorkerId> =
            (before.settings.keys().chain(self.stored.settings.keys())).collect();
        for worker in mentioned {
            let data = self.settings(worker);
            if data != before.settings_of(worker) {
                effects.act(Action::Notify(
                    worker.clone(),
                    FrameWorkerMessage::Config { data },
                ));
            }
        }
        effects
    }

    /// Makes this the desired state, and starts and stops workers for it. Returns what held before.
    fn adopt(&mut self, stored: Stored, now: Duration, effects: &mut Effects) -> Stored {
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
        self.mark_dirty();
        before
    }

    /// What the display shows.
    pub fn shown(&self) -> Arc<Bitmap> {
        self.screen.shown().clone()
    }

    fn set_line(&mut self, line: LineState) {
        if self.line != line {
            self.line = line;
            self.mark_dirty();
        }
    }

    fn process(&mut self, event: Event, now: Duration, effects: &mut Effects) {
        match event {
            Event::FrameReceived(worker, bytes, request) => {
                let answer = self.framed(&worker, &bytes, now, effects);
                let reply = request.map(|request| Action::Answer(request.reply(answer)));
                effects.then.extend(reply);
            }
            Event::Ingested(bytes, request) => {
                let answer = self.ingested(&bytes, now);
                let reply = request.map(|request| Action::Answer(request.reply(answer)));
                effects.then.extend(reply);
            }
            Event::HeartbeatReceived(worker, beat) => self.heartbeat(&worker, &beat, now, effects),
            Event::StatusRequested(request) => {
                let status = self.status(now);
                effects.act(Action::Answer(request.reply(Ok(status))));
            }
            Event::ImageRequested(request, get) => {
                let image = self.image(&get);
                effects.act(Action::Answer(request.reply(image)));
            }
            Event::SettingsRequested(request, worker) => {
                let settings = self.settings(&worker);
                let reply = request.reply(Ok(FrameWorkerSettings { settings }));
                effects.act(Action::Answer(reply));
            }
            Event::CommandReceived(request, command) => {
                self.command_received(request, command, effects);
            }
            Event::Stored(outcome) => self.stored(outcome, now, effects),
            Event::ProcessStarted(_) => self.mark_dirty(),
            Event::ProcessEnded(worker) => self.ended(&worker, now, effects),
            Event::LineChanged(line) => self.set_line(line),
        }
    }

    /// Does everything for which it is time.
    fn due_now(&mut self, now: Duration, effects: &mut Effects) {
        if let Some(bitmap) = self.screen.show(now) {
            effects.act(Action::Show(bitmap));
        }
        if let Some(t) = self.ticker.tick(now)
            && let Some(active) = &self.stored.state.active
        {
            effects.act(Action::Notify(
                active.clone(),
                FrameWorkerMessage::Tick { t },
            ));
        }
        if now >= self.swept + STATS_INTERVAL {
            let is_changed = self.registry.sweep(self.swept, now);
            self.swept = now;
            self.stats.is_dirty |= is_changed;
            self.restart_silent(now, effects);
        }
        if now >= self.stats.due() {
            effects.act(Action::Publish(self.statistics(now)));
            self.stats = StatsPublisher {
                last: now,
                is_dirty: false,
            };
        }
    }

    fn mark_dirty(&mut self) {
        self.stats.is_dirty = true;
    }

    fn framed(
        &mut self,
        worker: &WorkerId,
        bytes: &[u8],
        now: Duration,
        effects: &mut Effects,
    ) -> Result<Done, ErrorReply> {
        let was_wrong = self.ingest.errors().contains_key(worker);
        let outcome = self.ingest.offer(worker, bytes, now);
        if let Outcome::Malformed(error) = &outcome {
            self.mark_dirty();
            return Err(refused(error.to_string()));
        }
        let stored = &self.stored;
        let keep = |id: &WorkerId| stored.wants(id);
        let (is_new, displaced) = self.registry.framed(worker, now, keep);
        if let Some(displaced) = displaced {
            self.ingest.forget(&displaced);
        }
        if is_new || was_wrong {
            self.mark_dirty();
        }
        if let Outcome::Forward(frame) = outcome {
            self.forward(&frame, now, effects);
        }
        Ok(Done { ok: true })
    }

    fn forward(&mut self, frame: &Forwarded, now: Duration, effects: &mut Effects) {
        // It was checked for the same canvas a moment ago.
        let Ok(rbm) = Rbm::read(&frame.bytes, self.canvas()) else {
            return;
        };
        match self.screen.push(rbm, now) {
            Ok(_) => {
                self.ingest.taken(frame);
                effects.then.extend(self.screen.show(now).map(Action::Show));
            }
            Err(full) => {
                self.ingest.refused(full.retry_after, now);
                self.ticker.pause_until(now + full.retry_after);
                self.mark_dirty();
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
                self.mark_dirty();
                let ms = u64::try_from(full.retry_after.as_micros().div_ceil(1000));
                let ms = ms.unwrap_or(u64::MAX);
                let text =
                    format!("the display has no room for another frame; send it again in {ms} ms");
                let refusal = ErrorReply::new(ErrorCode::RateLimited, text);
                Err(refusal.with(RETRY_AFTER_MS, ms))
            }
        }
    }

    fn heartbeat(
        &mut self,
        worker: &WorkerId,
        beat: &FrameWorkerHeartbeat,
        now: Duration,
        effects: &mut Effects,
    ) {
        let stored = &self.stored;
        let keep = |id: &WorkerId| stored.wants(id);
        let (transition, displaced) = self.registry.heartbeat(worker, beat, now, keep);
        if let Some(displaced) = displaced {
            self.ingest.forget(&displaced);
        }
        if transition != Transition::None {
            self.mark_dirty();
        }
        if transition == Transition::Newcomer {
            self.greet(worker, effects);
        }
        // Repeated until it does what is desired.
        let known = self.registry.get(worker);
        let Some(known) = known.filter(|known| known.takes_commands(now)) else {
            return;
        };
        match (self.is_wanted(worker), known.is_running(now)) {
            (true, false) => effects.act(Action::Notify(worker.clone(), FrameWorkerMessage::Start)),
            (false, true) => effects.act(Action::Notify(worker.clone(), FrameWorkerMessage::Stop)),
            (true, true) | (false, false) => {}
        }
    }

    fn greet(&self, worker: &WorkerId, effects: &mut Effects) {
        let hello = FrameWorkerMessage::Hello {
            fps: self.ingest.fps(),
            canvas: self.canvas(),
        };
        let data = self.settings(worker);
        effects.act(Action::Notify(worker.clone(), hello));
        effects.act(Action::Notify(
            worker.clone(),
            FrameWorkerMessage::Config { data },
        ));
    }

    /// Starts a worker: by its process, or by a message.
    fn run(&mut self, worker: &WorkerId, now: Duration, effects: &mut Effects) {
        if !self.config.managed.contains(worker) {
            let known = self.registry.get(worker);
            if !known.is_some_and(|known| known.is_there(now)) {
                // It may subscribe without heartbeats, and would know neither the canvas nor its settings.
                self.greet(worker, effects);
            }
            effects.act(Action::Notify(worker.clone(), FrameWorkerMessage::Start));
            return;
        }
        let process = self.registry.get(worker).map(|known| known.process());
        if process.unwrap_or_default() == Process::None {
            self.registry.set_process(worker, Process::Running(now));
            effects.act(Action::Run(worker.clone()));
        }
        // One that ends is started again once it has.
    }

    /// Stops a worker.
    fn halt(&mut self, worker: &WorkerId, now: Duration, effects: &mut Effects) {
        let known = self.registry.get(worker);
        if let Some(Process::Running(_)) = known.map(|known| known.process()) {
            self.registry.set_process(worker, Process::Ending);
            effects.act(Action::Halt(worker.clone()));
        } else if !known.is_some_and(|known| known.is_there(now) && !known.takes_commands(now)) {
            effects.act(Action::Notify(worker.clone(), FrameWorkerMessage::Stop));
        }
    }

    fn ended(&mut self, worker: &WorkerId, now: Duration, effects: &mut Effects) {
        let was = self.registry.get(worker).map(|known| known.process());
        self.registry.set_process(worker, Process::None);
        self.mark_dirty();
        if was == Some(Process::Ending) && self.is_wanted(worker) {
            self.run(worker, now, effects);
        }
    }

    /// Starts the process of the active worker again when no frame came from it for long: it hangs, or has ended.
    fn restart_silent(&mut self, now: Duration, effects: &mut Effects) {
        let Some(active) = self.stored.state.active.clone() else {
            return;
        };
        if !self.config.managed.contains(&active) {
            return;
        }
        let known = self.registry.get(&active);
        let is_silent = known
            .and_then(|known| known.silent_since())
            .is_some_and(|since| now >= since + SILENT_AFTER);
        match known.map(|known| known.process()).unwrap_or_default() {
            Process::Running(_) if is_silent => {
                self.halt(&active, now, effects);
                self.mark_dirty();
            }
            Process::None => {
                self.run(&active, now, effects);
                self.mark_dirty();
            }
            Process::Running(_) | Process::Ending => {}
        }
    }

    fn is_wanted(&self, worker: &WorkerId) -> bool {
        self.stored.wants(worker)
    }

    fn is_known(&self, worker: &WorkerId, now: Duration) -> bool {
        self.config.managed.contains(worker)
            || self.is_wanted(worker)
            || self.registry.knows(worker, now)
    }

    fn activate(&mut self, worker: Option<WorkerId>, now: Duration) {
        match &worker {
            Some(_) => self.ticker.begin(now),
            None => self.ticker.end(),
        }
        self.ingest.activate(worker);
    }

    fn effective_fps(&self) -> Fps {
        let fps = self.stored.state.fps.unwrap_or(self.config.display.fps);
        // The display may have become a slower one since the rate was set.
        if fps > self.config.max_fps {
            self.config.max_fps
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
            max_fps: self.config.max_fps,
            gap: self.config.gap,
        });
    }

    fn canvas(&self) -> Canvas {
        self.config.display.canvas
    }

    fn settings(&self, worker: &WorkerId) -> JsonObject {
        self.stored.settings_of(worker)
    }

    fn statistics(&self, now: Duration) -> FrameStats {
        let errors = self.ingest.errors().iter();
        FrameStats {
            active: self.stored.state.active.clone(),
            counts: self.ingest.counts(),
            sources: self.registry.sources(),
            fps: self.ingest.fps(),
            running: self.registry.running(now),
            errors: errors
                .map(|(id, error)| (id.clone(), error.to_string()))
                .collect(),
            degraded: self.ingest.penalty_until(now).is_some(),
        }
    }

    fn status(&self, now: Duration) -> FramesReply {
        let mut known: BTreeSet<WorkerId> = self.registry.known(now).cloned().collect();
        known.extend(self.config.managed.iter().cloned());
        known.extend(self.stored.state.active.iter().cloned());
        known.extend(self.stored.state.started.iter().cloned());
        let (buffer_size, buffer_capacity) = self.screen.buffer();
        let (frames_received, writer_ticks) = self.screen.counts();
        let (last_write, interval_ms) = self.screen.last_write();
        FramesReply {
            stats: self.statistics(now),
            known: known.into_iter().collect(),
            manual: self.stored.state.fps.is_some(),
            config: self.config.display.clone(),
            display: DisplayStats {
                buffer_size,
                buffer_capacity,
                fps_configured: self.config.display.fps,
                fps_effective: self.ingest.fps(),
                fps_max: self.config.max_fps,
                frames_received,
                writer_ticks,
                last_write_at: last_write.map(|at| self.config.epoch.after(at)),
                interval_ms,
                line: self.line,
            },
        }
    }

    fn image(&self, get: &GetPicture) -> Result<PictureReply, ErrorReply> {
        let unless = get.unless.as_deref();
        let shown: &Arc<_> = self.screen.shown();
        let Some(id) = &get.panel else {
            return Ok(reply(shown, unless));
        };
        let panels = &self.config.display.panels;
        match panels.iter().find(|panel| panel.id == *id) {
            Some(panel) => Ok(reply(&view(panel, shown), unless)),
            None => {
                let text = format!("there is no panel {id}; GET /config lists the panels");
                Err(ErrorReply::new(ErrorCode::NotFound, text))
            }
        }
    }
}

impl quintet_leader::Core for Core {
    type Time = Duration;
    type Event = Event;
    type Write = Write;
    type Action = Action;

    fn step(&mut self, event: Event, now: Duration) -> Effects {
        let mut effects = Effects::default();
        self.process(event, now, &mut effects);
        self.due_now(now, &mut effects);
        effects
    }

    /// Does what is due. Else it decides on the next command, so that nothing but that command waits for a write.
    fn reconcile(&mut self, now: Duration) -> Effects {
        let mut effects = Effects::default();
        self.due_now(now, &mut effects);
        if effects.is_empty() && !self.is_writing {
            self.decide_next(now, &mut effects);
        }
        effects
    }

    fn next_due(&self) -> Option<Duration> {
        if !self.commands.is_empty() && !self.is_writing {
            return Some(Duration::ZERO);
        }
        let others = [self.ticker.due(), self.screen.due()];
        let stats = self.stats.due();
        Some(others.into_iter().flatten().fold(stats, Duration::min))
    }
}

fn refused(text: impl Into<String>) -> ErrorReply {
    ErrorReply::new(ErrorCode::BadRequest, text)
}

#[cfg(test)]
mod tests;
