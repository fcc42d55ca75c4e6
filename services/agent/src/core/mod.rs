//! The core of an agent: pure, synchronous, total. Events in, effects out.
//!
//! Each placement is a [`job::Job`] with a phase. A job that may run elsewhere is *silenced*: killed, no
//! longer listed, its end not reported; its slot is free only when its process is gone.

mod command;
mod ending;
mod event;
mod job;

use std::collections::BTreeMap;
use std::time::Duration;

use quintet_contract::agent::{ActiveJob, AgentReport, AgentSettings, Assignment};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::job::{JobAttempt, JobError, JobStatus};
use quintet_contract::{JsonObject, job::Attempt};
use quintet_worker::Recent;
use serde_json::Value;

use crate::executors::Abilities;
pub(crate) use event::{AnswerId, Deadline, Effect, Event, Exit, Leaving, Request};
use job::{EndReason, Job, JobPhase};

/// Placements that are remembered after they were answered, so that an offer that comes again is one job.
const REMEMBERED: usize = 4096;

/// The state of one agent.
#[derive(Debug)]
pub(crate) struct Core {
    slots: usize,
    abilities: Abilities,
    settings: AgentSettings,
    jobs: BTreeMap<JobAttempt, Job>,
    seen: Recent<JobAttempt>,
    leaving: Option<Leaving>,
    has_left: bool,
    /// Of the current step.
    effects: Vec<Effect>,
}

impl Core {
    pub(crate) fn new(slots: u32, abilities: Abilities) -> Self {
        Self {
            slots: usize::try_from(slots).unwrap_or(usize::MAX),
            abilities,
            settings: AgentSettings::default(),
            jobs: BTreeMap::new(),
            seen: Recent::new(REMEMBERED),
            leaving: None,
            has_left: false,
            effects: Vec::new(),
        }
    }

    /// The jobs that hellos and heartbeats list: from the acceptance until the end is stored.
    pub(crate) fn active_jobs(&self) -> Vec<ActiveJob> {
        let listed = self.jobs.iter().filter_map(|(placement, job)| {
            Some(ActiveJob {
                job_id: placement.job_id.clone(),
                attempt: Some(placement.attempt),
                status: job.listed_status()?,
            })
        });
        listed.collect()
    }

    /// How many slots are taken.
    pub(crate) fn used_slots(&self) -> usize {
        self.jobs.values().filter(|job| job.takes_slot()).count()
    }

    /// How many placements are known here.
    pub(crate) fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// Whether this placement is known here.
    pub(crate) fn knows(&self, placement: &JobAttempt) -> bool {
        self.jobs.contains_key(placement)
    }

    /// One step.
    pub(crate) fn step(&mut self, event: Event) -> Vec<Effect> {
        self.handle(event);
        self.leave_when_empty();
        std::mem::take(&mut self.effects)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Welcome(settings) => self.settings = settings,
            Event::Assigned(assignment) => self.assigned(*assignment),
            Event::Confirmed(placement) => self.confirmed(placement),
            Event::Revoked(placement) => self.revoke(&placement),
            Event::CommandReceived {
                placement,
                request,
                answer,
            } => self.command_received(placement, request, answer),
            Event::UnknownCommand { answer } => {
                let text = "this agent does not know that command; a newer version may";
                self.refuse(answer, ErrorReply::new(ErrorCode::UnknownCommand, text));
            }
            Event::Working(placement) => self.working(placement),
            Event::Progressed(placement, progress) => self.progressed(placement, progress),
            Event::Stalled(placement, after) => self.stalled(placement, after),
            Event::Exited(placement, exit) => self.exited(placement, exit),
            Event::Controlled {
                placement,
                command,
                answer,
                outcome,
            } => self.controlled(placement, &command, answer, outcome),
            Event::DeadlinePassed(placement, Deadline::Confirmation) => {
                self.not_confirmed(placement);
            }
            Event::DeadlinePassed(placement, Deadline::Stop) => self.stop_overdue(&placement),
            Event::FinalStored(placement) => self.final_stored(&placement),
            Event::Fenced => self.fenced(),
            Event::Replaced => self.abandon(Leaving::Replaced),
            Event::LinkClosed => self.abandon(Leaving::LinkClosed),
            Event::DrainAsked { grace } => self.drain(grace),
            Event::DrainOverdue => self.drain_overdue(),
        }
    }

    fn assigned(&mut self, assignment: Assignment) {
        let placement = JobAttempt {
            job_id: assignment.job_id,
            attempt: assignment.attempt,
        };
        if !self.seen.insert(placement.clone()) {
            return;
        }
        if self.has_newer(&placement) {
            return self.reject(
                placement,
                "this agent has a newer attempt of the job".to_owned(),
            );
        }
        // A newer attempt means that the owner gave up the older ones.
        for older in self.older_attempts(&placement) {
            self.revoke(&older);
        }
        if self.leaving.is_some() {
            return self.reject(placement, "this agent is about to leave".to_owned());
        }
        let plan = match self.abilities.plan(&assignment.config) {
            Ok(plan) => plan,
            Err(reason) => return self.reject(placement, reason),
        };
        if self.used_slots() >= self.slots {
            return self.reject(placement, "this agent has no free slot".to_owned());
        }
        let job = Job {
            plan,
            restartable: assignment.restartable,
            phase: JobPhase::Accepted,
        };
        self.jobs.insert(placement.clone(), job);
        self.effects.push(Effect::Report(AgentReport::AssignAck {
            job_id: placement.job_id.clone(),
            attempt: Some(placement.attempt),
            accepted: true,
            reason: None,
        }));
        let after = Duration::from_millis(self.settings.heartbeat_timeout_ms);
        let deadline = Deadline::Confirmation;
        self.effects
            .push(Effect::Schedule(placement, deadline, after));
    }

    fn reject(&mut self, placement: JobAttempt, reason: String) {
        self.effects.push(Effect::Report(AgentReport::AssignAck {
            job_id: placement.job_id,
            attempt: Some(placement.attempt),
            accepted: false,
            reason: Some(reason),
        }));
    }

    fn has_newer(&self, placement: &JobAttempt) -> bool {
        let mut attempts = self.attempts_of(placement);
        attempts.any(|other| other.attempt > placement.attempt)
    }

    fn older_attempts(&self, placement: &JobAttempt) -> Vec<JobAttempt> {
        let attempts = self.attempts_of(placement);
        attempts
            .filter(|other| other.attempt < placement.attempt)
            .cloned()
            .collect()
    }

    fn attempts_of(&self, placement: &JobAttempt) -> impl Iterator<Item = &JobAttempt> {
        let with = |attempt| JobAttempt {
            job_id: placement.job_id.clone(),
            attempt,
        };
        let range = self.jobs.range(with(Attempt(0))..=with(Attempt(u32::MAX)));
        range.map(|(other, _)| other)
    }

    fn confirmed(&mut self, placement: JobAttempt) {
        let Some(job) = self.jobs.get_mut(&placement) else {
            return;
        };
        if job.phase != JobPhase::Accepted {
            return;
        }
        job.phase = JobPhase::live();
        let (plan, restartable) = (job.plan.clone(), job.restartable);
        self.update(&placement, JobStatus::Starting);
        self.effects
            .push(Effect::Start(placement, plan, restartable));
    }

    fn not_confirmed(&mut self, placement: JobAttempt) {
        let text = "the acceptance was not confirmed in time, so the job was not started";
        self.rescind_acceptance(placement, text);
    }

    /// Rescinds an acceptance: the job was not started, and may go to another agent whatever its policy is. It is
    /// listed until the owner has stored that, or it would be missed.
    fn rescind_acceptance(&mut self, placement: JobAttempt, why: &str) {
        if let Some(job) = self.jobs.get_mut(&placement)
            && job.phase == JobPhase::Accepted
        {
            job.phase = JobPhase::Ended {
                last: JobStatus::Accepted,
            };
            self.reject(placement, why.to_owned());
        }
    }

    fn leave_when_empty(&mut self) {
        if self.used_slots() == 0 {
            self.drain_overdue();
        }
    }

    fn working(&mut self, placement: JobAttempt) {
        if let Some(Job {
            phase: JobPhase::Live { status, .. },
            ..
        }) = self.jobs.get_mut(&placement)
            && *status == JobStatus::Starting
        {
            *status = JobStatus::Running;
            self.update(&placement, JobStatus::Running);
        }
    }

    fn progressed(&mut self, placement: JobAttempt, progress: JsonObject) {
        if self.is_speaking(&placement) {
            let data = Value::Object(progress);
            let metadata = [("progress".to_owned(), data.clone())]
                .into_iter()
                .collect();
            self.effects.push(Effect::Report(AgentReport::JobMetadata {
                job_id: placement.job_id.clone(),
                attempt: Some(placement.attempt),
                metadata,
            }));
            self.record_event(
                placement,
                "progress",
                "encoding continues".to_owned(),
                Some(data),
            );
        }
    }

    fn stalled(&mut self, placement: JobAttempt, after: Duration) {
        if let Some(Job {
            phase:
                JobPhase::Live {
                    end_reason: end_reason @ EndReason::Own,
                    ..
                },
            ..
        }) = self.jobs.get_mut(&placement)
        {
            let text = format!("no frame and no byte for {} ms", after.as_millis());
            *end_reason = EndReason::Failed(JobError::new("STALLED", text.clone()));
            self.record_event(placement.clone(), "stalled", text, None);
            self.escalate_to_kill(&placement);
        }
    }

    fn exited(&mut self, placement: JobAttempt, exit: Exit) {
        let Some(job) = self.jobs.get(&placement) else {
            return;
        };
        let restartable = job.restartable;
        let JobPhase::Live { end_reason, .. } = &job.phase else {
            return;
        };
        let ended = match end_reason {
            EndReason::Revoked => {
                self.jobs.remove(&placement);
                return;
            }
            EndReason::Own => exit.into_result(),
            EndReason::Requested => Ok(()),
            EndReason::Failed(error) => Err(exit.explain(error.clone())),
            // Its owner starts it again elsewhere, if its policy allows it; that needs a failure.
            EndReason::Shutdown if restartable => EndReason::Shutdown.end_unstarted(),
            EndReason::Shutdown => Ok(()),
        };
        self.end(placement, ended);
    }

    fn end(&mut self, placement: JobAttempt, ended: Result<(), JobError>) {
        let Some(job) = self.jobs.get_mut(&placement) else {
            return;
        };
        let last = job.listed_status().unwrap_or(JobStatus::Stopping);
        job.phase = JobPhase::Ended { last };
        let (status, error) = match ended {
            Ok(()) => (JobStatus::Stopped, None),
            Err(error) => (JobStatus::Failed, Some(error)),
        };
        self.effects.push(Effect::Report(AgentReport::JobStopped {
            job_id: placement.job_id,
            attempt: Some(placement.attempt),
            status,
            error,
        }));
    }

    fn final_stored(&mut self, placement: &JobAttempt) {
        if let Some(JobPhase::Ended { .. }) = self.phase_of(placement) {
            self.jobs.remove(placement);
        }
    }

    fn phase_of(&self, placement: &JobAttempt) -> Option<&JobPhase> {
        self.jobs.get(placement).map(|job| &job.phase)
    }

    /// Whether the job runs here and may be spoken of.
    fn is_speaking(&self, placement: &JobAttempt) -> bool {
        let phase = self.phase_of(placement);
        matches!(phase, Some(JobPhase::Live { end_reason, .. }) if *end_reason != EndReason::Revoked)
    }

    fn update(&mut self, placement: &JobAttempt, status: JobStatus) {
        if self.is_speaking(placement) {
            self.effects.push(Effect::Report(AgentReport::JobUpdate {
                job_id: placement.job_id.clone(),
                attempt: Some(placement.attempt),
                status,
            }));
        }
    }

    fn record_event(
        &mut self,
        placement: JobAttempt,
        kind: &'static str,
        message: String,
        data: Option<Value>,
    ) {
        self.effects.push(Effect::RecordEvent {
            placement,
            kind,
            message,
            data,
        });
    }
}

#[cfg(test)]
mod tests;
