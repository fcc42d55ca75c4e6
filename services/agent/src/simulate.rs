//! An agent without a machine: this agent's core on the core of its link, with processes that are only entries in a list.
//! Time and everything that comes over the bus are given to it, so that a simulation decides what happens when.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use quintet_contract::agent::{AgentCommand, Hello};
use quintet_contract::id::AgentSession;
use quintet_contract::job::JobAttempt;
use quintet_contract::time::Timestamp;
use quintet_worker::core as link;
use quintet_worker::{AgentIdentity, HeartbeatMode, Moment};

use crate::config::AgentConfig;
use crate::core::{AnswerId, Core, Deadline, Effect, Event, Exit};
use crate::driver::hello;
use crate::executors::{Abilities, Executor, Plan};

/// How long a process takes to end when it is killed or asked to.
const EXIT_DELAY: Duration = Duration::from_millis(150);

enum Timer {
    Deadline(JobAttempt, Deadline),
    Exit(JobAttempt, Exit),
}

/// An agent that its owner drives.
pub struct Simulated {
    link: link::Core,
    core: Core,
    /// Ids that the next sessions get.
    sessions: Box<dyn FnMut() -> AgentSession>,
    timers: BTreeMap<(Moment, u64), Timer>,
    running: BTreeMap<JobAttempt, ()>,
    count: u64,
    has_left: bool,
}

impl Simulated {
    /// An agent that has just been started; pass it [`Event::Woken`](link::Event::Woken) first, by
    /// [`Simulated::link_event`].
    pub fn boot(config: &AgentConfig, sessions: impl FnMut() -> AgentSession + 'static) -> Self {
        let abilities = Abilities {
            allowed: Executor::ALL.into(),
            ffmpeg: false,
            work_dir: PathBuf::new(),
        };
        let identity = AgentIdentity {
            agent: config.agent.clone(),
            pool: config.pool.clone(),
        };
        let hello: Hello = hello(config, &abilities);
        Self {
            link: link::Core::new(identity, hello, HeartbeatMode::Automatic),
            core: Core::new(config.slots, abilities),
            sessions: Box::new(sessions),
            timers: BTreeMap::new(),
            running: BTreeMap::new(),
            count: 0,
            has_left: false,
        }
    }

    /// The first session.
    pub fn open(&mut self, moment: Moment, wall: Timestamp) -> Vec<link::Effect> {
        let session = (self.sessions)();
        self.link_event(link::Event::SessionOpened(session), moment, wall)
    }

    /// A message came over the bus, or time passed. Returns the effects of the link.
    pub fn link_event(
        &mut self,
        event: link::Event,
        moment: Moment,
        wall: Timestamp,
    ) -> Vec<link::Effect> {
        let mut out = Vec::new();
        self.step_link(event, moment, wall, &mut out);
        self.run_timers(moment, wall, &mut out);
        out
    }

    /// A command of the owner.
    pub fn command(
        &mut self,
        command: AgentCommand,
        moment: Moment,
        wall: Timestamp,
    ) -> Vec<link::Effect> {
        let mut out = Vec::new();
        if let AgentCommand::Replaced { current } = command {
            self.step_link(link::Event::ReplacedBy(current), moment, wall, &mut out);
            return out;
        }
        self.count += 1;
        let event = crate::inbound::command_event(command, AnswerId(self.count));
        self.step(vec![event], moment, wall, &mut out);
        out
    }

    /// When it wants to be woken next.
    pub fn wake_at(&self, now: Moment) -> Option<Moment> {
        let timer = self.timers.keys().next().map(|(at, _)| *at);
        let watch = self.link.wake_every().map(|every| now.after(every));
        [timer, watch, self.link.wake_at()]
            .into_iter()
            .flatten()
            .min()
    }

    /// What runs here.
    pub fn processes(&self) -> impl Iterator<Item = &JobAttempt> {
        self.running.keys()
    }

    /// Whether it was replaced and is gone.
    pub fn has_left(&self) -> bool {
        self.has_left
    }

    /// How long the answer to a heartbeat may take.
    pub fn heartbeat_deadline(&self) -> Duration {
        self.link.heartbeat_deadline()
    }

    fn run_timers(&mut self, moment: Moment, wall: Timestamp, out: &mut Vec<link::Effect>) {
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= moment
        {
            let event = match entry.remove() {
                Timer::Deadline(placement, deadline) => Event::DeadlinePassed(placement, deadline),
                Timer::Exit(placement, exit) => {
                    if self.running.remove(&placement).is_none() {
                        continue;
                    }
                    Event::Exited(placement, exit)
                }
            };
            self.step(vec![event], moment, wall, out);
        }
    }

    fn step_link(
        &mut self,
        event: link::Event,
        moment: Moment,
        wall: Timestamp,
        out: &mut Vec<link::Effect>,
    ) {
        let now = link::Now { moment, wall };
        // As the driver does: a hello or heartbeat must list the jobs as they are now.
        let jobs = self.core.active_jobs();
        let mut pending = VecDeque::from([link::Event::JobsChanged(jobs), event]);
        while let Some(event) = pending.pop_front() {
            for effect in self.link.step(event, now) {
                let events = match effect {
                    link::Effect::OpenSession => {
                        pending.push_back(link::Event::SessionOpened((self.sessions)()));
                        continue;
                    }
                    link::Effect::Offer(assignment, _) => vec![Event::Assigned(assignment)],
                    link::Effect::Notify(notification) => of_notification(notification),
                    link::Effect::Flushed(_) => continue,
                    link::Effect::Leave => {
                        self.has_left = true;
                        continue;
                    }
                    other => {
                        out.push(other);
                        continue;
                    }
                };
                self.step(events, moment, wall, out);
            }
        }
    }

    fn step(
        &mut self,
        events: Vec<Event>,
        moment: Moment,
        wall: Timestamp,
        out: &mut Vec<link::Effect>,
    ) {
        let mut events = VecDeque::from(events);
        let mut reports = Vec::new();
        while let Some(event) = events.pop_front() {
            for effect in self.core.step(event) {
                match effect {
                    Effect::Report(report) => reports.push(report),
                    Effect::Start(placement, plan, _) => {
                        if let Plan::Noop(plan) = plan
                            && let Some((after, end)) = plan.end()
                        {
                            let exit = Timer::Exit(placement.clone(), end.into());
                            self.after(moment, after, exit);
                        }
                        self.running.insert(placement.clone(), ());
                        events.push_back(Event::Working(placement));
                    }
                    Effect::Terminate(placement) | Effect::Kill(placement) => {
                        let exit = Exit::Signal {
                            signal: 9,
                            tail: Vec::new(),
                        };
                        self.after(moment, EXIT_DELAY, Timer::Exit(placement, exit));
                    }
                    Effect::Schedule(placement, deadline, after) => {
                        self.after(moment, after, Timer::Deadline(placement, deadline));
                    }
                    Effect::Leave(_) => self.has_left = true,
                    Effect::Control { .. }
                    | Effect::Answer(..)
                    | Effect::RecordEvent { .. }
                    | Effect::Note(..) => {}
                }
            }
        }
        if !reports.is_empty() {
            self.step_link(link::Event::Reported(reports), moment, wall, out);
        }
    }

    fn after(&mut self, moment: Moment, after: Duration, timer: Timer) {
        self.count += 1;
        self.timers.insert((moment.after(after), self.count), timer);
    }
}

fn of_notification(notification: link::Notification) -> Vec<Event> {
    match notification {
        link::Notification::Welcome(settings) => vec![Event::Welcome(settings)],
        link::Notification::Confirmed(placement) => vec![Event::Confirmed(placement)],
        link::Notification::Kill(placement) => vec![Event::Revoked(placement)],
        link::Notification::Stored(reports) => {
            let finals = reports.into_iter().filter_map(crate::inbound::final_of);
            finals.map(Event::FinalStored).collect()
        }
        link::Notification::Refused(report, _) => {
            let last = crate::inbound::final_of(*report);
            last.map(Event::FinalStored).into_iter().collect()
        }
        link::Notification::Fence => vec![Event::Fenced],
        link::Notification::Replaced => vec![Event::Replaced],
        link::Notification::Contact => Vec::new(),
    }
}
