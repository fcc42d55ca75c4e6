//! Commands of operators: each is checked when it is the next one, stored, and only then applied and answered.

use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::api::Done;
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::frame::{Fps, Thousandths};
use quintet_contract::frame_api::{FrameWorkerMessage, FrameWorkerSettings, FramesState};
use quintet_contract::id::WorkerId;
use quintet_contract::reply::RequestId;

use super::event::{Action, Command, Write};
use super::{Core, Effects, refused};

/// Most commands in the queue; more are refused, to be sent again.
const MOST_WAITING: usize = 256;
/// Most bytes of one worker's settings, written as JSON: a message has room for them, and for what goes with them.
const MOST_SETTINGS: usize = 512 * 1024;

/// A command that waits.
#[derive(Debug)]
pub(super) struct Pending {
    request: RequestId<Done>,
    command: Command,
}

/// What becomes of the next command.
enum Decision {
    /// This is stored first.
    Store(Write),
    /// Nothing is to be stored for it.
    Now,
    /// It is refused.
    Refuse(ErrorReply),
}

impl Command {
    /// Changes the desired state.
    fn change(&self, state: &mut FramesState) {
        match self {
            Self::Activate(worker) => {
                // The worker that was active is stopped, also when it had been started by hand.
                if let Some(former) = state.active.take() {
                    state.started.remove(&former);
                }
                state.active.clone_from(worker);
            }
            Self::Start(worker) => {
                state.started.insert(worker.clone());
            }
            Self::Stop(worker) => {
                state.started.remove(worker);
                if state.active.as_ref() == Some(worker) {
                    state.active = None;
                }
            }
            Self::SetRate(rate) => state.fps = rate.and_then(Fps::of),
            Self::Configure(..) => {}
        }
    }
}

impl Core {
    pub(super) fn command_received(
        &mut self,
        request: RequestId<Done>,
        command: Command,
        effects: &mut Effects,
    ) {
        if self.commands.len() >= MOST_WAITING {
            let text = "too many changes are waiting to be stored; send the same request again in a moment";
            let refusal = Err(ErrorReply::unavailable(text));
            effects.act(Action::Answer(request.reply(refusal)));
            return;
        }
        self.commands.push_back(Pending { request, command });
    }

    /// The outcome of the write in flight is known.
    pub(super) fn stored(
        &mut self,
        outcome: Result<(), ErrorReply>,
        now: Duration,
        effects: &mut Effects,
    ) {
        if !std::mem::take(&mut self.is_writing) {
            return;
        }
        let Some(Pending { request, command }) = self.commands.pop_front() else {
            return;
        };
        if outcome.is_ok() {
            self.apply(command, now, effects);
        }
        let answer = outcome.map(|()| Done { ok: true });
        effects.act(Action::Answer(request.reply(answer)));
    }

    /// Decides on the commands that wait, up to the first one that has to be stored. That is written alone: no answer to
    /// another waits for it.
    pub(super) fn decide_next(&mut self, now: Duration, effects: &mut Effects) {
        while let Some(Pending { request, command }) = self.commands.front() {
            let request = *request;
            let answer = match self.decide(command, now) {
                Decision::Store(write) => {
                    if effects.is_empty() {
                        self.is_writing = true;
                        effects.write(write);
                    }
                    return;
                }
                Decision::Now => Ok(Done { ok: true }),
                Decision::Refuse(refusal) => Err(refusal),
            };
            let decided = self.commands.pop_front();
            if let (Ok(_), Some(Pending { command, .. })) = (&answer, decided) {
                self.apply(command, now, effects);
            }
            effects.act(Action::Answer(request.reply(answer)));
        }
    }

    fn decide(&self, command: &Command, now: Duration) -> Decision {
        let named = match command {
            Command::Activate(worker) => worker.as_ref(),
            Command::Start(worker) | Command::Stop(worker) => Some(worker),
            Command::Configure(..) | Command::SetRate(_) => None,
        };
        if named.is_some_and(|worker| !self.is_known(worker, now)) {
            return Decision::Refuse(refused("unknown worker id"));
        }
        match command {
            Command::Configure(worker, patch) => return self.decide_settings(worker, patch),
            Command::SetRate(Some(rate)) => {
                if let Err(refusal) = self.check_rate(*rate) {
                    return Decision::Refuse(refusal);
                }
            }
            Command::Activate(_)
            | Command::Start(_)
            | Command::Stop(_)
            | Command::SetRate(None) => {}
        }
        let mut state = self.stored.state.clone();
        command.change(&mut state);
        match state == self.stored.state {
            true => Decision::Now,
            false => Decision::Store(Write::State(state)),
        }
    }

    fn decide_settings(&self, worker: &WorkerId, patch: &JsonObject) -> Decision {
        let settings = self.merged(worker, patch);
        let bytes = serde_json::to_string(&settings).map_or(usize::MAX, |text| text.len());
        if bytes > MOST_SETTINGS {
            let text = format!(
                "the settings of a worker may have {MOST_SETTINGS} bytes together; send less, or keep the rest elsewhere"
            );
            let refusal = ErrorReply::new(ErrorCode::PayloadTooLarge, text);
            return Decision::Refuse(refusal);
        }
        if self.stored.settings.get(worker) == Some(&settings) {
            return Decision::Now;
        }
        Decision::Store(Write::Settings(
            worker.clone(),
            FrameWorkerSettings { settings },
        ))
    }

    fn merged(&self, worker: &WorkerId, patch: &JsonObject) -> JsonObject {
        let mut settings = self.settings(worker);
        settings.extend(patch.clone());
        settings
    }

    fn check_rate(&self, rate: Thousandths) -> Result<(), ErrorReply> {
        let fps = Fps::of(rate).ok_or_else(|| refused("fps must be >= 1"))?;
        let max = self.config.max_fps;
        match fps <= max {
            true => Ok(()),
            false => Err(refused(format!("fps exceeds max {max}"))),
        }
    }

    /// Applies a command that is stored.
    fn apply(&mut self, command: Command, now: Duration, effects: &mut Effects) {
        self.mark_dirty();
        let former = self.stored.state.active.clone();
        command.change(&mut self.stored.state);
        match command {
            Command::Activate(worker) => {
                self.activate(worker.clone(), now);
                if let Some(former) = former.filter(|former| Some(former) != worker.as_ref()) {
                    self.halt(&former, now, effects);
                }
                if let Some(worker) = worker {
                    self.run(&worker, now, effects);
                }
            }
            Command::Start(worker) => self.run(&worker, now, effects),
            Command::Stop(worker) => {
                if former.as_ref() == Some(&worker) {
                    self.activate(None, now);
                }
                self.halt(&worker, now, effects);
            }
            Command::Configure(worker, patch) => {
                let data = self.merged(&worker, &patch);
                self.stored.settings.insert(worker.clone(), data.clone());
                effects.act(Action::Notify(worker, FrameWorkerMessage::Config { data }));
            }
            Command::SetRate(_) => self.set_rate(self.effective_fps(), now),
        }
    }
}
