//! Observations of jobs by agents, compared with the records: a job moves on, is found again, is lost, or is one that
//! no scheduler knew. Depends only on job, agent and attempt, never on the kind of message.

use std::collections::BTreeSet;

use quintet_contract::JsonObject;
use quintet_contract::agent::ActiveJob;
use quintet_contract::id::{AgentId, AgentSession, JobId};
use quintet_contract::job::{
    Attempt, Job, JobAttempt, JobError, JobPrivate, JobRecord, JobStatus, RestartPolicy,
    TimelineEntry,
};
use quintet_contract::time::Timestamp;

use super::Core;
use super::event::Anomaly;

/// Heartbeats in a row that must leave out a job before it counts as lost there.
const MISSING_HEARTBEATS: u32 = 2;
/// The name under which jobs are recorded that an agent brought along.
const RECOVERED: &str = "recovered";

/// How a report about a job relates to what we know.
pub(super) enum Ownership {
    /// The agent has this attempt.
    Current,
    /// This attempt ended; its agent may still have it.
    Ended,
    /// The job is unknown.
    Unknown,
    /// Another agent's, or an old attempt.
    Stale,
}

/// How an agent shows a job.
pub(super) struct Observation<'a> {
    pub(super) agent: &'a AgentId,
    pub(super) session: AgentSession,
    pub(super) job: &'a JobId,
    pub(super) attempt: Option<Attempt>,
    pub(super) status: JobStatus,
    /// Why it failed, if it did.
    pub(super) error: Option<JobError>,
}

impl Core {
    pub(super) fn ownership(
        &self,
        agent: &AgentId,
        id: &JobId,
        attempt: Option<Attempt>,
    ) -> Ownership {
        let Some(record) = self.jobs.get(id) else {
            return Ownership::Unknown;
        };
        let job = &record.job;
        let same = job.agent_id.as_ref() == Some(agent)
            && attempt.is_none_or(|attempt| attempt == job.attempt);
        if !same {
            Ownership::Stale
        } else if job.status.holds_agent() {
            Ownership::Current
        } else {
            Ownership::Ended
        }
    }

    /// The agent does not have a job that takes one of its slots. An offer may still be in flight to it.
    pub(super) fn gone(&mut self, id: &JobId, now: Timestamp) {
        match self.job(id).map(|job| job.status) {
            None | Some(JobStatus::Assigned) => {}
            Some(status) if status.is_final() => self.release_slot(id, now),
            Some(_) => self.work_lost(id, now),
        }
    }

    /// The agent runs what it was commanded to stop.
    pub(super) fn remind(&mut self, id: &JobId, shown: JobStatus, now: Timestamp) {
        if matches!(
            shown,
            JobStatus::Accepted | JobStatus::Starting | JobStatus::Running
        ) && self
            .job(id)
            .is_some_and(|job| job.status == JobStatus::Stopping)
        {
            self.remind_stop(id, now);
        }
    }

    /// The state of a job on this agent.
    pub(super) fn observed(&mut self, seen: Observation<'_>, now: Timestamp) {
        match self.ownership(seen.agent, seen.job, seen.attempt) {
            Ownership::Current if self.started_elsewhere(&seen) => {
                self.count(Anomaly::Backward);
                self.work_lost(seen.job, now);
            }
            Ownership::Current => {
                self.seen_in(seen.job, seen.session, now);
                self.observed_here(seen.job, seen.status, seen.error, now);
            }
            Ownership::Ended if seen.status.is_final() => self.release_slot(seen.job, now),
            Ownership::Unknown
                if seen.status.holds_agent() && seen.status != JobStatus::Assigned =>
            {
                self.recover(&seen, now);
            }
            Ownership::Ended | Ownership::Unknown | Ownership::Stale => self.count(Anomaly::Stale),
        }
    }

    /// Whether the agent takes again what an earlier process of it had begun: an offer is read again by a process that
    /// was started before the offer's time was over. What had begun is lost; it must not begin twice as one attempt.
    fn started_elsewhere(&self, seen: &Observation<'_>) -> bool {
        let Some(record) = self.jobs.get(seen.job) else {
            return false;
        };
        let mut statuses = record.job.timeline.iter().rev().map(|entry| entry.status);
        let last = statuses.find(|status| *status != JobStatus::Unknown);
        let had_begun = matches!(
            last,
            Some(JobStatus::Starting | JobStatus::Running | JobStatus::Stopping)
        );
        seen.status == JobStatus::Accepted
            && had_begun
            && record.private.session != Some(seen.session)
    }

    fn seen_in(&mut self, id: &JobId, session: AgentSession, now: Timestamp) {
        if self
            .jobs
            .get(id)
            .is_some_and(|record| record.private.session != Some(session))
        {
            self.change(id, now, |record| record.private.session = Some(session));
        }
    }

    fn observed_here(
        &mut self,
        id: &JobId,
        status: JobStatus,
        error: Option<JobError>,
        now: Timestamp,
    ) {
        let Some(current) = self.job(id).map(|job| job.status) else {
            return;
        };
        let placed = [
            JobStatus::Accepted,
            JobStatus::Starting,
            JobStatus::Running,
            JobStatus::Stopping,
        ];
        if !placed.contains(&status) && !status.is_final() {
            return self.count(Anomaly::Backward);
        }
        if current == JobStatus::Assigned {
            // Whatever it reports, it has taken the job.
            self.accepted(id, now);
        }
        if current == JobStatus::Unknown && !status.is_final() {
            self.found_again(id, status, now);
        }
        let current = self.job(id).map_or(current, |job| job.status);
        match status {
            JobStatus::Stopped | JobStatus::Failed | JobStatus::Canceled => {
                let status = if status == JobStatus::Failed {
                    status
                } else {
                    JobStatus::Stopped
                };
                self.work_ended(id, status, error, now);
            }
            _ if status > current => {
                self.advance(id, status, now, None);
                if status == JobStatus::Stopping {
                    // The agent stops it on its own; the grace counts from here.
                    self.change(id, now, |record| record.private.stop_sent_at = Some(now));
                    self.arm(id);
                }
            }
            // The same again, or a late RUNNING while STOPPING: both are normal.
            _ => {}
        }
        let stop_due = self.jobs.get(id).is_some_and(|record| {
            let placed = matches!(
                record.job.status,
                JobStatus::Accepted | JobStatus::Starting | JobStatus::Running
            );
            placed && record.private.stop_requested_at.is_some()
        });
        if stop_due {
            self.begin_stop(id, now);
        }
    }

    fn accepted(&mut self, id: &JobId, now: Timestamp) {
        if self.advance(id, JobStatus::Accepted, now, None) {
            self.change(id, now, |record| {
                record.private.offer_expires_at = None;
                record.private.refusals.clear();
            });
        }
    }

    /// A lost agent is back with the job.
    fn found_again(&mut self, id: &JobId, status: JobStatus, now: Timestamp) {
        self.advance(id, status, now, Some("agent is back"));
        self.change(id, now, |record| record.private.lost_at = None);
        if status == JobStatus::Stopping {
            self.command_stop(id, now);
        }
    }

    /// A job that an agent has and no record shows.
    fn recover(&mut self, seen: &Observation<'_>, now: Timestamp) {
        let Observation {
            agent,
            job: id,
            attempt,
            status,
            ..
        } = *seen;
        self.count(Anomaly::Recovered);
        let job = Job {
            id: id.clone(),
            template_id: None,
            inline_config: None,
            params: JsonObject::new(),
            status,
            agent_id: Some(agent.clone()),
            created_at: now,
            updated_at: now,
            started_at: (status == JobStatus::Running).then_some(now),
            ended_at: None,
            error: None,
            requested_by: RECOVERED.to_owned(),
            idempotency_key: None,
            restart_policy: RestartPolicy::Never,
            max_restarts: None,
            requirements: Default::default(),
            priority: 0,
            not_before: None,
            pool: self.config.pool.clone(),
            attempt: attempt.unwrap_or_default().max(Attempt(1)),
            restarts: 0,
            stream_metadata: None,
            timeline: vec![TimelineEntry {
                status,
                at: now,
                reason: Some(format!("reported by {agent}")),
            }],
            timeline_dropped: 0,
        };
        let mut private = JobPrivate {
            session: Some(seen.session),
            ..JobPrivate::default()
        };
        if status == JobStatus::Stopping {
            private.stop_sent_at = Some(now);
        }
        self.insert(Box::new(JobRecord {
            job,
            private,
            caused_by: None,
            trace_id: None,
        }));
        self.store_job(id);
        self.show_soon(agent, now);
        self.arm(id);
    }

    /// Compares what the agent has with what it should have; returns what it should not have.
    pub(super) fn reconcile_agent(
        &mut self,
        agent: &AgentId,
        jobs: &[ActiveJob],
        now: Timestamp,
    ) -> Vec<JobAttempt> {
        let mut kill = Vec::new();
        for active in jobs {
            let ActiveJob {
                job_id,
                attempt,
                status,
            } = active;
            match self.ownership(agent, job_id, *attempt) {
                Ownership::Ended | Ownership::Stale if !status.is_final() => {
                    kill.push(JobAttempt {
                        job_id: job_id.clone(),
                        attempt: attempt.unwrap_or_default(),
                    });
                }
                Ownership::Current => self.remind(job_id, *status, now),
                Ownership::Ended | Ownership::Stale | Ownership::Unknown => {}
            }
        }
        let has: BTreeSet<&JobId> = jobs.iter().map(|active| &active.job_id).collect();
        let held = self
            .agents
            .get(agent)
            .map(|entry| entry.jobs().to_vec())
            .unwrap_or_default();
        for job in held {
            let lost = self.agents.change(agent, |entry| {
                if has.contains(&job) {
                    entry.missing.remove(&job);
                    return false;
                }
                let missing = entry.missing.entry(job.clone()).or_default();
                *missing += 1;
                *missing >= MISSING_HEARTBEATS
            });
            if lost == Some(true) {
                self.agents
                    .change(agent, |entry| entry.missing.remove(&job));
                self.gone(&job, now);
            }
        }
        kill
    }
}
