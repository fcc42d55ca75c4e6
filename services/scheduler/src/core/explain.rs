//! Explanation of a job's status, and of each agent that does not take it.

use std::collections::BTreeMap;

use quintet_contract::api::{AgentReason, Explanation, Gate};
use quintet_contract::error::ErrorReply;
use quintet_contract::id::{AgentId, JobId};
use quintet_contract::job::{JobRecord, JobStatus, Refusal};
use quintet_contract::time::Timestamp;

use super::Core;
use super::place::{Demand, Obstacle};

impl Core {
    pub(super) fn explain(&self, id: &JobId, now: Timestamp) -> Result<Explanation, ErrorReply> {
        let record = self.jobs.get(id).ok_or_else(ErrorReply::not_found)?;
        let (gate, message, until) = self.gate(record, now);
        let job = &record.job;
        let since = job.timeline.last().map_or(job.created_at, |entry| entry.at);
        let agents = match job.status {
            JobStatus::Pending => self.refusals(&self.demand(job), &record.private.refusals, now),
            _ => Vec::new(),
        };
        Ok(Explanation {
            job_id: id.clone(),
            status: job.status,
            gate,
            message,
            since,
            waiting_ms: u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX),
            until,
            agents,
        })
    }

    fn gate(&self, record: &JobRecord, now: Timestamp) -> (Gate, String, Option<Timestamp>) {
        let (job, private) = (&record.job, &record.private);
        let agent = job
            .agent_id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        match job.status {
            JobStatus::Created => (
                Gate::NotBefore,
                "its time has not come".to_owned(),
                job.not_before,
            ),
            JobStatus::Pending => match private.backoff_until.filter(|until| *until > now) {
                Some(until) => {
                    let text = format!(
                        "its last attempt ended, and it waits before it starts again (restart {})",
                        job.restarts
                    );
                    (Gate::Backoff, text, Some(until))
                }
                None => self.placement_gate(record, now),
            },
            JobStatus::Assigned => (
                Gate::WaitingForAnswer,
                format!("offered to {agent}, which has not answered yet"),
                private.offer_expires_at,
            ),
            JobStatus::Accepted
            | JobStatus::Starting
            | JobStatus::Running
            | JobStatus::Stopping => (
                Gate::None,
                format!("{} on {agent}", job.status),
                self.due(&job.id),
            ),
            JobStatus::Unknown => (
                Gate::AgentLost,
                format!("{agent} is lost; what the job does is not known"),
                self.due(&job.id),
            ),
            JobStatus::Stopped | JobStatus::Failed | JobStatus::Canceled => {
                let text = match &job.error {
                    Some(error) => format!("ended {}: {}", job.status, error.message),
                    None => format!("ended {}", job.status),
                };
                (Gate::Ended, text, None)
            }
        }
    }

    /// The gate is the obstacle that is nearest to going away.
    fn placement_gate(
        &self,
        record: &JobRecord,
        now: Timestamp,
    ) -> (Gate, String, Option<Timestamp>) {
        let demand = self.demand(&record.job);
        let obstacles = self.agents.iter().filter_map(|(id, entry)| {
            self.obstacle(entry, &demand, record.private.refusals.get(id), now)
                .map(|(obstacle, _)| obstacle)
        });
        let mut nearest: Option<Obstacle> = None;
        for obstacle in obstacles {
            nearest = Some(match (nearest, obstacle) {
                (Some(Obstacle::Refused(one)), Obstacle::Refused(other)) => {
                    Obstacle::Refused(one.min(other))
                }
                (Some(one), other) => one.max(other),
                (None, other) => other,
            });
        }
        match nearest {
            None | Some(Obstacle::Offline) => {
                (Gate::NoAgentOnline, "no agent is online".to_owned(), None)
            }
            Some(Obstacle::Unmet) => (
                Gate::RequirementNotMet,
                "no agent that is online meets what it asks for".to_owned(),
                None,
            ),
            Some(Obstacle::Faulty) => (
                Gate::AgentError,
                "every agent that could take it reports an error of its own".to_owned(),
                None,
            ),
            Some(Obstacle::Draining) => (
                Gate::Draining,
                "every agent that could take it is draining".to_owned(),
                None,
            ),
            Some(Obstacle::Refused(until)) => (
                Gate::AgentBackoff,
                "every agent that could take it rejected it a moment ago".to_owned(),
                Some(until),
            ),
            Some(Obstacle::Full) => (
                Gate::NoFreeSlot,
                "every agent that could take it is full".to_owned(),
                None,
            ),
        }
    }

    /// Every agent that does not take a job with this demand, and why.
    pub(super) fn refusals(
        &self,
        demand: &Demand,
        refusals: &BTreeMap<AgentId, Refusal>,
        now: Timestamp,
    ) -> Vec<AgentReason> {
        self.agents
            .iter()
            .filter_map(|(id, entry)| {
                let (_, reason) = self.obstacle(entry, demand, refusals.get(id), now)?;
                Some(AgentReason {
                    agent_id: id.clone(),
                    reason,
                })
            })
            .collect()
    }
}
