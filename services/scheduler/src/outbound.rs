//! Does what the core decided: first everything that is to be stored, written together and awaited; then the rest.
//!
//! The revisions of all records are kept here. A write that loses, or whose fate is not known, means that this process
//! is not sure any more what is stored: [`Unsure`]. Then the driver forgets everything and loads it anew.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::future::{BoxFuture, try_join_all};
use futures::stream::{FuturesOrdered, FuturesUnordered};
use futures::try_join;
use quintet_bus::pending::PendingReplies;
use quintet_bus::{BucketHandle, Bus, KvError, Loaded, Revision, Versioned};
use quintet_contract::agent::{AgentCommand, Assignment};
use quintet_contract::bucket::{Agents, Jobs, Keys};
use quintet_contract::error::ErrorReply;
use quintet_contract::id::{AgentId, IdempotencyKey, JobId};
use quintet_contract::job::{JobRecord, KeyRecord};
use quintet_contract::subject::{AssignQueue, CommandAgent, CommandVerb};
use quintet_contract::time::Timestamp;
use quintet_service::trace::set_parent;
use tokio::time::Instant;
use tracing::{Instrument, Span, debug, info_span, warn};

use crate::core::{AskId, Claim, Core, Effect, Event, Traceparent};
use crate::metrics;

/// How long an agent may take to answer a live command.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);
/// How long a stop or kill is tried; after that the next heartbeat brings it up again.
const ORDER_DEADLINE: Duration = Duration::from_secs(3);

/// Commits that are on their way at once. More would make each smaller: while all are on their way, what arrives gathers
/// for the next.
const COMMITS_AT_ONCE: usize = 4;

/// Work that goes on beside the loop and may come back as an event.
pub(crate) type Work = FuturesUnordered<BoxFuture<'static, Option<Event>>>;

/// It is not certain what is stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsure {
    /// A record could not be written for sure.
    #[error("writing what changed")]
    Write(#[from] KvError),
    /// A bucket does not confirm writes, although NATS is there.
    #[error("NATS does not store what changed")]
    Unwritable,
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
    /// What is on its way, oldest first.
    pub(crate) commits: FuturesOrdered<BoxFuture<'static, Result<Stored, KvError>>>,
    writing: Records,
    pub(crate) work: Work,
}

/// Records that one commit writes, or that are being written.
#[derive(Default)]
struct Records {
    jobs: HashSet<JobId>,
    agents: HashSet<AgentId>,
}

/// What one commit is to write, each record once, and what is done then.
pub(crate) struct Commit {
    writes: Writes,
    acts: Vec<Effect>,
}

/// What one commit writes.
#[derive(Default)]
struct Writes {
    ended_keys: HashSet<JobId>,
    jobs: Vec<JobId>,
    agents: Vec<AgentId>,
    deleted: Vec<AgentId>,
}

/// A commit that is stored.
pub(crate) struct Stored {
    jobs: Vec<(JobId, Revision)>,
    agents: Vec<(AgentId, Revision)>,
    deleted: Vec<AgentId>,
    acts: Vec<Effect>,
    began: Instant,
}

type Pending<K> = BoxFuture<'static, Result<(K, Revision), KvError>>;

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
            commits: FuturesOrdered::new(),
            writing: Records::default(),
            work: Work::new(),
        }
    }

    /// Whether a commit may begin: one that writes what is still being written must wait, since nobody knows the
    /// revision that it would replace.
    pub(crate) fn may_begin(&self, commit: &Commit) -> bool {
        let Writes {
            jobs,
            agents,
            deleted,
            ..
        } = &commit.writes;
        self.commits.len() < COMMITS_AT_ONCE
            && jobs.iter().all(|id| !self.writing.jobs.contains(id))
            && agents
                .iter()
                .chain(deleted)
                .all(|id| !self.writing.agents.contains(id))
    }

    /// Sends the writes of a commit. See [`Outbound::may_begin`], and [`Outbound::stored`] for how it goes on.
    pub(crate) async fn begin(
        &mut self,
        core: &Core,
        commit: Commit,
        now: Timestamp,
    ) -> Result<(), Unsure> {
        let Commit { writes, acts } = commit;
        let began = Instant::now();
        let mut jobs: Vec<Pending<JobId>> = Vec::with_capacity(writes.jobs.len());
        for id in writes.jobs {
            let Some((record, ttl)) = core.job_record(&id, now) else {
                continue;
            };
            let expected = self.job_revisions.get(&id).copied().unwrap_or_default();
            self.writing.jobs.insert(id.clone());
            if writes.ended_keys.contains(&id) {
                let (keys, bucket, record) = (self.keys.clone(), self.jobs.clone(), record.clone());
                jobs.push(Box::pin(async move {
                    // Keys end before their jobs: a key that still stands open while its job is gone would make it anew.
                    finish_key(&keys, &record, ttl).await?;
                    Ok((
                        id.clone(),
                        bucket.update(&id, &record, expected, ttl).await?,
                    ))
                }));
                continue;
            }
            let write = self.jobs.begin(&id, record, expected, ttl).await?;
            jobs.push(Box::pin(async move { Ok((id, write.await?)) }));
        }
        let mut agents: Vec<Pending<AgentId>> = Vec::with_capacity(writes.agents.len());
        for id in writes.agents {
            let Some(record) = core.agent_record(&id) else {
                continue;
            };
            let expected = self.agent_revisions.get(&id).copied().unwrap_or_default();
            self.writing.agents.insert(id.clone());
            let write = self.agents.begin(&id, &record, expected, None).await?;
            agents.push(Box::pin(async move { Ok((id, write.await?)) }));
        }
        let deleted: Vec<(AgentId, Option<Revision>)> = writes
            .deleted
            .into_iter()
            .map(|id| {
                self.writing.agents.insert(id.clone());
                let expected = self.agent_revisions.remove(&id);
                (id, expected)
            })
            .collect();
        let bucket = self.agents.clone();
        self.commits.push_back(Box::pin(async move {
            let (jobs, agents) = try_join!(try_join_all(jobs), try_join_all(agents))?;
            for (id, expected) in &deleted {
                bucket.delete(id, *expected).await?;
            }
            Ok(Stored {
                jobs,
                agents,
                deleted: deleted.into_iter().map(|(id, _)| id).collect(),
                acts,
                began,
            })
        }));
        Ok(())
    }

    /// Takes note of the oldest commit of [`Outbound::commits`], and gives what is to be done now.
    pub(crate) fn stored(
        &mut self,
        stored: Result<Stored, KvError>,
    ) -> Result<Vec<Effect>, Unsure> {
        let stored = stored?;
        let count = stored.jobs.len() + stored.agents.len() + stored.deleted.len();
        for (id, _) in &stored.jobs {
            self.writing.jobs.remove(id);
        }
        for id in stored
            .agents
            .iter()
            .map(|(id, _)| id)
            .chain(&stored.deleted)
        {
            self.writing.agents.remove(id);
        }
        self.job_revisions.extend(stored.jobs);
        self.agent_revisions.extend(stored.agents);
        if count > 0 {
            metrics::committed(count, stored.began.elapsed().as_secs_f64());
        }
        Ok(stored.acts)
    }

    /// Does one thing that is not a write.
    pub(crate) async fn act(&mut self, effect: Effect, pending: &mut PendingReplies) {
        match effect {
            Effect::Reply(reply) => pending.send(reply).await,
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

impl Commit {
    /// Parts what is to be stored from what is to be done then.
    pub(crate) fn of(effects: Vec<Effect>) -> Self {
        let mut writes = Writes::default();
        let mut acts = Vec::with_capacity(effects.len());
        let mut seen = Records::default();
        for effect in effects {
            match effect {
                Effect::StoreJob(id) => {
                    if seen.jobs.insert(id.clone()) {
                        writes.jobs.push(id);
                    }
                }
                Effect::StoreAgent(id) => {
                    if seen.agents.insert(id.clone()) {
                        writes.agents.push(id);
                    }
                }
                Effect::DeleteAgent(id) => writes.deleted.push(id),
                Effect::FinishKey(id) => {
                    writes.ended_keys.insert(id);
                }
                act => acts.push(act),
            }
        }
        Self { writes, acts }
    }
}

fn continue_trace(span: &Span, traceparent: &Traceparent) {
    set_parent(span, |name| {
        traceparent.clone().filter(|_| name == "traceparent")
    });
}
