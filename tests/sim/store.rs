//! The state of the bus: records under revisions, the lease, the queues of offers. Writes are compare and swap.

use std::collections::BTreeMap;

use quintet_contract::agent::{AgentRecord, Assignment};
use quintet_contract::id::{AgentId, IdempotencyKey, JobId};
use quintet_contract::job::{JobRecord, KeyRecord};
use quintet_scheduler::core::{Claim, Stored};

use crate::world::Millis;

/// A record and its revision.
type Versioned<R> = (u64, R);

#[derive(Default)]
pub(crate) struct Store {
    last: u64,
    pub(crate) jobs: BTreeMap<JobId, Versioned<JobRecord>>,
    pub(crate) agents: BTreeMap<AgentId, Versioned<AgentRecord>>,
    keys: BTreeMap<IdempotencyKey, Versioned<KeyRecord>>,
    lease: Option<(usize, Millis)>,
    offers: Vec<Offer>,
}

/// One entry of an agent's queue.
#[derive(Clone)]
pub(crate) struct Offer {
    pub(crate) sequence: u64,
    /// The entry of the same queue before it.
    pub(crate) previous: u64,
    pub(crate) agent: usize,
    pub(crate) assignment: Assignment,
}

/// A write of a scheduler.
pub(crate) enum Write {
    Job(Box<JobRecord>, u64),
    /// The end of a job with a key: the key first.
    LastOfKey(Box<JobRecord>, u64),
    Agent(Box<AgentRecord>, u64),
    NoAgent(AgentId, u64),
    Claim(IdempotencyKey, Box<KeyRecord>, u64),
    Offer(usize, Box<Assignment>),
}

/// The outcome of a write.
pub(crate) enum Outcome {
    Job(JobId, u64),
    Agent(AgentId, u64),
    NoAgent,
    Claimed(IdempotencyKey, Claim),
    Offered(Box<Offer>),
    Conflict,
}

impl Store {
    pub(crate) fn everything(&self) -> Stored {
        Stored {
            jobs: self
                .jobs
                .values()
                .map(|(_, record)| record.clone())
                .collect(),
            agents: self
                .agents
                .values()
                .map(|(_, record)| record.clone())
                .collect(),
            templates: Vec::new(),
        }
    }

    pub(crate) fn write(&mut self, write: Write) -> Outcome {
        self.last += 1;
        match write {
            Write::Job(record, expected) => self.job(*record, expected),
            Write::LastOfKey(record, expected) => {
                if let (Some(key), Some(revision)) =
                    (&record.job.idempotency_key, record.private.key_revision)
                    && let Some((found, stored)) = self.keys.get_mut(key)
                    && *found == revision
                {
                    *found = self.last;
                    stored.first = (*record).clone();
                    stored.ended = true;
                    self.last += 1;
                }
                self.job(*record, expected)
            }
            Write::Agent(record, expected) => {
                let id = record.agent.id.clone();
                if self.agents.get(&id).map_or(0, |(found, _)| *found) != expected {
                    return Outcome::Conflict;
                }
                self.agents.insert(id.clone(), (self.last, *record));
                Outcome::Agent(id, self.last)
            }
            Write::NoAgent(id, expected) => {
                if self.agents.get(&id).map_or(0, |(found, _)| *found) != expected {
                    return Outcome::Conflict;
                }
                self.agents.remove(&id);
                Outcome::NoAgent
            }
            Write::Claim(key, record, replaces) => {
                let found = self.keys.get(&key);
                if found.map_or(0, |(found, _)| *found) == replaces {
                    self.keys.insert(key.clone(), (self.last, *record));
                    return Outcome::Claimed(key, Claim::Created(self.last));
                }
                match found {
                    Some((revision, record)) => {
                        let taken = Claim::Taken {
                            record: Box::new(record.clone()),
                            revision: *revision,
                            elsewhere: None,
                        };
                        Outcome::Claimed(key, taken)
                    }
                    None => Outcome::Conflict,
                }
            }
            Write::Offer(agent, assignment) => {
                let before = self.offers.iter().rev().find(|offer| offer.agent == agent);
                let offer = Offer {
                    sequence: self.last,
                    previous: before.map_or(0, |offer| offer.sequence),
                    agent,
                    assignment: *assignment,
                };
                self.offers.push(offer.clone());
                Outcome::Offered(Box::new(offer))
            }
        }
    }

    fn job(&mut self, record: JobRecord, expected: u64) -> Outcome {
        let id = record.job.id.clone();
        if self.jobs.get(&id).map_or(0, |(found, _)| *found) != expected {
            return Outcome::Conflict;
        }
        self.jobs.insert(id.clone(), (self.last, record));
        Outcome::Job(id, self.last)
    }

    /// Offers of an agent from a sequence on, and the newest sequence of all.
    pub(crate) fn queue(&self, agent: usize, from: u64) -> (Vec<(u64, Assignment)>, u64) {
        let offers = self.offers.iter();
        let offers = offers
            .filter(|offer| offer.agent == agent && offer.sequence >= from)
            .map(|offer| (offer.sequence, offer.assignment.clone()))
            .collect();
        (offers, self.offers.last().map_or(0, |offer| offer.sequence))
    }

    /// Takes or renews the lease; returns until when it is held now.
    pub(crate) fn lease(&mut self, holder: usize, now: Millis, life: Millis) -> bool {
        let free = self
            .lease
            .is_none_or(|(other, until)| other == holder || until <= now);
        if free {
            self.lease = Some((holder, now + life));
        }
        free
    }

    pub(crate) fn holder(&self, now: Millis) -> Option<usize> {
        let held = self.lease.filter(|(_, until)| *until > now);
        held.map(|(holder, _)| holder)
    }
}

impl std::fmt::Display for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Job(record, _) | Self::LastOfKey(record, _) => {
                let job = &record.job;
                write!(
                    f,
                    "{} {} attempt {} on {:?}",
                    job.id, job.status, job.attempt, job.agent_id
                )
            }
            Self::Agent(record, _) => {
                let agent = &record.agent;
                write!(f, "{} {:?} drain {}", agent.id, agent.state, agent.drain)
            }
            Self::NoAgent(id, _) => write!(f, "that {id} is gone"),
            Self::Claim(key, ..) => write!(f, "a claim of {key}"),
            Self::Offer(agent, offer) => {
                write!(
                    f,
                    "an offer of {} attempt {} to agent {agent}",
                    offer.job_id, offer.attempt
                )
            }
        }
    }
}
