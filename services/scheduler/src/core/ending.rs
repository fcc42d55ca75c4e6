//! Stops, losses, failures, restarts: how jobs end or restart, and their timers.
//!
//! ```text
//!   stop ──▶ STOPPING, stop with the grace ── silent ──▶ kill sent ── silent ──▶ FAILED KILL_TIMEOUT, slot kept
//!   agent lost ──▶ UNKNOWN ── back in time ──▶ what the agent reports
//!                       └── not back ──▶ PENDING by policy, else FAILED AGENT_OFFLINE
//! ```

use std::time::Duration;

use quintet_contract::agent::AgentCommand;
use quintet_contract::id::{AgentId, JobId};
use quintet_contract::job::{JobError, JobRecord, JobStatus, RestartPolicy};
use quintet_contract::time::Timestamp;

use super::event::{Action, Write};
use super::{Core, SLACK, Timer};

/// First wait before a job is started again; it doubles up to [`RESTART_MAX`].
const RESTART_MIN: Duration = Duration::from_secs(1);
/// Longest wait before a job is started again, jitter apart.
const RESTART_MAX: Duration = Duration::from_secs(60);
/// Restarts of an `onFailure` job that names no limit.
const RESTARTS_BY_DEFAULT: u32 = 3;

impl Core {
    /// When this job must be checked again, if nothing else happens.
    pub(super) fn due(&self, id: &JobId) -> Option<Timestamp> {
        let record = self.jobs.get(id)?;
        let private = &record.private;
        match record.job.status {
            JobStatus::Created => record.job.not_before,
            JobStatus::Pending => {
                let refusals = private.refusals.values().map(|refusal| refusal.until);
                private.backoff_until.into_iter().chain(refusals).min()
            }
            JobStatus::Assigned => private.offer_expires_at,
            JobStatus::Accepted | JobStatus::Starting | JobStatus::Running => None,
            JobStatus::Stopping => match private.kill_sent_at {
                Some(killed) => Some(killed.after(self.config.kill_after)),
                None => private
                    .stop_sent_at
                    .map(|sent| sent.after(self.config.stop_grace)),
            },
            JobStatus::Unknown => private.lost_at.map(|lost| {
                // A new leader waits for a heartbeat of every agent once before it gives any job away.
                lost.max(self.since)
                    .after(self.config.heartbeat_timeout + SLACK)
            }),
            JobStatus::Stopped | JobStatus::Failed | JobStatus::Canceled => record
                .job
                .ended_at
                .map(|ended| ended.after(self.config.job_retention)),
        }
    }

    /// Something that time brings may be due for this job.
    pub(super) fn job_due(&mut self, id: &JobId, now: Timestamp) {
        let Some(record) = self.jobs.get(id) else {
            return;
        };
        let status = record.job.status;
        if status == JobStatus::Pending {
            return self.pending_due(id, now);
        }
        let is_due = self.due(id).is_some_and(|at| at <= now);
        if !is_due {
            return;
        }
        match status {
            JobStatus::Created => {
                self.advance(id, JobStatus::Pending, now, None);
                self.enqueue(id, now);
                self.arm(id);
            }
            JobStatus::Assigned => {
                let seconds = self.config.assign_ack_timeout.as_secs_f32();
                self.assignment_rejected(id, &format!("no answer within {seconds} s"), now);
            }
            JobStatus::Stopping => self.stop_overdue(id, now),
            JobStatus::Unknown => {
                let error = JobError::new(
                    "AGENT_OFFLINE",
                    "its agent was lost and did not come back in time",
                );
                self.work_failed(id, error, now);
            }
            JobStatus::Stopped | JobStatus::Failed | JobStatus::Canceled => self.remove(id),
            JobStatus::Pending | JobStatus::Accepted | JobStatus::Starting | JobStatus::Running => {
            }
        }
    }

    /// A backoff may be over: the job's own, or that of an agent.
    fn pending_due(&mut self, id: &JobId, now: Timestamp) {
        let Some(record) = self.jobs.get_mut(id) else {
            return;
        };
        let private = &mut record.private;
        private.backoff_until = private.backoff_until.filter(|until| *until > now);
        self.enqueue(id, now);
        let Some(record) = self.jobs.get(id) else {
            return;
        };
        let private = &record.private;
        let later = private
            .refusals
            .values()
            .map(|refusal| refusal.until)
            .filter(|until| *until > now);
        if let Some(at) = private.backoff_until.into_iter().chain(later).min() {
            self.timers.set(at, Timer::Job(id.clone()));
        }
    }

    /// A client wants this job to end.
    pub(super) fn stop(&mut self, id: &JobId, now: Timestamp) {
        let Some(record) = self.jobs.get(id) else {
            return;
        };
        match record.job.status {
            JobStatus::Created | JobStatus::Pending => {
                self.advance(id, JobStatus::Canceled, now, Some("stop requested"));
                self.finished(id);
            }
            // Kept, whatever the agent answers.
            JobStatus::Assigned | JobStatus::Unknown => self.remember_stop(id, now),
            JobStatus::Accepted | JobStatus::Starting | JobStatus::Running => {
                self.remember_stop(id, now);
                self.begin_stop(id, now);
            }
            JobStatus::Stopping | JobStatus::Stopped | JobStatus::Failed | JobStatus::Canceled => {}
        }
    }

    fn remember_stop(&mut self, id: &JobId, now: Timestamp) {
        self.change(id, now, |record| {
            record.private.stop_requested_at.get_or_insert(now);
        });
    }

    /// Commands the agent to stop a job that it has.
    pub(super) fn begin_stop(&mut self, id: &JobId, now: Timestamp) {
        if self.advance(id, JobStatus::Stopping, now, Some("stop requested")) {
            self.command_stop(id, now);
        }
    }

    /// Sends the stop, or sends it again, with the whole grace.
    pub(super) fn command_stop(&mut self, id: &JobId, now: Timestamp) {
        let grace = self.config.stop_grace;
        self.change(id, now, |record| {
            record.private.stop_sent_at = Some(now);
            record.private.kill_sent_at = None;
        });
        self.send_stop(id, grace);
        self.arm(id);
    }

    /// The agent shows that it missed the stop: sends it with what is left of the grace.
    pub(super) fn remind_stop(&mut self, id: &JobId, now: Timestamp) {
        let Some(private) = self.jobs.get(id).map(|record| &record.private) else {
            return;
        };
        match (private.kill_sent_at, private.stop_sent_at) {
            (Some(_), _) => self.send_kill(id),
            (None, Some(sent)) => {
                let left = self.config.stop_grace.saturating_sub(now.since(sent));
                self.send_stop(id, left);
            }
            (None, None) => self.command_stop(id, now),
        }
    }

    fn send_stop(&mut self, id: &JobId, deadline: Duration) {
        self.command(id, |record| AgentCommand::Stop {
            job_id: id.clone(),
            attempt: record.job.attempt,
            reason: "stop requested".to_owned(),
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        });
    }

    pub(super) fn send_kill(&mut self, id: &JobId) {
        self.command(id, |record| AgentCommand::Kill {
            job_id: id.clone(),
            attempt: record.job.attempt,
        });
    }

    fn command(&mut self, id: &JobId, command: impl FnOnce(&JobRecord) -> AgentCommand) {
        let Some(record) = self.jobs.get(id) else {
            return;
        };
        let Some(agent) = record.job.agent_id.clone() else {
            return;
        };
        let (command, traceparent) = (command(record), record.private.traceparent.clone());
        self.effects.act(Action::Command {
            agent,
            command,
            command_id: None,
            traceparent,
        });
    }

    /// The agent did not stop the job in time, or did not confirm the kill.
    fn stop_overdue(&mut self, id: &JobId, now: Timestamp) {
        let Some(record) = self.jobs.get_mut(id) else {
            return;
        };
        if record.private.kill_sent_at.is_none() {
            self.change(id, now, |record| record.private.kill_sent_at = Some(now));
            self.send_kill(id);
            self.arm(id);
            return;
        }
        // For clients it is over. The slot is not: the work may still run.
        record.private.holds_slot = true;
        record.job.error = Some(JobError::new(
            "KILL_TIMEOUT",
            "the agent neither stopped the job nor confirmed that it killed it",
        ));
        self.advance(id, JobStatus::Failed, now, Some("kill not confirmed"));
        self.finished(id);
    }

    /// The work ended by itself, or because it was asked to.
    pub(super) fn work_ended(
        &mut self,
        id: &JobId,
        status: JobStatus,
        error: Option<JobError>,
        now: Timestamp,
    ) {
        let Some(record) = self.jobs.get_mut(id) else {
            return;
        };
        if status == JobStatus::Failed {
            let error =
                error.unwrap_or_else(|| JobError::new("FAILED", "the agent gave no reason"));
            return self.work_failed(id, error, now);
        }
        let again = record.job.restart_policy == RestartPolicy::Always && may_restart(record);
        record.job.error = None;
        if again {
            self.restart(id, "its work ended", now);
        } else {
            self.advance(id, JobStatus::Stopped, now, None);
            self.finished(id);
        }
    }

    /// The work failed or its agent is lost for good.
    pub(super) fn work_failed(&mut self, id: &JobId, error: JobError, now: Timestamp) {
        let Some(record) = self.jobs.get_mut(id) else {
            return;
        };
        let reason = format!("{}: {}", error.code, error.message);
        record.job.error = Some(error);
        if record.job.restart_policy != RestartPolicy::Never && may_restart(record) {
            self.restart(id, &reason, now);
        } else {
            self.advance(id, JobStatus::Failed, now, Some(&reason));
            self.finished(id);
        }
    }

    /// The agent is there and does not have the job.
    pub(super) fn work_lost(&mut self, id: &JobId, now: Timestamp) {
        let Some(record) = self.jobs.get(id) else {
            return;
        };
        if record.private.stop_requested_at.is_some() {
            // It was to end, and it has.
            return self.work_ended(id, JobStatus::Stopped, None, now);
        }
        self.work_failed(
            id,
            JobError::new("LOST", "its agent came back without it"),
            now,
        );
    }

    fn restart(&mut self, id: &JobId, reason: &str, now: Timestamp) {
        if !self.advance(id, JobStatus::Pending, now, Some(reason)) {
            return;
        }
        self.unbind(id, now);
        self.change(id, now, |record| {
            let wait = restart_wait(id, record.job.restarts);
            record.job.restarts = record.job.restarts.saturating_add(1);
            record.private.backoff_until = Some(now.after(wait));
            record.private.refusals.clear();
        });
        self.arm(id);
    }

    /// The job has reached its end: it leaves the line, its key ends with it, and both expire.
    pub(super) fn finished(&mut self, id: &JobId) {
        self.queue.remove(id);
        let Some(record) = self.jobs.get_mut(id) else {
            return;
        };
        let private = &mut record.private;
        private.refusals.clear();
        private.backoff_until = None;
        private.offer_expires_at = None;
        self.arm(id);
    }

    /// The agent confirmed that a job which ended for clients long ago is really gone.
    pub(super) fn release_slot(&mut self, id: &JobId, now: Timestamp) {
        let Some(record) = self.jobs.get_mut(id) else {
            return;
        };
        if !record.private.holds_slot {
            return;
        }
        record.private.holds_slot = false;
        let agent = record.job.agent_id.clone();
        self.store_job(id);
        if let Some(agent) = agent {
            self.agents.release(&agent, id);
            self.show_soon(&agent, now);
        }
    }

    /// Looks whether an agent has been silent for too long.
    pub(super) fn check_silence(&mut self, id: &AgentId, now: Timestamp) {
        let Some(entry) = self.agents.get(id) else {
            return;
        };
        if !entry.is_online() {
            return;
        }
        if self.silent_at(entry.heard_at) <= now {
            self.agent_lost(id, "agent lost: no heartbeat", now);
        } else {
            self.watch_silence(id, now);
        }
    }

    /// Sets the reminder that watches an agent's heartbeats; there is one per agent that is online.
    pub(super) fn watch_silence(&mut self, id: &AgentId, now: Timestamp) {
        let Some(entry) = self.agents.get(id) else {
            return;
        };
        if entry.is_online() {
            let at = self.silent_at(entry.heard_at).max(now);
            self.timers.set(at, Timer::Silence(id.clone()));
        }
    }

    fn silent_at(&self, heard_at: Timestamp) -> Timestamp {
        heard_at.after(self.config.heartbeat_timeout + SLACK)
    }

    /// An agent is gone, for now: offline at once, its offers void, its jobs unknown.
    pub(super) fn agent_lost(&mut self, id: &AgentId, reason: &str, now: Timestamp) {
        let Some(jobs) = self.agents.change(id, |entry| {
            entry.end_session();
            entry.missing.clear();
            entry.jobs().to_vec()
        }) else {
            return;
        };
        self.effects.write(Write::Agent(id.clone()));
        for job in jobs {
            self.lose(&job, reason, now);
        }
    }

    fn lose(&mut self, id: &JobId, reason: &str, now: Timestamp) {
        match self.job(id).map(|job| job.status) {
            Some(JobStatus::Assigned) => self.revoke_assignment(id, reason, now),
            Some(
                JobStatus::Accepted
                | JobStatus::Starting
                | JobStatus::Running
                | JobStatus::Stopping,
            ) => {
                if let Some(record) = self.jobs.get_mut(id) {
                    record.private.lost_at = Some(now);
                }
                self.advance(id, JobStatus::Unknown, now, Some(reason));
                self.arm(id);
            }
            // The rest holds no agent, or is lost already.
            _ => {}
        }
    }

    /// Goes on with a job after a restart of the scheduler.
    pub(super) fn resume(&mut self, id: &JobId, now: Timestamp) {
        let Some(job) = self.job(id) else { return };
        let status = job.status;
        let online = job
            .agent_id
            .as_ref()
            .and_then(|agent| self.agents.get(agent))
            .is_some_and(|entry| entry.is_online());
        match status {
            JobStatus::Pending => self.pending_due(id, now),
            _ if status.holds_agent() && status != JobStatus::Unknown && !online => {
                self.lose(id, "agent lost", now);
            }
            JobStatus::Assigned => {
                // The offer may never have left; an agent that has it already ignores the second one.
                let expires_at = now.after(self.config.assign_ack_timeout);
                self.change(id, now, |record| {
                    record.private.offer_expires_at = Some(expires_at)
                });
                match self.config_of(id) {
                    Some(config) => self.send_offer(id, config),
                    None => {
                        self.revoke_assignment(id, "its template cannot be filled in any more", now)
                    }
                }
                self.arm(id);
            }
            JobStatus::Stopping => self.command_stop(id, now),
            _ => self.arm(id),
        }
    }
}

fn may_restart(record: &JobRecord) -> bool {
    let job = &record.job;
    let limit = match (job.restart_policy, job.max_restarts) {
        (RestartPolicy::Never, _) => 0,
        (_, Some(limit)) => limit,
        (RestartPolicy::OnFailure, None) => RESTARTS_BY_DEFAULT,
        (RestartPolicy::Always, None) => u32::MAX,
    };
    // A job that a client wants to end is not started again; one that its agent ended by itself is.
    record.private.stop_requested_at.is_none() && job.restarts < limit
}

/// 1 s, 2 s, 4 s … 60 s, each up to a fifth longer: jobs that failed together do not start again together. The jitter
/// follows from the job and the number of the restart, since the core has no randomness.
fn restart_wait(id: &JobId, restarts: u32) -> Duration {
    let wait = RESTART_MIN
        .saturating_mul(1 << restarts.min(16))
        .min(RESTART_MAX);
    let seed = u64::from(restarts).wrapping_add(0xcbf2_9ce4_8422_2325);
    // FNV-1a, by its authors' constants.
    let hash = id.as_str().bytes().fold(seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    wait.mul_f64(1.0 + (hash >> 32) as f64 / f64::from(u32::MAX) / 5.0)
}
