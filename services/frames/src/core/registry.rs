//! Registry: the workers, their transport, and which of them run.
//!
//! A worker is known because it is configured, because it sends heartbeats, or because it has sent a frame. How many
//! are remembered is bounded: of those that were never chosen, the one that was silent for longest is forgotten first.

use std::collections::BTreeMap;
use std::time::Duration;

use quintet_contract::frame_api::{FrameWorkerHeartbeat, Via};
use quintet_contract::id::WorkerId;

/// A worker that sends a heartbeat once a second, and has not for so long, is gone.
pub const GONE_AFTER: Duration = Duration::from_secs(3);
/// A worker that only sends frames runs as long as there was one in this time.
pub const SILENT_AFTER: Duration = Duration::from_secs(10);
/// Most workers that are remembered.
const MOST: usize = 1024;

/// What is known of one worker.
#[derive(Clone, Debug, Default)]
pub struct Worker {
    heartbeat: Option<LastHeartbeat>,
    /// When its last frame came that was one.
    framed: Option<Duration>,
    /// When it was no longer on the bus or on a socket: frames before that do not mean that it still runs.
    gone: Option<Duration>,
    process: Process,
    /// Its last sign of any kind.
    seen: Duration,
}

#[derive(Clone, Debug)]
struct LastHeartbeat {
    session: String,
    via: Via,
    running: bool,
    at: Duration,
}

/// The process of a worker that is started here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Process {
    /// There is none.
    #[default]
    None,
    /// It was asked for, or runs; since when.
    Running(Duration),
    /// It was asked to end.
    Ending,
}

/// The transition that a heartbeat causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// A new worker, which has to get hello.
    Newcomer,
    /// Whether it runs has changed.
    Changed,
    /// It left.
    Left,
    /// Nothing.
    None,
}

/// All workers.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    workers: BTreeMap<WorkerId, Worker>,
}

impl Worker {
    /// Whether it is on the bus or on a socket now.
    pub fn is_there(&self, now: Duration) -> bool {
        self.heartbeat
            .as_ref()
            .is_some_and(|heartbeat| now < heartbeat.at + GONE_AFTER)
    }

    /// Whether it runs now.
    pub fn is_running(&self, now: Duration) -> bool {
        if let Some(heartbeat) = self.heartbeat.as_ref().filter(|_| self.is_there(now)) {
            return heartbeat.running;
        }
        match self.process {
            Process::Running(_) => true,
            Process::Ending => false,
            Process::None => self.framed.is_some_and(|at| {
                now < at + SILENT_AFTER && Some(at) > self.gone && self.heartbeat.is_none()
            }),
        }
    }

    /// Whether it takes start and stop: those on sockets run as long as they are connected.
    pub fn takes_commands(&self, now: Duration) -> bool {
        self.is_there(now)
            && self
                .heartbeat
                .as_ref()
                .is_some_and(|heartbeat| heartbeat.via == Via::Bus)
    }

    /// Its process.
    pub fn process(&self) -> Process {
        self.process
    }

    /// Since when there was no frame, counted from the start of its process.
    pub fn silent_since(&self) -> Option<Duration> {
        match self.process {
            Process::Running(since) => Some(self.framed.unwrap_or_default().max(since)),
            Process::None | Process::Ending => None,
        }
    }
}

impl Registry {
    /// What is known of a worker.
    pub fn get(&self, id: &WorkerId) -> Option<&Worker> {
        self.workers.get(id)
    }

    /// Whether a worker is there or has sent a frame.
    pub fn knows(&self, id: &WorkerId, now: Duration) -> bool {
        self.workers
            .get(id)
            .is_some_and(|worker| worker.is_there(now) || worker.framed.is_some())
    }

    /// Every worker of which [`Registry::knows`] is true.
    pub fn known(&self, now: Duration) -> impl Iterator<Item = &WorkerId> {
        let ids = self.workers.keys();
        ids.filter(move |id| self.knows(id, now))
    }

    /// Workers that have sent a frame.
    pub fn sources(&self) -> Vec<WorkerId> {
        let framed = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.framed.is_some());
        framed.map(|(id, _)| id.clone()).collect()
    }

    /// Running workers.
    pub fn running(&self, now: Duration) -> Vec<WorkerId> {
        let running = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.is_running(now));
        running.map(|(id, _)| id.clone()).collect()
    }

    /// A heartbeat of a worker. Returns the worker that it displaced from memory as well.
    pub fn heartbeat(
        &mut self,
        id: &WorkerId,
        beat: &FrameWorkerHeartbeat,
        now: Duration,
        keep: impl Fn(&WorkerId) -> bool,
    ) -> (Transition, Option<WorkerId>) {
        if beat.leaves {
            let Some(worker) = self.workers.get_mut(id) else {
                return (Transition::None, None);
            };
            // The late goodbye of an older session does not concern the newer one.
            let is_same = worker
                .heartbeat
                .as_ref()
                .is_some_and(|heartbeat| heartbeat.session == beat.session);
            if is_same {
                worker.heartbeat = None;
                worker.gone = Some(now);
            }
            return (
                if is_same {
                    Transition::Left
                } else {
                    Transition::None
                },
                None,
            );
        }
        let displaced = self.make_room(id, &keep);
        let worker = self.workers.entry(id.clone()).or_default();
        let was_running = worker.is_running(now);
        let was_there = worker.is_there(now);
        worker.seen = now;
        let known = worker.heartbeat.as_ref().filter(|_| was_there);
        if known.is_some_and(|heartbeat| heartbeat.session > beat.session) {
            // The older of two; it is about to go.
            return (Transition::None, displaced);
        }
        let is_new = known.is_none_or(|heartbeat| heartbeat.session != beat.session);
        worker.heartbeat = Some(LastHeartbeat {
            session: beat.session.clone(),
            via: beat.via,
            running: beat.running,
            at: now,
        });
        let transition = match (is_new, worker.is_running(now) == was_running) {
            (true, _) => Transition::Newcomer,
            (false, false) => Transition::Changed,
            (false, true) => Transition::None,
        };
        (transition, displaced)
    }

    /// A worker sent a valid frame. Returns whether that makes it run, and the worker that it displaced from memory.
    pub fn framed(
        &mut self,
        id: &WorkerId,
        now: Duration,
        keep: impl Fn(&WorkerId) -> bool,
    ) -> (bool, Option<WorkerId>) {
        if let Some(worker) = self.workers.get_mut(id) {
            let was_running = worker.framed.is_some() && worker.is_running(now);
            worker.framed = Some(now);
            worker.seen = now;
            return (!was_running && worker.is_running(now), None);
        }
        let displaced = self.make_room(id, &keep);
        let worker = Worker {
            framed: Some(now),
            seen: now,
            ..Worker::default()
        };
        self.workers.insert(id.clone(), worker);
        (true, displaced)
    }

    /// The process of a worker is another one now.
    pub fn set_process(&mut self, id: &WorkerId, process: Process) {
        self.workers.entry(id.clone()).or_default().process = process;
    }

    /// Removes workers that are gone. Returns whether one of them was running.
    pub fn sweep(&mut self, before: Duration, now: Duration) -> bool {
        let ran = |worker: &Worker| worker.is_running(before) && !worker.is_running(now);
        let is_changed = self.workers.values().any(ran);
        for worker in self.workers.values_mut() {
            if worker.heartbeat.is_some() && !worker.is_there(now) {
                worker.heartbeat = None;
                worker.gone = Some(now);
            }
        }
        self.workers.retain(|_, worker| {
            worker.heartbeat.is_some() || worker.framed.is_some() || worker.process != Process::None
        });
        is_changed
    }

    fn make_room(&mut self, id: &WorkerId, keep: impl Fn(&WorkerId) -> bool) -> Option<WorkerId> {
        if self.workers.len() < MOST || self.workers.contains_key(id) {
            return None;
        }
        let others = self.workers.iter().filter(|(id, _)| !keep(id));
        let oldest = others.min_by_key(|(_, worker)| worker.seen);
        let oldest = oldest.map(|(id, _)| id.clone())?;
        self.workers.remove(&oldest);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> WorkerId {
        WorkerId::parse(name).unwrap()
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn beat(session: &str, running: bool) -> FrameWorkerHeartbeat {
        FrameWorkerHeartbeat {
            session: session.to_owned(),
            running,
            ..FrameWorkerHeartbeat::default()
        }
    }

    #[test]
    fn a_silent_worker_is_gone_and_one_that_returns_is_new() {
        let mut registry = Registry::default();
        let text = id("text");
        let mut beat_at = |beat: &FrameWorkerHeartbeat, now| {
            registry.heartbeat(&text, beat, secs(now), |_| false).0
        };
        assert_eq!(beat_at(&beat("1", false), 10), Transition::Newcomer);
        assert_eq!(beat_at(&beat("1", true), 11), Transition::Changed);
        assert_eq!(beat_at(&beat("1", true), 12), Transition::None);
        assert_eq!(beat_at(&beat("2", true), 13), Transition::Newcomer);
        assert_eq!(
            beat_at(&beat("1", false), 13),
            Transition::None,
            "the older of two"
        );
        assert_eq!(registry.running(secs(15)), [id("text")]);
        assert!(registry.sweep(secs(15), secs(16)));
        assert!(registry.running(secs(16)).is_empty() && !registry.knows(&text, secs(16)));
        let (transition, _) = registry.heartbeat(&text, &beat("2", true), secs(20), |_| false);
        assert_eq!(
            transition,
            Transition::Newcomer,
            "it may have missed messages meanwhile"
        );
        let leaves = FrameWorkerHeartbeat {
            leaves: true,
            ..beat("1", true)
        };
        assert_eq!(
            registry.heartbeat(&text, &leaves, secs(20), |_| false).0,
            Transition::None
        );
        assert!(registry.knows(&text, secs(20)));
    }

    #[test]
    fn a_worker_that_only_sends_frames_stays_known_and_runs_for_ten_seconds_more() {
        let mut registry = Registry::default();
        let script = id("script");
        assert!(registry.framed(&script, secs(1), |_| false).0);
        assert!(!registry.framed(&script, secs(5), |_| false).0);
        assert_eq!(registry.running(secs(14)), [id("script")]);
        assert!(registry.sweep(secs(14), secs(15)));
        assert!(registry.running(secs(15)).is_empty());
        assert!(registry.knows(&script, secs(10_000)));
        assert_eq!(registry.sources(), [script]);
    }

    #[test]
    fn a_worker_on_the_bus_that_sent_frames_does_not_run_on_once_it_is_gone() {
        let mut registry = Registry::default();
        let text = id("text");
        registry.heartbeat(&text, &beat("1", true), secs(10), |_| false);
        registry.framed(&text, secs(12), |_| false);
        assert_eq!(registry.running(secs(12)), [id("text")]);
        assert!(registry.running(secs(13)).is_empty());
        registry.sweep(secs(12), secs(13));
        assert!(registry.running(secs(14)).is_empty());
        // The same name, from a worker that only sends frames.
        registry.framed(&text, secs(15), |_| false);
        assert_eq!(registry.running(secs(15)), [id("text")]);
    }

    #[test]
    fn the_registry_is_bounded_and_chosen_workers_always_stay() {
        let mut registry = Registry::default();
        let chosen = id("w0");
        for number in 0..MOST + 10 {
            let now = Duration::from_millis(number as u64);
            let keep = |id: &WorkerId| *id == chosen;
            let (_, displaced) = registry.framed(&id(&format!("w{number}")), now, keep);
            let expected = number
                .checked_sub(MOST)
                .map(|gone| id(&format!("w{}", gone + 1)));
            assert_eq!(displaced, expected);
        }
        assert_eq!(registry.sources().len(), MOST);
        assert!(registry.knows(&chosen, secs(1)));
    }
}
