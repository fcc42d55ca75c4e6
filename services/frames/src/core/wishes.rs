//! What people want changed: checked when its turn comes, stored, and only then acted on and answered.

use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::api::Done;
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::frame::{Fps, Thousandths};
use quintet_contract::frame_api::{FrameWorkerMessage, FrameWorkerSettings, FramesState};
use quintet_contract::id::WorkerId;
use quintet_contract::reply::RequestId;

use super::event::{Change, Effect, Wish};
use super::{Core, refused};

/// Most wishes that wait for their turn; more are refused, to be sent again.
const MOST_WAITING: usize = 256;
/// Most bytes of one worker's settings, written as JSON: a message has room for them, and for what goes with them.
const MOST_SETTINGS: usize = 512 * 1024;

/// A wish that waits.
#[derive(Debug)]
pub(super) struct Pending {
    request: RequestId<Done>,
    wish: Wish,
}

/// What becomes of a wish whose turn has come.
enum Turn {
    /// This is stored first.
    Store(Change),
    /// Nothing is to be stored for it.
    Now,
    /// It is refused.
    Refuse(ErrorReply),
}

impl Wish {
    /// What it makes of what people have set for all.
    fn change(&self, state: &mut FramesState) {
        match self {
            Self::Activate(worker) => {
                // Whoever was shown is stopped, also when somebody had started it by hand.
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
    pub(super) fn wished(
        &mut self,
        request: RequestId<Done>,
        wish: Wish,
        now: Duration,
        effects: &mut Vec<Effect>,
    ) {
        if self.wishes.len() >= MOST_WAITING {
            let text = "too many changes are waiting to be stored; send the same request again in a moment";
            let refusal = Err(ErrorReply::unavailable(text));
            effects.push(Effect::Answer(request.reply(refusal)));
            return;
        }
        self.wishes.push_back(Pending { request, wish });
        if self.wishes.len() == 1 {
            self.take_turn(now, effects);
        }
    }

    /// The write on its way is over.
    pub(super) fn stored(
        &mut self,
        outcome: Result<(), ErrorReply>,
        now: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Pending { request, wish }) = self.wishes.pop_front() else {
            return;
        };
        if outcome.is_ok() {
            self.grant(wish, now, effects);
        }
        let answer = outcome.map(|()| Done { ok: true });
        effects.push(Effect::Answer(request.reply(answer)));
        self.take_turn(now, effects);
    }

    /// Lets the first of those that wait have its turn, and whoever comes after one that needs no store.
    fn take_turn(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        while let Some(Pending { request, wish }) = self.wishes.front() {
            let request = *request;
            let answer = match self.look_at(wish, now) {
                Turn::Store(change) => return effects.push(Effect::Store(change)),
                Turn::Now => Ok(Done { ok: true }),
                Turn::Refuse(refusal) => Err(refusal),
            };
            let granted = self.wishes.pop_front();
            if let (Ok(_), Some(Pending { wish, .. })) = (&answer, granted) {
                self.grant(wish, now, effects);
            }
            effects.push(Effect::Answer(request.reply(answer)));
        }
    }

    fn look_at(&self, wish: &Wish, now: Duration) -> Turn {
        let named = match wish {
            Wish::Activate(worker) => worker.as_ref(),
            Wish::Start(worker) | Wish::Stop(worker) => Some(worker),
            Wish::Configure(..) | Wish::SetRate(_) => None,
        };
        if named.is_some_and(|worker| !self.is_known(worker, now)) {
            return Turn::Refuse(refused("unknown worker id"));
        }
        match wish {
            Wish::Configure(worker, patch) => return self.look_at_settings(worker, patch),
            Wish::SetRate(Some(rate)) => {
                if let Err(refusal) = self.check_rate(*rate) {
                    return Turn::Refuse(refusal);
                }
            }
            Wish::Activate(_) | Wish::Start(_) | Wish::Stop(_) | Wish::SetRate(None) => {}
        }
        let mut state = self.stored.state.clone();
        wish.change(&mut state);
        match state == self.stored.state {
            true => Turn::Now,
            false => Turn::Store(Change::State(state)),
        }
    }

    fn look_at_settings(&self, worker: &WorkerId, patch: &JsonObject) -> Turn {
        let settings = self.merged(worker, patch);
        let bytes = serde_json::to_string(&settings).map_or(usize::MAX, |text| text.len());
        if bytes > MOST_SETTINGS {
            let text = format!(
                "the settings of a worker may have {MOST_SETTINGS} bytes together; send less, or keep the rest elsewhere"
            );
            let refusal = ErrorReply::new(ErrorCode::PayloadTooLarge, text);
            return Turn::Refuse(refusal);
        }
        if self.stored.settings.get(worker) == Some(&settings) {
            return Turn::Now;
        }
        Turn::Store(Change::Settings(
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
        let max = self.terms.max_fps;
        match fps <= max {
            true => Ok(()),
            false => Err(refused(format!("fps exceeds max {max}"))),
        }
    }

    /// Makes a wish hold; it is stored.
    fn grant(&mut self, wish: Wish, now: Duration, effects: &mut Vec<Effect>) {
        self.owe();
        let former = self.stored.state.active.clone();
        wish.change(&mut self.stored.state);
        match wish {
            Wish::Activate(worker) => {
                self.activate(worker.clone(), now);
                if let Some(former) = former.filter(|former| Some(former) != worker.as_ref()) {
                    self.halt(&former, now, effects);
                }
                if let Some(worker) = worker {
                    self.run(&worker, now, effects);
                }
            }
            Wish::Start(worker) => self.run(&worker, now, effects),
            Wish::Stop(worker) => {
                if former.as_ref() == Some(&worker) {
                    self.activate(None, now);
                }
                self.halt(&worker, now, effects);
            }
            Wish::Configure(worker, patch) => {
                let data = self.merged(&worker, &patch);
                self.stored.settings.insert(worker.clone(), data.clone());
                effects.push(Effect::Tell(worker, FrameWorkerMessage::Config { data }));
            }
            Wish::SetRate(_) => self.set_rate(self.effective_fps(), now),
        }
    }
}
