//! Placement: which waiting job goes to which agent. Least loaded by used/total slots first, then least recently
//! used. Jobs by priority, then age; a job that no agent can serve never blocks one that can be served.

use std::collections::{BTreeMap, BTreeSet};

use quintet_contract::agent::Assignment;
use quintet_contract::capability::{Capabilities, Requirements};
use quintet_contract::id::{AgentId, IdempotencyKey, JobId, TemplateId};
use quintet_contract::job::{
    Job, JobError, JobRecord, JobStatus, Refusal, RestartPolicy, executor_of,
};
use quintet_contract::time::Timestamp;
use quintet_contract::{JsonObject, capability};
use serde_json::Value;

use super::event::Action;
use super::queue::{Class, Rank};
use super::registry::{Candidate, Entry};
use super::{Core, Timer};

/// First time that an agent which rejected a job is not asked again for it; doubles up to [`REFUSED_MAX`].
const REFUSED_MIN_MS: u64 = 1_000;
/// Longest such time.
const REFUSED_MAX_MS: u64 = 30_000;

/// The demand of a job: what its agent must have.
pub(super) struct Demand {
    requirements: Requirements,
    executor: Option<String>,
}

impl Demand {
    /// Why an agent with these capabilities cannot serve it; `None` when it can.
    pub(super) fn unmet_by(&self, capabilities: &Capabilities) -> Option<String> {
        if let Some(unmet) = self.requirements.unmet_by(capabilities) {
            return Some(unmet);
        }
        let executor = self.executor.as_ref()?;
        // An agent that names no executors decides for itself.
        let missing =
            !capabilities.executors.is_empty() && !capabilities.executors.contains(executor);
        missing.then(|| {
            format!(
                "executor {executor} required, agent has {}",
                capabilities.executors.join(", ")
            )
        })
    }
}

/// Why an agent does not take a job now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    /// It is not there.
    Offline,
    /// It cannot serve the job.
    Unmet,
    /// It reports an error of its own.
    Faulty,
    /// It is to take no more.
    Draining,
    /// It rejected the job a moment ago.
    Refused(Timestamp),
    /// It is full.
    Full,
}

impl Core {
    /// Puts a waiting job in line, or out of it while it waits for a time of its own.
    pub(super) fn enqueue(&mut self, id: &JobId, now: Timestamp) {
        self.queue.remove(id);
        let Some(record) = self.jobs.get(id) else {
            return;
        };
        let waits = record
            .private
            .backoff_until
            .is_some_and(|until| until > now);
        if record.job.status != JobStatus::Pending || waits {
            return;
        }
        let job = &record.job;
        let demand = self.demand(job);
        let alone = (!record.private.refusals.is_empty()).then(|| id.clone());
        let class = Class {
            demand: text_of(&demand),
            alone,
        };
        self.queue
            .insert(class, Rank::new(job.priority, job.created_at, id.clone()));
    }

    /// The demand of a job, its template included.
    pub(super) fn demand(&self, job: &Job) -> Demand {
        match job
            .template_id
            .as_ref()
            .and_then(|id| self.templates.get(id))
        {
            Some(template) => Demand {
                requirements: job.requirements.and(&template.requirements),
                executor: Some(template.executor.clone()),
            },
            None => Demand {
                requirements: job.requirements.clone(),
                executor: job
                    .inline_config
                    .as_ref()
                    .and_then(executor_of)
                    .map(str::to_owned),
            },
        }
    }

    /// Jobs that wait and were submitted with this template ask for something else now.
    pub(super) fn template_changed(&mut self, id: &TemplateId, now: Timestamp) {
        let of_template = |job: &JobId| {
            self.job(job)
                .is_some_and(|job| job.template_id.as_ref() == Some(id))
        };
        let waiting: Vec<JobId> = self
            .queue
            .ids()
            .filter(|job| of_template(job))
            .cloned()
            .collect();
        for job in waiting {
            self.enqueue(&job, now);
        }
    }

    /// Places everything that can be placed.
    pub(super) fn place(&mut self, now: Timestamp) {
        let newly_available = self.agents.take_newly_available();
        if self.queue.is_empty() || self.agents.is_full() {
            return;
        }
        // A closed class was refused by all who were free before.
        let mut heads = match newly_available.is_empty() {
            true => self.queue.open_heads(),
            false => self.queue.heads(),
        };
        while let Some((rank, class)) = heads.pop_first() {
            if self.agents.is_full() {
                return;
            }
            let only = (!self.queue.is_open(&class)).then_some(&newly_available);
            // A class whose head finds no agent is done with: there is none for the others either.
            let Some(agent) = self.choose(&rank.id, only, now) else {
                self.queue.close(&class);
                continue;
            };
            self.queue.remove(&rank.id);
            self.offer(&rank.id, &agent, now);
            if let Some(next) = self.queue.head(&class) {
                heads.insert((next, class));
            }
        }
    }

    /// The agent that gets a job, of these or of all.
    fn choose(
        &self,
        id: &JobId,
        only: Option<&BTreeSet<AgentId>>,
        now: Timestamp,
    ) -> Option<AgentId> {
        let record = self.jobs.get(id)?;
        let (demand, refusals) = (self.demand(&record.job), &record.private.refusals);
        match only {
            Some(only) => {
                let free = self.agents.free_of(only);
                self.first_of(free.into_iter(), &demand, refusals, now)
            }
            None => self.choose_for(&demand, refusals, now),
        }
    }

    /// The agent that would get a job with this demand.
    pub(super) fn choose_for(
        &self,
        demand: &Demand,
        refusals: &BTreeMap<AgentId, Refusal>,
        now: Timestamp,
    ) -> Option<AgentId> {
        self.first_of(self.agents.free(), demand, refusals, now)
    }

    /// The first of these candidates whose agent can serve the requirements and has not just rejected the job.
    fn first_of<'p>(
        &self,
        candidates: impl Iterator<Item = &'p Candidate>,
        demand: &Demand,
        refusals: &BTreeMap<AgentId, Refusal>,
        now: Timestamp,
    ) -> Option<AgentId> {
        let fits = |id: &&AgentId| {
            refusals.get(id).is_none_or(|refusal| refusal.until <= now)
                && self
                    .agents
                    .get(id)
                    .is_some_and(|entry| demand.unmet_by(&entry.capabilities).is_none())
        };
        candidates.map(Candidate::agent).find(fits).cloned()
    }

    /// The obstacle that keeps this agent from taking a job with this demand, and the same for people.
    pub(super) fn obstacle(
        &self,
        entry: &Entry,
        demand: &Demand,
        refusal: Option<&Refusal>,
        now: Timestamp,
    ) -> Option<(Obstacle, String)> {
        let agent = &entry.record.agent;
        if !entry.is_online() {
            return Some((Obstacle::Offline, "offline".to_owned()));
        }
        if let Some(unmet) = demand.unmet_by(&entry.capabilities) {
            return Some((Obstacle::Unmet, unmet));
        }
        if let Some(fault) = &agent.error {
            return Some((
                Obstacle::Faulty,
                format!("reports an error: {}", fault.message),
            ));
        }
        if agent.drain {
            return Some((Obstacle::Draining, "draining".to_owned()));
        }
        if let Some(refusal) = refusal.filter(|refusal| refusal.until > now) {
            let text = format!(
                "rejected it ({}), is offered it again at {}",
                refusal.reason, refusal.until
            );
            return Some((Obstacle::Refused(refusal.until), text));
        }
        let (used, slots) = (entry.jobs().len(), entry.capabilities.slots);
        (!entry.has_free_slot()).then(|| {
            (
                Obstacle::Full,
                format!("no free slot, {used} of {slots} are in use"),
            )
        })
    }

    fn offer(&mut self, id: &JobId, agent: &AgentId, now: Timestamp) {
        let Some(record) = self.jobs.get_mut(id) else {
            return;
        };
        let config = match config_of(record, &self.templates) {
            Ok(config) => config,
            Err(error) => {
                record.job.error = Some(error);
                self.advance(
                    id,
                    JobStatus::Failed,
                    now,
                    Some("its template cannot be filled in"),
                );
                self.finished(id);
                return;
            }
        };
        record.job.attempt = record.job.attempt.next();
        record.job.agent_id = Some(agent.clone());
        record.job.started_at = None;
        record.private.offer_expires_at = Some(now.after(self.config.assign_ack_timeout));
        self.advance(id, JobStatus::Assigned, now, None);
        self.agents.used_at(agent, now);
        self.send_offer(id, config);
        self.arm(id);
    }

    /// Sends the offer that the record describes.
    pub(super) fn send_offer(&mut self, id: &JobId, config: JsonObject) {
        let Some(record) = self.jobs.get(id) else {
            return;
        };
        let (job, private) = (&record.job, &record.private);
        let (Some(agent), Some(expires_at)) = (job.agent_id.clone(), private.offer_expires_at)
        else {
            return;
        };
        let key = job
            .idempotency_key
            .clone()
            .or_else(|| IdempotencyKey::parse(id.as_str()).ok());
        let Some(idempotency_key) = key else { return };
        let assignment = Assignment {
            job_id: id.clone(),
            attempt: job.attempt,
            config,
            idempotency_key,
            expires_at,
            restartable: job.restart_policy != RestartPolicy::Never,
            requested_by: job.requested_by.clone(),
            stream_metadata: job.stream_metadata.clone().unwrap_or_default(),
        };
        self.effects.act(Action::Offer {
            agent,
            assignment: Box::new(assignment),
            traceparent: private.traceparent.clone(),
        });
    }

    /// The configuration that an offer of this job carries.
    pub(super) fn config_of(&self, id: &JobId) -> Option<JsonObject> {
        self.jobs
            .get(id)
            .and_then(|record| config_of(record, &self.templates).ok())
    }

    /// The agent rejected an offer, or was silent: the job waits again, and leaves that agent alone for a while.
    pub(super) fn assignment_rejected(&mut self, id: &JobId, reason: &str, now: Timestamp) {
        let Some(agent) = self.job(id).and_then(|job| job.agent_id.clone()) else {
            return;
        };
        self.change(id, now, |record| {
            let count = record
                .private
                .refusals
                .get(&agent)
                .map_or(0, |refusal| refusal.count)
                .saturating_add(1);
            let wait = REFUSED_MIN_MS
                .saturating_mul(1 << (count - 1).min(16))
                .min(REFUSED_MAX_MS);
            let until = now.after(std::time::Duration::from_millis(wait));
            record.private.refusals.insert(
                agent.clone(),
                Refusal {
                    count,
                    until,
                    reason: reason.to_owned(),
                },
            );
        });
        self.revoke_assignment(id, &format!("{agent}: {reason}"), now);
    }

    /// An offer is void: the job waits again, or is canceled when a stop was asked for meanwhile.
    pub(super) fn revoke_assignment(&mut self, id: &JobId, reason: &str, now: Timestamp) {
        if !self.advance(id, JobStatus::Pending, now, Some(reason)) {
            return;
        }
        self.unbind(id, now);
        let stop = self
            .jobs
            .get(id)
            .is_some_and(|record| record.private.stop_requested_at.is_some());
        if stop {
            self.advance(id, JobStatus::Canceled, now, Some("stop requested"));
            self.finished(id);
        } else {
            self.enqueue(id, now);
            self.arm(id);
        }
    }

    /// A job that waits again has no agent.
    pub(super) fn unbind(&mut self, id: &JobId, now: Timestamp) {
        let Some(record) = self.jobs.get_mut(id) else {
            return;
        };
        let agent = record.job.agent_id.take();
        let private = &mut record.private;
        private.offer_expires_at = None;
        private.stop_sent_at = None;
        private.kill_sent_at = None;
        private.lost_at = None;
        private.session = None;
        if let Some(agent) = agent {
            self.agents.release(&agent, id);
            self.show_soon(&agent, now);
        }
    }

    /// Looks at this job again when something that only time brings is due.
    pub(super) fn arm(&mut self, id: &JobId) {
        if let Some(at) = self.due(id) {
            self.timers.set(at, Timer::Job(id.clone()));
        }
    }
}

fn config_of(
    record: &JobRecord,
    templates: &BTreeMap<TemplateId, quintet_contract::template::Template>,
) -> Result<JsonObject, JobError> {
    let job = &record.job;
    let Some(template_id) = &job.template_id else {
        return Ok(job.inline_config.clone().unwrap_or_default());
    };
    let Some(template) = templates.get(template_id) else {
        // The agent may know it.
        let id = Value::String(template_id.to_string());
        return Ok([("templateId".to_owned(), id)].into_iter().collect());
    };
    template
        .resolve(&job.params)
        .map_err(|missing| JobError::new("TEMPLATE_PARAMS", missing.to_string()))
}

/// One text per set of requirements.
fn text_of(demand: &Demand) -> String {
    let capability::Requirements {
        max_resolution,
        labels,
        tags,
        fenced,
    } = &demand.requirements;
    if demand.requirements.is_empty() {
        return demand.executor.clone().unwrap_or_default();
    }
    format!(
        "{:?} {max_resolution:?} {labels:?} {tags:?} {fenced}",
        demand.executor
    )
}
