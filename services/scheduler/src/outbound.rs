//! Does what the core decided: first everything that is to be stored, written together and awaited; then the rest.
//!
//! The revisions of all records are kept here. A write that loses, or whose fate is not known, means that this process
//! is not sure any more what is stored: [`Unsure`]. Then the driver forgets everything and loads it anew.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::future::{BoxFuture, try_join_all};
use futures::stream::FuturesUnordered;
use quintet_bus::{BucketHandle, Bus, KvError, Loaded, Revision, Versioned};
use quintet_contract::agent::{AgentCommand, Assignment};
use quintet_contract::bucket::{Agents, Jobs, Keys};
use quintet_contract::error::ErrorReply;
use quintet_contract::id::{AgentId, IdempotencyKey, JobId};
use quintet_contract::job::KeyRecord;
use quintet_contract::subject::{AssignQueue, CommandAgent, CommandVerb};
use quintet_contract::time::Timestamp;
use quintet_service::trace::set_parent;
use tokio::time::Instant;
use tracing::{Instrument, Span, debug, info_span, warn};

use crate::core::{AskId, Claim, Core, Effect, Event, Traceparent};
use crate::inbound::Askers;
use crate::metrics;

/// How long an agent may take to answer a live command.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);
/// How long a stop or kill is tried; after that the next heartbeat brings it up again.
const ORDER_DEADLINE: Duration = Duration::from_secs(3);

/// Work that goes on beside the loop and may come back as an event.
pub(crate) type Work = FuturesUnordered<BoxFuture<'static, Option<Event>>>;

/// It is not certain what is stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsure {
    /// A record could not be written for sure.
    #[error("writing what changed")]
    Write(#[from] KvError),
    /// The lease is no longer ours.
    #[error("the lease was lost before the changes were written")]
    Lease,
}

/// Everything that effects act on.
pub(crate) struct Outbound {
    bus: Bus,
    jobs: BucketHandle<Jobs>,
    agents: BucketHandle<Agents>,
    keys: BucketHandle<Keys>,
    job_revisions: HashMap<JobId, Revision>,
    agent_revisions: HashMap<AgentId, Revision>,
    pub(crate) work: Work,
}

/// What one commit writes, each record once.
#[derive(Default)]
struct Writes {
    keys: Vec<JobId>,
    jobs: Vec<JobId>,
    agents: Vec<AgentId>,
    deleted: Vec<AgentId>,
}

impl Outbound {
    pub(crate) fn new(bus: Bus, jobs: &Loaded<Jobs>, agents: &Loaded<Agents>) -> Self {
        Self {
            jobs: bus.bucket(),
            agents: bus.bucket(),
            keys: bus.bucket(),
            bus,
            job_revisions: jobs
                .entries
                .iter()
                .map(|(id, found)| (id.clone(), found.revision))
                .collect(),
            agent_revisions: agents
                .entries
                .iter()
                .map(|(id, found)| (id.clone(), found.revision))
                .collect(),
            work: Work::new(),
        }
    }

    /// Stores what is to be stored, and gives back what is to be done then.
    pub(crate) async fn commit(
        &mut self,
        core: &Core,
        effects: Vec<Effect>,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Unsure> {
        let (writes, acts) = sort(effects);
        let count =
            writes.keys.len() + writes.jobs.len() + writes.agents.len() + writes.deleted.len();
        if count == 0 {
            return Ok(acts);
        }
        let began = Instant::now();
        // Keys end before their jobs: a key that still stands open while its job is gone would make it anew.
        let keys = self.keys.clone();
        try_join_all(
            writes
                .keys
                .iter()
                .map(|id| finish_key(&keys, core, id, now)),
        )
        .await?;
        let mut jobs = Vec::with_capacity(writes.jobs.len());
        for id in writes.jobs {
            let Some((record, ttl)) = core.job_record(&id, now) else {
                continue;
            };
            let expected = self.job_revisions.get(&id).copied().unwrap_or_default();
            let write = self.jobs.begin(&id, record, expected, ttl).await?;
            jobs.push(async move { Ok::<_, KvError>((id, write.await?)) });
        }
        let mut agents = Vec::with_capacity(writes.agents.len());
        for id in writes.agents {
            let Some(record) = core.agent_record(&id) else {
                continue;
            };
            let expected = self.agent_revisions.get(&id).copied().unwrap_or_default();
            let write = self.agents.begin(&id, &record, expected, None).await?;
            agents.push(async move { Ok::<_, KvError>((id, write.await?)) });
        }
        self.job_revisions.extend(try_join_all(jobs).await?);
        self.agent_revisions.extend(try_join_all(agents).await?);
        for id in writes.deleted {
            let expected = self.agent_revisions.remove(&id);
            self.agents.delete(&id, expected).await?;
        }
        metrics::committed(count, began.elapsed().as_secs_f64());
        Ok(acts)
    }

    /// Does one thing that is not a write.
    pub(crate) async fn act(&mut self, effect: Effect, askers: &mut Askers) {
        match effect {
            Effect::Reply { to, answer } => {
                if let Some(asker) = askers.take(to) {
                    asker.answer(answer).await;
                }
            }
            Effect::Offer {
                agent,
                assignment,
                traceparent,
            } => self.offer(agent, *assignment, traceparent).await,
            Effect::Command {
                agent,
                command,
                ask,
                traceparent,
            } => self.command(agent, command, ask, traceparent),
            Effect::ClaimKey {
                key,
                record,
                replaces,
            } => self.claim(key, *record, Revision(replaces)),
            Effect::Forget(id) => {
                self.job_revisions.remove(&id);
            }
            Effect::Count(oddity) => metrics::oddity(oddity),
            Effect::StoreJob(_)
            | Effect::StoreAgent(_)
            | Effect::DeleteAgent(_)
            | Effect::FinishKey(_) => {}
        }
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
        ask: Option<AskId>,
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
                let Some(ask) = ask else {
                    // Nobody has to be there to hear that it was replaced.
                    let outcome = match replaced {
                        true => bus.request(&subject, &command, ORDER_DEADLINE).await,
                        false => bus.request_until(&subject, &command, ORDER_DEADLINE).await,
                    };
                    if let Err(error) = outcome {
                        debug!(%error, "an order was not confirmed");
                    }
                    return None;
                };
                let outcome = bus.request(&subject, &command, COMMAND_DEADLINE).await;
                let outcome = outcome.map_err(|error| error.to_reply());
                Some(Event::CommandAnswered { ask, outcome })
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
                    let text = "the idempotency key could not be stored; send the same request again in a moment";
                    Claim::Failed(ErrorReply::unavailable(text))
                }
            };
            Some(Event::KeyClaimed { key, outcome })
        }));
    }
}

/// Marks a key as ended, to expire with its job.
async fn finish_key(
    keys: &BucketHandle<Keys>,
    core: &Core,
    id: &JobId,
    now: Timestamp,
) -> Result<(), KvError> {
    let Some((record, ttl)) = core.job_record(id, now) else {
        return Ok(());
    };
    let (Some(key), Some(revision)) = (
        record.job.idempotency_key.clone(),
        record.private.key_revision,
    ) else {
        return Ok(());
    };
    let ended = KeyRecord {
        job_id: id.clone(),
        pool: record.job.pool.clone(),
        first: record.clone(),
        ended: true,
    };
    match keys.update(&key, &ended, Revision(revision), ttl).await {
        Ok(_) => Ok(()),
        // Ended before, by whoever died before the job itself was stored.
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
        // It expired between the two looks.
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

fn sort(effects: Vec<Effect>) -> (Writes, Vec<Effect>) {
    let mut writes = Writes::default();
    let mut acts = Vec::with_capacity(effects.len());
    let (mut jobs, mut agents) = (HashSet::new(), HashSet::new());
    for effect in effects {
        match effect {
            Effect::StoreJob(id) => {
                if jobs.insert(id.clone()) {
                    writes.jobs.push(id);
                }
            }
            Effect::StoreAgent(id) => {
                if agents.insert(id.clone()) {
                    writes.agents.push(id);
                }
            }
            Effect::DeleteAgent(id) => writes.deleted.push(id),
            Effect::FinishKey(id) => writes.keys.push(id),
            act => acts.push(act),
        }
    }
    (writes, acts)
}

fn continue_trace(span: &Span, traceparent: &Traceparent) {
    set_parent(span, |name| {
        traceparent.clone().filter(|_| name == "traceparent")
    });
}
