//! Records that the store rejects: too large, or not allowed. Nothing else is concerned: a job that was never stored is
//! refused, one that was stored fails with one sentence, an agent is stored without its announcements.
//!
//! What was to be done once such a record is stored is corrected: requests about it are refused, offers of it are not made.

use std::collections::BTreeSet;

use quintet_contract::JsonObject;
use quintet_contract::agent::ReportsReply;
use quintet_contract::api::BatchReply;
use quintet_contract::error::ErrorReply;
use quintet_contract::id::{AgentId, JobId};
use quintet_contract::job::{JobError, JobStatus};
use quintet_contract::reply::Reply;
use quintet_contract::time::Timestamp;

use super::Core;
use super::event::{Action, Anomaly, Answer, Record, Rejection, Write};

/// Code of a job that failed because its record is rejected.
const NOT_STORED: &str = "NOT_STORED";

/// What a rejection is about.
struct Rejected {
    jobs: BTreeSet<JobId>,
    agents: BTreeSet<AgentId>,
    reply: ErrorReply,
}

impl Core {
    pub(super) fn write_rejected(
        &mut self,
        rejection: Rejection,
        unstored: &[JobId],
        now: Timestamp,
    ) {
        let Rejection {
            keys,
            withheld,
            reply,
        } = rejection;
        let mut rejected = Rejected {
            jobs: BTreeSet::new(),
            agents: BTreeSet::new(),
            reply,
        };
        for key in keys {
            match key {
                Record::Job(id) => {
                    if unstored.contains(&id) {
                        self.discard(&id, now);
                    } else {
                        self.fail_unstorable(&id, &rejected.reply, now);
                    }
                    rejected.jobs.insert(id);
                }
                Record::Agent(id) => {
                    self.store_bare(&id);
                    rejected.agents.insert(id);
                }
            }
        }
        let corrected = withheld
            .into_iter()
            .filter_map(|action| rejected.corrected(action));
        self.effects.then.extend(corrected);
    }

    /// Removes a job that was never stored.
    fn discard(&mut self, id: &JobId, now: Timestamp) {
        let agent = self.job(id).and_then(|job| job.agent_id.clone());
        self.remove(id);
        if let Some(agent) = agent {
            self.show_soon(&agent, now);
        }
    }

    /// Fails a job whose record cannot be stored as it is, and stores it without what may have made it too large. What an
    /// agent runs of it is killed; its slot is free when the agent confirms that.
    fn fail_unstorable(&mut self, id: &JobId, reply: &ErrorReply, now: Timestamp) {
        let Some(record) = self.jobs.get_mut(id) else {
            return;
        };
        let job = &mut record.job;
        if job
            .error
            .as_ref()
            .is_some_and(|error| error.code == NOT_STORED)
        {
            return self.count(Anomaly::Unstorable);
        }
        job.error = Some(JobError::new(NOT_STORED, &reply.error));
        job.stream_metadata = None;
        for entry in &mut job.timeline {
            entry.reason = None;
        }
        record.private.refusals.clear();
        let status = job.status;
        match status {
            JobStatus::Stopped | JobStatus::Failed | JobStatus::Canceled => {
                return self.store_job(id);
            }
            JobStatus::Created => {
                self.advance(id, JobStatus::Pending, now, None);
            }
            JobStatus::Assigned => {
                self.advance(id, JobStatus::Pending, now, None);
                self.unbind(id, now);
            }
            JobStatus::Pending => {}
            JobStatus::Accepted
            | JobStatus::Starting
            | JobStatus::Running
            | JobStatus::Stopping
            | JobStatus::Unknown => {
                record.private.holds_slot = true;
                self.send_kill(id);
            }
        }
        self.advance(id, JobStatus::Failed, now, Some("its record is not stored"));
        self.finished(id);
    }

    /// Stores an agent without what it announced; what it can do is known all the same, until the next leader.
    fn store_bare(&mut self, id: &AgentId) {
        let changed = self.agents.change(id, |entry| {
            let agent = &mut entry.record.agent;
            let had_any = !agent.meta.is_empty() || !agent.capabilities.is_empty();
            agent.meta = JsonObject::new();
            agent.capabilities = JsonObject::new();
            had_any
        });
        match changed {
            Some(true) => self.effects.write(Write::Agent(id.clone())),
            Some(false) => self.count(Anomaly::Unstorable),
            None => {}
        }
    }
}

impl Rejected {
    /// An action that was withheld, as it is to be done all the same; none if it is not.
    fn corrected(&self, action: Action) -> Option<Action> {
        match action {
            Action::Offer { assignment, .. } if self.jobs.contains(&assignment.job_id) => None,
            Action::Reply(reply) => Some(Action::Reply(self.reply(reply))),
            Action::Offer { .. }
            | Action::Command { .. }
            | Action::ClaimKey { .. }
            | Action::Forget(_)
            | Action::Count(_) => Some(action),
        }
    }

    fn reply(&self, mut reply: Reply<Answer>) -> Reply<Answer> {
        let is_refused = match reply.answer() {
            Answer::Submitted(reply) => self.jobs.contains(&reply.job.id),
            Answer::Job(reply) => self.jobs.contains(&reply.job.id),
            // Its step wrote nothing but the job.
            Answer::Metadata(_) => !self.jobs.is_empty(),
            Answer::Agent(reply) => self.agents.contains(&reply.agent.id),
            Answer::Done(_) => !self.agents.is_empty(),
            Answer::Batch(_) | Answer::Reports(_) => false,
            Answer::DryRun(_)
            | Answer::Jobs(_)
            | Answer::Control(_)
            | Answer::Explanation(_)
            | Answer::Agents(_)
            | Answer::Heartbeat(_)
            | Answer::Refused(_) => false,
        };
        if is_refused {
            return reply.refused(self.reply.clone());
        }
        if let Some(batch) = reply.get_mut() {
            self.correct_batch(batch);
        }
        if let Some(reports) = reply.get_mut() {
            self.correct_reports(reports);
        }
        reply
    }

    fn correct_batch(&self, reply: &mut BatchReply) {
        for entry in &mut reply.results {
            let is_refused = entry
                .accepted
                .as_ref()
                .is_some_and(|accepted| self.jobs.contains(&accepted.job.id));
            if is_refused {
                entry.accepted = None;
                entry.refused = Some(self.reply.clone());
            }
        }
    }

    /// What was reported is known; an acceptance that is not stored is not confirmed.
    fn correct_reports(&self, reply: &mut ReportsReply) {
        let (kill, start) = std::mem::take(&mut reply.start)
            .into_iter()
            .partition(|named| self.jobs.contains(&named.job_id));
        reply.start = start;
        reply.kill.extend::<Vec<_>>(kill);
    }
}
