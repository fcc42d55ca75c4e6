//! An agent that keeps the promises of the protocol: starts nothing before its acceptance was confirmed, reports in order,
//! one message at a time, repeats until it is answered, and kills what may be restarted when it is not heard any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quintet_contract::agent::{
    ActiveJob, AgentCommand, AgentReport, AgentReports, Assignment, Heartbeat, HeartbeatReply,
    Hello, ReportsReply, Standing,
};
use quintet_contract::id::{AgentId, AgentSession, JobId};
use quintet_contract::job::{Attempt, JobStatus};
use serde_json::json;
use uuid::Uuid;

/// Milliseconds of simulated time.
pub(crate) type Millis = i64;

const HEARTBEAT: Millis = 3_000;
const TIMEOUT: Millis = 10_000;
const ANSWER: Millis = 3_000;
pub(crate) const SLOTS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Taken, not confirmed; the time is when the acceptance was last sent.
    Accepted(Option<Millis>),
    /// It runs until then.
    Running(Millis),
    /// It has ended; the scheduler has not stored that yet.
    Ended,
}

#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) attempt: Attempt,
    pub(crate) stage: Stage,
    pub(crate) restartable: bool,
}

#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) session: AgentSession,
    clock: u64,
    pub(crate) jobs: BTreeMap<JobId, Work>,
    outbox: VecDeque<AgentReport>,
    in_flight: Option<(u64, Millis, Vec<AgentReport>)>,
    is_welcome: bool,
    contact: Option<Millis>,
    heartbeat_at: Millis,
    seen: BTreeSet<(JobId, Attempt)>,
}

/// What an agent says.
pub(crate) enum Said {
    Reports(AgentReports),
    Heartbeat(Heartbeat),
}

impl Agent {
    pub(crate) fn boot(id: AgentId, session: u128, now: Millis) -> Self {
        Self {
            id,
            session: AgentSession::from_uuid(Uuid::from_u128(session)),
            clock: 0,
            jobs: BTreeMap::new(),
            outbox: VecDeque::new(),
            in_flight: None,
            is_welcome: false,
            contact: None,
            heartbeat_at: now + HEARTBEAT,
            seen: BTreeSet::new(),
        }
    }

    fn listed(&self) -> Vec<ActiveJob> {
        let status = |stage| match stage {
            Stage::Accepted(_) => JobStatus::Accepted,
            Stage::Running(_) => JobStatus::Running,
            Stage::Ended => JobStatus::Stopping,
        };
        let jobs = self.jobs.iter();
        jobs.map(|(job_id, work)| ActiveJob {
            job_id: job_id.clone(),
            attempt: Some(work.attempt),
            status: status(work.stage),
        })
        .collect()
    }

    fn tick_clock(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Time passes: what has ended, what is due to be said. `leaderless` is what a look at the lease would say.
    pub(crate) fn tick(&mut self, now: Millis, leaderless: bool) -> Vec<Said> {
        if leaderless && self.contact.is_some() {
            self.contact = Some(now);
        }
        if self.contact.is_some_and(|contact| now - contact >= TIMEOUT) {
            // Not heard for so long, it must not go on with what may run elsewhere soon.
            self.jobs
                .retain(|_, work| !work.restartable || work.stage == Stage::Ended);
        }
        for (job_id, work) in &mut self.jobs {
            if matches!(work.stage, Stage::Running(until) if until <= now) {
                work.stage = Stage::Ended;
                self.outbox.push_back(AgentReport::JobStopped {
                    job_id: job_id.clone(),
                    attempt: Some(work.attempt),
                    status: JobStatus::Stopped,
                    error: None,
                });
            }
        }
        if let Some((_, until, _)) = &self.in_flight
            && *until <= now
            && let Some((_, _, reports)) = self.in_flight.take()
        {
            self.unanswered(reports);
        }
        let mut said = Vec::new();
        if self.in_flight.is_none() {
            let reports: Vec<AgentReport> = match self.is_welcome {
                false => vec![self.hello()],
                true => self.outbox.drain(..).collect(),
            };
            if !reports.is_empty() {
                for report in &reports {
                    if let AgentReport::AssignAck {
                        job_id,
                        accepted: true,
                        ..
                    } = report
                        && let Some(Work {
                            stage: Stage::Accepted(sent),
                            ..
                        }) = self.jobs.get_mut(job_id)
                    {
                        *sent = Some(now);
                    }
                }
                let clock = self.tick_clock();
                self.in_flight = Some((clock, now + ANSWER, reports.clone()));
                said.push(Said::Reports(AgentReports {
                    session: self.session,
                    clock,
                    reports,
                }));
            }
        }
        if self.is_welcome && self.heartbeat_at <= now {
            self.heartbeat_at = now + HEARTBEAT;
            let (clock, jobs) = (self.tick_clock(), Some(self.listed()));
            let metrics = Default::default();
            said.push(Said::Heartbeat(Heartbeat {
                session: self.session,
                clock,
                jobs,
                metrics,
            }));
        }
        said
    }

    fn hello(&mut self) -> AgentReport {
        AgentReport::Hello {
            hello: Hello {
                name: String::new(),
                version: "1".to_owned(),
                capabilities: json!({"slots": SLOTS, "selfFence": true})
                    .as_object()
                    .cloned()
                    .unwrap(),
                drain: false,
                active_jobs: self.listed(),
                meta: Default::default(),
            },
        }
    }

    fn unanswered(&mut self, reports: Vec<AgentReport>) {
        for report in reports.into_iter().rev() {
            if !matches!(report, AgentReport::Hello { .. }) {
                self.outbox.push_front(report);
            }
        }
    }

    pub(crate) fn offered(&mut self, offer: &Assignment, now: Millis) {
        let placement = (offer.job_id.clone(), offer.attempt);
        if offer.expires_at.as_millis() < now || !self.seen.insert(placement) {
            return;
        }
        let (job_id, attempt) = (offer.job_id.clone(), offer.attempt);
        let accepted = self.jobs.len() < SLOTS;
        if accepted {
            let work = Work {
                attempt,
                stage: Stage::Accepted(None),
                restartable: offer.restartable,
            };
            self.jobs.insert(job_id.clone(), work);
        }
        let reason = (!accepted).then(|| "no slot".to_owned());
        self.outbox.push_back(AgentReport::AssignAck {
            job_id,
            attempt: Some(attempt),
            accepted,
            reason,
        });
    }

    pub(crate) fn commanded(&mut self, command: &AgentCommand) {
        let (AgentCommand::Stop {
            job_id, attempt, ..
        }
        | AgentCommand::Kill { job_id, attempt }) = command
        else {
            return;
        };
        let Some(work) = self
            .jobs
            .get_mut(job_id)
            .filter(|work| work.attempt == *attempt)
        else {
            return;
        };
        if work.stage != Stage::Ended {
            work.stage = Stage::Ended;
            let (job_id, attempt, status) = (job_id.clone(), Some(*attempt), JobStatus::Stopped);
            self.outbox.push_back(AgentReport::JobStopped {
                job_id,
                attempt,
                status,
                error: None,
            });
        }
    }

    /// The answer to reports; `length` is how long work takes. True when another process took this one's place.
    pub(crate) fn answered(
        &mut self,
        clock: u64,
        reply: &ReportsReply,
        now: Millis,
        length: Millis,
    ) -> bool {
        let Some((sent, until, reports)) = self.in_flight.take() else {
            return false;
        };
        if sent != clock {
            self.in_flight = Some((sent, until, reports));
            return false;
        }
        match reply.standing {
            Standing::Replaced => return true,
            Standing::HelloRequired => {
                self.unanswered(reports);
                self.reopen();
                return false;
            }
            Standing::Current => {}
        }
        self.contact = Some(until - ANSWER);
        self.is_welcome = true;
        for report in &reports {
            if let AgentReport::JobStopped {
                job_id, attempt, ..
            } = report
                && self
                    .jobs
                    .get(job_id)
                    .is_some_and(|work| Some(work.attempt) == *attempt)
            {
                self.jobs.remove(job_id);
            }
        }
        for start in &reply.start {
            if let Some(work) = self
                .jobs
                .get_mut(&start.job_id)
                .filter(|work| work.attempt == start.attempt)
                && let Stage::Accepted(Some(sent)) = work.stage
                && now - sent < TIMEOUT
            {
                work.stage = Stage::Running(now + length);
                let (job_id, attempt) = (start.job_id.clone(), Some(start.attempt));
                self.outbox.push_back(AgentReport::JobUpdate {
                    job_id,
                    attempt,
                    status: JobStatus::Running,
                });
            }
        }
        for kill in &reply.kill {
            self.jobs
                .retain(|id, work| *id != kill.job_id || work.attempt != kill.attempt);
        }
        false
    }

    pub(crate) fn heard(
        &mut self,
        session: AgentSession,
        sent: Millis,
        reply: &HeartbeatReply,
    ) -> bool {
        if session != self.session {
            return false;
        }
        match reply.standing {
            Standing::Replaced => return true,
            Standing::HelloRequired => self.reopen(),
            Standing::Current => self.contact = self.contact.max(Some(sent)),
        }
        for kill in &reply.kill {
            self.jobs
                .retain(|id, work| *id != kill.job_id || work.attempt != kill.attempt);
        }
        false
    }

    /// A session of its own making ends with a new one; what is in flight belongs to the old.
    fn reopen(&mut self) {
        if self.is_welcome {
            self.is_welcome = false;
            self.session =
                AgentSession::from_uuid(Uuid::from_u128(self.session.uuid().as_u128() + 1));
            self.clock = 0;
            if let Some((_, _, reports)) = self.in_flight.take() {
                self.unanswered(reports);
            }
        }
    }
}
