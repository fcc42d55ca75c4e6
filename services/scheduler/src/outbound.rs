//! Outbound: performs the effects of the core. It writes records by revision, then acts. Long work runs beside the loop
//! and comes back as an event.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use quintet_bus::pending::PendingReplies;
use quintet_bus::{BucketHandle, Bus, Change, KvError, Loaded, Revision, Versioned, Watch};
use quintet_contract::agent::{AgentCommand, Assignment};
use quintet_contract::bucket::{Agents, Jobs, Keys, Templates};
use quintet_contract::error::ErrorReply;
use quintet_contract::id::{AgentId, IdempotencyKey, JobId};
use quintet_contract::job::{JobRecord, KeyRecord};
use quintet_contract::subject::{AssignQueue, CommandAgent, CommandVerb};
use quintet_contract::time::Timestamp;
use quintet_leader::{Confirmation, ReloadReason, Signal, WriteError};
use quintet_service::trace::set_parent;
use tracing::{Instrument, Span, debug, info_span, warn};

use crate::core::{Action, Claim, CommandId, Core, Event, Record, Rejection, Traceparent, Write};
use crate::metrics;

/// How long an agent may take to answer a live command.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);
/// How long a stop or kill is tried; after that the next heartbeat repeats it.
const ORDER_DEADLINE: Duration = Duration::from_secs(3);

/// Work that runs beside the loop and may come back as an event.
type Work = FuturesUnordered<BoxFuture<'static, Option<Event>>>;

/// Everything that effects act on.
pub(crate) struct Outbound {
    bus: Bus,
    jobs: BucketHandle<Jobs>,
    agents: BucketHandle<Agents>,
    keys: BucketHandle<Keys>,
    job_revisions: HashMap<JobId, Revision>,
    agent_revisions: HashMap<AgentId, Revision>,
    templates: Watch<Templates>,
    work: Work,
}

impl Outbound {
    pub(crate) fn new(
        bus: Bus,
        jobs: &Loaded<Jobs>,
        agents: &Loaded<Agents>,
        templates: Watch<Templates>,
    ) -> Self {
        let job_revisions = jobs.entries.iter();
        let agent_revisions = agents.entries.iter();
        Self {
            jobs: bus.bucket(),
            agents: bus.bucket(),
            keys: bus.bucket(),
            bus,
            job_revisions: job_revisions
                .map(|(id, found)| (id.clone(), found.revision))
                .collect(),
            agent_revisions: agent_revisions
                .map(|(id, found)| (id.clone(), found.revision))
                .collect(),
            templates,
            work: Work::new(),
        }
    }

    async fn write_job(
        &mut self,
        core: &Core,
        id: JobId,
        now: Timestamp,
    ) -> Result<Option<Confirmation<Option<Revision>>>, WriteError> {
        let Some((record, ttl)) = core.job_record(&id, now) else {
            return Ok(None);
        };
        let expected = self.job_revisions.get(&id).copied().unwrap_or_default();
        if !record.job.status.is_final() || record.job.idempotency_key.is_none() {
            let pending = self.jobs.begin(&id, record, expected, ttl).await?;
            return Ok(Some(Box::pin(async move { Ok(Some(pending.await?)) })));
        }
        let (keys, jobs, record) = (self.keys.clone(), self.jobs.clone(), record.clone());
        Ok(Some(Box::pin(async move {
            // Keys end before their jobs: a key that is still open while its job is gone would create it again.
            finish_key(&keys, &record, ttl).await?;
            Ok(Some(jobs.update(&id, &record, expected, ttl).await?))
        })))
    }

    async fn offer(&mut self, agent: AgentId, assignment: Assignment, traceparent: Traceparent) {
        let span =
            info_span!("assign", %agent, job = %assignment.job_id, attempt = %assignment.attempt);
        continue_trace(&span, &traceparent);
        let subject = AssignQueue { agent };
        let sent = self
            .bus
            .store(&subject, &assignment, None)
            .instrument(span)
            .await;
        match sent {
            Ok(confirmation) => self.work.push(Box::pin(async move {
                if let Err(error) = confirmation.await {
                    // The offer's time runs out, and the job is placed again.
                    warn!(%error, "an offer may not have reached its queue");
                }
                None
            })),
            Err(error) => warn!(%error, "cannot send an offer"),
        }
    }

    fn command(
        &self,
        agent: AgentId,
        command: AgentCommand,
        command_id: Option<CommandId>,
        traceparent: Traceparent,
    ) {
        let Some(verb) = CommandVerb::of(&command) else {
            return;
        };
        let span = info_span!("command", %agent, ?verb);
        continue_trace(&span, &traceparent);
        let bus = self.bus.clone();
        let subject = CommandAgent { agent, verb };
        let replaced = matches!(command, AgentCommand::Replaced { .. });
        self.work.push(Box::pin(
            async move {
                let Some(command_id) = command_id else {
                    // No process may be left to learn that it was replaced.
                    let outcome = match replaced {
                        true => bus.request(&subject, &command, ORDER_DEADLINE).await,
                        false => bus.request_until(&subject, &command, ORDER_DEADLINE).await,
                    };
                    if let Err(error) = outcome {
                        debug!(%error, "a command was not confirmed");
                    }
                    return None;
                };
                let outcome = bus.request(&subject, &command, COMMAND_DEADLINE).await;
                let outcome = outcome.map_err(|error| error.to_reply());
                Some(Event::CommandAnswered {
                    command_id,
                    outcome,
                })
            }
            .instrument(span),
        ));
    }

    fn claim(&self, key: IdempotencyKey, record: KeyRecord, replaces: Revision) {
        let (keys, jobs) = (self.keys.clone(), self.jobs.clone());
        self.work.push(Box::pin(async move {
            let outcome = match claim(&keys, &jobs, &key, &record, replaces).await {
                Ok(claim) => claim,
                Err(error) => {
                    warn!(error = %quintet_service::telemetry::chain(&error), "cannot claim an idempotency key");
                    Claim::Failed(unclaimed(error))
                }
            };
            Some(Event::KeyClaimed { key, outcome })
        }));
    }
}

impl quintet_leader::Outbound for Outbound {
    type Core = Core;
    type Key = Record;
    /// None for a record that was deleted.
    type Receipt = Option<Revision>;

    fn key(write: &Write) -> Record {
        match write {
            Write::Job(id) => Record::Job(id.clone()),
            Write::Agent(id) | Write::NoAgent(id) => Record::Agent(id.clone()),
        }
    }

    async fn begin(
        &mut self,
        core: &Core,
        write: Write,
        now: Timestamp,
    ) -> Result<Option<Confirmation<Self::Receipt>>, WriteError> {
        match write {
            Write::Job(id) => self.write_job(core, id, now).await,
            Write::Agent(id) => {
                let Some(record) = core.agent_record(&id) else {
                    return Ok(None);
                };
                let expected = self.agent_revisions.get(&id).copied().unwrap_or_default();
                let pending = self.agents.begin(&id, &record, expected, None).await?;
                Ok(Some(Box::pin(async move { Ok(Some(pending.await?)) })))
            }
            Write::NoAgent(id) => {
                let (agents, expected) = (self.agents.clone(), self.agent_revisions.get(&id));
                let expected = expected.copied();
                Ok(Some(Box::pin(async move {
                    agents.delete(&id, expected).await?;
                    Ok(None)
                })))
            }
        }
    }

    fn confirmed(&mut self, key: Record, revision: Option<Revision>) -> Option<Event> {
        match (key, revision) {
            (Record::Job(id), Some(revision)) => {
                self.job_revisions.insert(id, revision);
            }
            (Record::Job(id), None) => {
                self.job_revisions.remove(&id);
            }
            (Record::Agent(id), Some(revision)) => {
                self.agent_revisions.insert(id, revision);
            }
            (Record::Agent(id), None) => {
                self.agent_revisions.remove(&id);
            }
        }
        None
    }

    fn rejected(&mut self, rejection: Rejection) -> Event {
        let jobs = rejection.keys.iter().filter_map(|key| match key {
            Record::Job(id) => Some(id.clone()),
            Record::Agent(_) => None,
        });
        let unstored = jobs.filter(|id| !self.job_revisions.contains_key(id));
        Event::WriteRejected {
            unstored: unstored.collect(),
            rejection,
        }
    }

    async fn act(&mut self, action: Action, pending: &mut PendingReplies) {
        match action {
            Action::Reply(reply) => pending.send(reply).await,
            Action::Offer {
                agent,
                assignment,
                traceparent,
            } => self.offer(agent, *assignment, traceparent).await,
            Action::Command {
                agent,
                command,
                command_id,
                traceparent,
            } => self.command(agent, command, command_id, traceparent),
            Action::ClaimKey {
                key,
                record,
                replaces,
            } => self.claim(key, *record, Revision(replaces)),
            Action::Forget(id) => {
                self.job_revisions.remove(&id);
            }
            Action::Count(anomaly) => metrics::anomaly(anomaly),
        }
    }

    /// Cancel-safe: work and watch keep what was not returned.
    async fn next(&mut self) -> Signal<Event, Action> {
        loop {
            tokio::select! {
                biased;
                Some(event) = self.work.next() => {
                    if let Some(event) = event {
                        return Signal::Event(event);
                    }
                }
                change = self.templates.next() => match change {
                    Some(Ok(Change::Put { record, .. })) => {
                        return Signal::Event(Event::TemplateStored(Box::new(record)));
                    }
                    Some(Ok(Change::Gone { key, .. })) => {
                        return Signal::Event(Event::TemplateDeleted(key));
                    }
                    Some(Ok(Change::UpToDate)) => {}
                    Some(Err(error)) => return Signal::Reload(ReloadReason::Watch(error.into())),
                    // It ends after an error only, after which state is loaded again.
                    None => std::future::pending().await,
                }
            }
        }
    }

    fn committed(&self, records: usize, took: Duration) {
        metrics::committed(records, took.as_secs_f64());
    }
}

/// Marks the key of a job as ended, to expire with it.
async fn finish_key(
    keys: &BucketHandle<Keys>,
    record: &JobRecord,
    ttl: Option<Duration>,
) -> Result<(), KvError> {
    let (Some(key), Some(revision)) = (
        record.job.idempotency_key.clone(),
        record.private.key_revision,
    ) else {
        return Ok(());
    };
    let ended = KeyRecord {
        job_id: record.job.id.clone(),
        pool: record.job.pool.clone(),
        first: record.clone(),
        ended: true,
    };
    match keys.update(&key, &ended, Revision(revision), ttl).await {
        Ok(_) => Ok(()),
        // Ended before, by a scheduler that died before the job itself was stored.
        Err(KvError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn claim(
    keys: &BucketHandle<Keys>,
    jobs: &BucketHandle<Jobs>,
    key: &IdempotencyKey,
    record: &KeyRecord,
    replaces: Revision,
) -> Result<Claim, KvError> {
    match keys.update(key, record, replaces, None).await {
        Ok(Revision(revision)) => return Ok(Claim::Created(revision)),
        Err(KvError::Conflict { .. }) => {}
        Err(error) => return Err(error),
    }
    let Some(Versioned {
        record: found,
        revision: Revision(revision),
    }) = keys.get(key).await?
    else {
        // It expired between the two reads.
        let Revision(revision) = keys.update(key, record, Revision(0), None).await?;
        return Ok(Claim::Created(revision));
    };
    let elsewhere = match found.pool == record.pool {
        true => None,
        false => {
            let job = jobs.get(&found.job_id).await?.map(|job| job.record.job);
            // A job that is not stored yet is as it was first wanted.
            Some(Box::new(job.unwrap_or_else(|| found.first.job.clone())))
        }
    };
    Ok(Claim::Taken {
        record: Box::new(found),
        revision,
        elsewhere,
    })
}

/// The answer to a submission whose key could not be claimed.
fn unclaimed(error: KvError) -> ErrorReply {
    match WriteError::from(error) {
        rejected @ WriteError::Rejected(_) => rejected.to_reply(),
        WriteError::Conflict(_) | WriteError::Indeterminate(_) => {
            let text =
                "the idempotency key could not be stored; send the same request again in a moment";
            ErrorReply::unavailable(text)
        }
    }
}

fn continue_trace(span: &Span, traceparent: &Traceparent) {
    set_parent(span, |name| {
        traceparent.clone().filter(|_| name == "traceparent")
    });
}
