//! Outbound: performs the effects of the core. Nothing here waits: reports queue up, children have tasks of their own,
//! timers and the ends of noops come back as events.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use quintet_bus::Bus;
use quintet_contract::JsonObject;
use quintet_contract::agent::{ActiveJob, AgentReport, CommandReply};
use quintet_contract::error::ErrorReply;
use quintet_contract::event::JobEvent;
use quintet_contract::job::{JobAttempt, JobStatus};
use quintet_contract::subject::JobEvents;
use quintet_service::tasks::ExitPolicy;
use quintet_worker::{LinkHandle, ReportSlot};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;
use tracing::{Span, debug};

use crate::child::{self, LiveCommand, Work};
use crate::core::{AnswerId, Deadline, Effect, Event, Exit, Leaving};
use crate::executors::{NoopEnd, NoopPlan, Plan};
use crate::inbound::Answers;
use crate::metrics;

/// Events of jobs that wait for the bus; when full, new ones are dropped and counted.
const JOB_EVENTS: usize = 256;
/// Most reports handed to the link at once.
const REPORTS_AT_ONCE: usize = 256;
/// The longest that the timers can count.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// What a timer is for.
#[derive(Debug)]
enum Timer {
    Deadline(JobAttempt, Deadline),
    NoopEnds(JobAttempt, NoopEnd),
    DrainOverdue,
}

/// What runs for a placement.
enum Running {
    Child(child::Handle),
    Noop(Option<Key>),
}

/// Everything that effects act on.
pub(crate) struct Outbound {
    context: child::Context,
    link: LinkHandle,
    pub(crate) answers: Answers,
    running: HashMap<JobAttempt, Running>,
    timers: DelayQueue<Timer>,
    reports: VecDeque<(AgentReport, Span)>,
    job_events: mpsc::Sender<(JobEvent, Span)>,
    /// The trace of each job, from its offer to its end.
    spans: HashMap<JobAttempt, Span>,
    /// What happened because of an effect.
    pub(crate) events: VecDeque<Event>,
    pub(crate) leaving: Option<Leaving>,
}

impl Outbound {
    pub(crate) fn new(context: child::Context, link: LinkHandle) -> Self {
        let (job_events, queue) = mpsc::channel(JOB_EVENTS);
        let storing = store_job_events(context.bus.clone(), queue);
        context
            .tasks
            .spawn("job_events", ExitPolicy::Optional, storing);
        Self {
            context,
            link,
            answers: Answers::default(),
            running: HashMap::new(),
            timers: DelayQueue::new(),
            reports: VecDeque::new(),
            job_events,
            spans: HashMap::new(),
            events: VecDeque::new(),
            leaving: None,
        }
    }

    /// Does one thing.
    pub(crate) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Report(report) => self.report(report),
            Effect::Start(placement, plan, restartable) => self.start(placement, plan, restartable),
            Effect::Terminate(placement) => self.end(&placement, child::Handle::terminate),
            Effect::Kill(placement) => self.end(&placement, child::Handle::kill),
            Effect::Control {
                placement,
                command,
                args,
                answer,
            } => self.control(placement, command, args, answer),
            Effect::Schedule(placement, deadline, after) => {
                self.after(after, Timer::Deadline(placement, deadline));
            }
            Effect::Answer(answer, reply) => self.answer(answer, reply),
            Effect::RecordEvent {
                placement,
                kind,
                message,
                data,
            } => {
                let event = JobEvent {
                    job_id: placement.job_id.clone(),
                    kind: kind.to_owned(),
                    message,
                    data,
                    ts: quintet_bus::now(),
                };
                let span = self.span(&placement);
                if self.job_events.try_send((event, span)).is_err() {
                    metrics::event_dropped();
                }
            }
            Effect::Note(placement, line) => {
                if let Some(Running::Child(handle)) = self.running.get(&placement) {
                    handle.note(&line);
                }
            }
            Effect::Leave(leaving) => self.leaving = Some(leaving),
        }
    }

    /// Comes back with [`Event::DrainOverdue`].
    pub(crate) fn limit_drain(&mut self, after: Duration) {
        self.after(after, Timer::DrainOverdue);
    }

    /// The next timer that went off; waits for ever when none is set. Cancel-safe: a timer stays until taken.
    pub(crate) async fn timer(&mut self) -> Event {
        let next = std::future::poll_fn(|context| {
            if self.timers.is_empty() {
                return std::task::Poll::Pending;
            }
            self.timers.poll_expired(context)
        });
        match next.await.map(|expired| expired.into_inner()) {
            Some(Timer::Deadline(placement, deadline)) => {
                Event::DeadlinePassed(placement, deadline)
            }
            Some(Timer::NoopEnds(placement, end)) => {
                if let Some(Running::Noop(key)) = self.running.get_mut(&placement) {
                    *key = None;
                }
                Event::Exited(placement, end.into())
            }
            Some(Timer::DrainOverdue) => Event::DrainOverdue,
            None => std::future::pending().await,
        }
    }

    fn after(&mut self, after: Duration, timer: Timer) -> Key {
        self.timers.insert(timer, after.min(LONGEST))
    }

    fn start(&mut self, placement: JobAttempt, plan: Plan, restartable: bool) {
        let work = match plan {
            Plan::Noop(plan) => return self.start_noop(placement, &plan),
            Plan::Exec(plan) => Work::Exec(plan),
            Plan::Ffmpeg(plan) => Work::Ffmpeg(plan),
        };
        let span = self.span(&placement);
        let start = || child::start(&self.context, placement.clone(), work, restartable);
        let handle = span.in_scope(start);
        self.running.insert(placement, Running::Child(handle));
    }

    fn start_noop(&mut self, placement: JobAttempt, plan: &NoopPlan) {
        self.events.push_back(Event::Working(placement.clone()));
        let key = match plan.end() {
            Some((after, end)) if after.is_zero() => {
                let exited = Event::Exited(placement.clone(), end.into());
                self.events.push_back(exited);
                None
            }
            Some((after, end)) => Some(self.after(after, Timer::NoopEnds(placement.clone(), end))),
            None => None,
        };
        self.running.insert(placement, Running::Noop(key));
    }

    fn end(&mut self, placement: &JobAttempt, how: fn(&child::Handle)) {
        match self.running.get_mut(placement) {
            Some(Running::Child(handle)) => how(handle),
            Some(Running::Noop(key)) => {
                if let Some(key) = key.take() {
                    self.timers.remove(&key);
                }
                self.events
                    .push_back(Event::Exited(placement.clone(), Exit::Success));
            }
            None => {}
        }
    }

    fn control(
        &mut self,
        placement: JobAttempt,
        command: String,
        args: JsonObject,
        answer: AnswerId,
    ) {
        let outcome = match self.running.get(&placement) {
            Some(Running::Noop(_)) => Ok(()),
            Some(Running::Child(handle)) => {
                let live = LiveCommand {
                    command: command.clone(),
                    args,
                    answer,
                };
                match handle.command(live) {
                    Ok(()) => return,
                    Err(_) => Err("too many commands wait already".to_owned()),
                }
            }
            None => Err("the job has ended".to_owned()),
        };
        self.events.push_back(Event::Controlled {
            placement,
            command,
            answer,
            outcome,
        });
    }

    fn answer(&mut self, answer: AnswerId, reply: Result<CommandReply, ErrorReply>) {
        let Some(responder) = self.answers.take(answer) else {
            return;
        };
        let answering = async move {
            match reply {
                Ok(reply) => responder.ok(&reply).await,
                Err(error) => responder.err(&error).await,
            }
            Ok::<(), Infallible>(())
        };
        self.context
            .tasks
            .spawn("answer", ExitPolicy::Optional, answering);
    }

    fn report(&mut self, report: AgentReport) {
        let placement = match &report {
            AgentReport::AssignAck {
                job_id,
                attempt: Some(attempt),
                accepted,
                ..
            } => {
                metrics::offer(*accepted);
                let placement = JobAttempt {
                    job_id: job_id.clone(),
                    attempt: *attempt,
                };
                if *accepted {
                    self.spans.insert(placement.clone(), Span::current());
                }
                Some(placement)
            }
            AgentReport::JobStopped { status, .. } => {
                let failed = *status == JobStatus::Failed;
                metrics::job_ended(if failed { "failed" } else { "stopped" });
                placement_of(&report)
            }
            other => placement_of(other),
        };
        if self.merged(&report) {
            return;
        }
        let span = placement.map_or_else(Span::none, |placement| self.span(&placement));
        self.reports.push_back((report, span));
    }

    /// While the owner is away, news about a stream replace older ones instead of piling up.
    fn merged(&mut self, report: &AgentReport) -> bool {
        let AgentReport::JobMetadata { metadata: news, .. } = report else {
            return false;
        };
        let placement = placement_of(report);
        for (waiting, _) in &mut self.reports {
            if let AgentReport::JobMetadata { .. } = waiting
                && placement_of(waiting) == placement
                && let AgentReport::JobMetadata { metadata: old, .. } = waiting
            {
                // Not a merge of a patch: a null must stay a null until the owner sees it.
                old.extend(news.clone());
                return true;
            }
        }
        false
    }

    fn span(&self, placement: &JobAttempt) -> Span {
        let span = self.spans.get(placement);
        span.cloned().unwrap_or_else(Span::current)
    }

    /// Whether reports wait for room.
    pub(crate) fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    /// Hands reports to the link as long as it takes them.
    pub(crate) fn send_reports(&mut self) {
        while !self.reports.is_empty() {
            let Some(slot) = self.link.try_slot() else {
                return;
            };
            slot.send_all(take(&mut self.reports));
        }
    }

    /// There is room for reports.
    pub(crate) fn send_in(&mut self, slot: ReportSlot<'_>) {
        slot.send_all(take(&mut self.reports));
    }

    /// The link, to wait for room.
    pub(crate) fn link(&self) -> LinkHandle {
        self.link.clone()
    }

    /// The core's view of its jobs, for heartbeats, before reports about them are sent.
    pub(crate) fn show(&mut self, jobs: Vec<ActiveJob>, used: usize, slots: u32) {
        metrics::slots_used(used);
        self.link.set_jobs(jobs);
        let measured = json!({"ok": true, "usedSlots": used, "slots": slots});
        if let serde_json::Value::Object(measured) = measured {
            self.link.set_metrics(measured);
        }
    }

    /// Nothing runs for this placement any more.
    pub(crate) fn forget(&mut self, placement: &JobAttempt) {
        self.running.remove(placement);
    }

    /// Traces of jobs that the core does not know any more are over.
    pub(crate) fn keep_spans(&mut self, count: usize, known: impl Fn(&JobAttempt) -> bool) {
        if self.spans.len() > count {
            self.spans.retain(|placement, _| known(placement));
        }
    }
}

/// The next reports to hand to the link.
fn take(reports: &mut VecDeque<(AgentReport, Span)>) -> Vec<(AgentReport, Span)> {
    let count = reports.len().min(REPORTS_AT_ONCE);
    reports.drain(..count).collect()
}

fn placement_of(report: &AgentReport) -> Option<JobAttempt> {
    match report {
        AgentReport::AssignAck {
            job_id, attempt, ..
        }
        | AgentReport::JobUpdate {
            job_id, attempt, ..
        }
        | AgentReport::JobStopped {
            job_id, attempt, ..
        }
        | AgentReport::JobMuted {
            job_id, attempt, ..
        }
        | AgentReport::JobMetadata {
            job_id, attempt, ..
        } => Some(JobAttempt {
            job_id: job_id.clone(),
            attempt: (*attempt)?,
        }),
        AgentReport::Hello { .. }
        | AgentReport::AgentError { .. }
        | AgentReport::Goodbye { .. }
        | AgentReport::Unknown => None,
    }
}

async fn store_job_events(
    bus: Bus,
    mut queue: mpsc::Receiver<(JobEvent, Span)>,
) -> Result<(), Infallible> {
    use tracing::Instrument;
    while let Some((event, span)) = queue.recv().await {
        let subject = JobEvents {
            job: event.job_id.clone(),
        };
        let stored = async { bus.store(&subject, &event, None).await?.await };
        if let Err(error) = stored.instrument(span).await {
            debug!(%error, "an event of a job could not be stored");
            metrics::event_dropped();
        }
    }
    Ok(())
}
