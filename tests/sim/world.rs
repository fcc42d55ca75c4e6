//! The world that a seed makes: what is stored, who is there, what is on its way, and the rules that hold after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quintet_contract::agent::{
    AgentCommand, AgentRecord, Assignment, HeartbeatReply, ReportsReply,
};
use quintet_contract::api::{JobRef, SubmitJob};
use quintet_contract::id::{AgentId, AgentSession, JobId, PoolName};
use quintet_contract::job::{Attempt, JobRecord, JobStatus, RestartPolicy};
use quintet_contract::time::Timestamp;
use quintet_scheduler::core::{Answer, Core, Effect, Event, Question, RequestId, Stored, Terms};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::agent::{Agent, Millis, SLOTS, Said, Stage};

const AGENTS: usize = 3;
const JOBS: usize = 12;
/// Faults happen this long; then everything is healed.
const FAULTS: Millis = 90_000;
/// After this everything must have come to rest.
const REST: Millis = 400_000;
const STEP: Millis = 100;
/// How long an offer can be read from its queue.
const OFFER_AGE: Millis = 120_000;

enum Message {
    Said(usize, Said),
    ReportsReply {
        to: usize,
        session: AgentSession,
        clock: u64,
        reply: ReportsReply,
    },
    HeartbeatReply {
        to: usize,
        session: AgentSession,
        sent: Millis,
        reply: HeartbeatReply,
    },
    Offer(usize, Assignment),
    Command(usize, AgentCommand),
}

/// Who waits for an answer.
enum Asker {
    Reports {
        agent: usize,
        session: AgentSession,
        clock: u64,
    },
    Heartbeat {
        agent: usize,
        session: AgentSession,
        sent: Millis,
    },
    Client,
}

pub(crate) struct World {
    dice: StdRng,
    now: Millis,
    core: Option<Core>,
    back_at: Millis,
    jobs: BTreeMap<JobId, JobRecord>,
    records: BTreeMap<AgentId, AgentRecord>,
    agents: Vec<Agent>,
    boots: u128,
    cut_until: Vec<Millis>,
    offers: Vec<(Millis, usize, Assignment)>,
    way: BTreeMap<(Millis, u64), Message>,
    sent: u64,
    askers: BTreeMap<RequestId, Asker>,
    requests: u64,
    submitted: BTreeSet<JobId>,
    /// Who has ever been confirmed to start an attempt.
    confirmed: BTreeMap<(JobId, Attempt), AgentId>,
}

fn terms() -> Terms {
    Terms {
        pool: PoolName::default(),
        heartbeat_interval: Duration::from_secs(3),
        heartbeat_timeout: Duration::from_secs(10),
        stop_grace: Duration::from_secs(10),
        kill_after: Duration::from_secs(5),
        assign_ack_timeout: Duration::from_secs(5),
        job_retention: Duration::from_secs(100_000),
    }
}

fn at(millis: Millis) -> Timestamp {
    Timestamp::from_millis(millis)
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            dice: StdRng::seed_from_u64(seed),
            now: 1_000_000,
            core: None,
            back_at: 0,
            jobs: BTreeMap::new(),
            records: BTreeMap::new(),
            agents: Vec::new(),
            boots: 0,
            cut_until: vec![0; AGENTS],
            offers: Vec::new(),
            way: BTreeMap::new(),
            sent: 0,
            askers: BTreeMap::new(),
            requests: 0,
            submitted: BTreeSet::new(),
            confirmed: BTreeMap::new(),
        };
        for index in 0..AGENTS {
            let agent = world.booted(index);
            world.agents.push(agent);
        }
        world
    }

    pub(crate) fn play(mut self) {
        let start = self.now;
        while self.now < start + FAULTS + REST {
            let faulty = self.now < start + FAULTS;
            if faulty {
                self.fate();
            } else {
                self.cut_until.fill(0);
                self.back_at = self.back_at.min(self.now);
            }
            self.lead(faulty);
            self.deliver(faulty);
            self.tick_agents(faulty);
            self.check();
            self.now += STEP;
        }
        for id in &self.submitted {
            let record = self.jobs.get(id).expect("a submitted job is never lost");
            assert!(
                record.job.status.is_final(),
                "a job never came to its end: {:?}",
                record
            );
        }
    }

    fn booted(&mut self, index: usize) -> Agent {
        self.boots += 1_000;
        let id = AgentId::parse(format!("agent-{index}")).unwrap();
        Agent::boot(id, self.boots, self.now)
    }

    /// An agent that was replaced leaves, and is started anew.
    fn leave_if(&mut self, replaced: bool, index: usize) {
        if replaced {
            self.agents[index] = self.booted(index);
        }
    }

    /// What befalls the world in this step.
    fn fate(&mut self) {
        if self.dice.random_bool(0.03) && self.submitted.len() < JOBS {
            let id = JobId::parse(format!("job-{}", self.submitted.len())).unwrap();
            let again = self.dice.random_bool(0.6);
            let submit = SubmitJob {
                job_id: Some(id.clone()),
                inline_config: json!({"executor": "noop"}).as_object().cloned(),
                restart_policy: Some(if again {
                    RestartPolicy::OnFailure
                } else {
                    RestartPolicy::Never
                }),
                max_restarts: Some(1000),
                ..SubmitJob::default()
            };
            if self.ask(Question::Submit(Box::new(submit))) {
                self.submitted.insert(id);
            }
        }
        if self.dice.random_bool(0.004)
            && let Some(id) = self.submitted.iter().next_back().cloned()
        {
            self.ask(Question::Stop(JobRef { id }));
        }
        if self.dice.random_bool(0.004) {
            // The scheduler dies; after its lease another one leads.
            self.core = None;
            self.askers.clear();
            self.back_at = self.now + self.dice.random_range(0..6_000);
        }
        let index = self.dice.random_range(0..AGENTS);
        if self.dice.random_bool(0.003) {
            self.agents[index] = self.booted(index);
            self.read_queue(index);
        }
        if self.dice.random_bool(0.004) {
            self.cut_until[index] = self.now + self.dice.random_range(1_000..60_000);
        }
    }

    fn ask(&mut self, question: Question) -> bool {
        if self.core.is_none() {
            return false;
        }
        self.requests += 1;
        let from = RequestId(self.requests);
        self.askers.insert(from, Asker::Client);
        self.step(Event::Asked {
            from,
            question,
            traceparent: None,
        });
        true
    }

    fn lead(&mut self, faulty: bool) {
        if self.core.is_none() && self.back_at <= self.now {
            let stored = Stored {
                jobs: self.jobs.values().cloned().collect(),
                agents: self.records.values().cloned().collect(),
                templates: Vec::new(),
            };
            let (core, effects) = Core::restore(terms(), stored, at(self.now));
            self.core = Some(core);
            self.perform(effects, faulty);
        }
        if let Some(core) = &mut self.core {
            let effects = core.settle(at(self.now));
            self.perform(effects, faulty);
        }
    }

    fn step(&mut self, event: Event) {
        let Some(core) = &mut self.core else { return };
        let mut effects = core.step(event, at(self.now));
        effects.extend(core.settle(at(self.now)));
        self.perform(effects, true);
    }

    /// Commits, perhaps dies, then acts.
    fn perform(&mut self, effects: Vec<Effect>, faulty: bool) {
        let Some(core) = &self.core else { return };
        for effect in &effects {
            match effect {
                Effect::StoreJob(id) => {
                    if let Some((record, _)) = core.job_record(id, at(self.now)) {
                        self.jobs.insert(id.clone(), record.clone());
                    }
                }
                Effect::StoreAgent(id) => {
                    if let Some(record) = core.agent_record(id) {
                        self.records.insert(id.clone(), record);
                    }
                }
                _ => {}
            }
        }
        let in_faults = faulty && self.now < 1_000_000 + FAULTS;
        if in_faults && self.dice.random_bool(0.002) {
            self.core = None;
            self.askers.clear();
            self.back_at = self.now + self.dice.random_range(0..6_000);
            return;
        }
        for effect in effects {
            match effect {
                Effect::Offer {
                    agent, assignment, ..
                } => {
                    let index = index_of(&agent);
                    self.offers.push((self.now, index, (*assignment).clone()));
                    self.send(Message::Offer(index, *assignment), index);
                }
                Effect::Command { agent, command, .. } => {
                    let index = index_of(&agent);
                    self.send(Message::Command(index, command), index);
                }
                Effect::Reply { to, answer } => self.reply(to, answer),
                _ => {}
            }
        }
    }

    fn reply(&mut self, to: RequestId, answer: Answer) {
        match (self.askers.remove(&to), answer) {
            (
                Some(Asker::Reports {
                    agent,
                    session,
                    clock,
                }),
                Answer::Reports(reply),
            ) => {
                for start in &reply.start {
                    let who = self.agents[agent].id.clone();
                    let before = self
                        .confirmed
                        .insert((start.job_id.clone(), start.attempt), who.clone());
                    assert!(
                        before.is_none_or(|before| before == who),
                        "one attempt was confirmed to two agents"
                    );
                }
                self.send(
                    Message::ReportsReply {
                        to: agent,
                        session,
                        clock,
                        reply,
                    },
                    agent,
                );
            }
            (
                Some(Asker::Heartbeat {
                    agent,
                    session,
                    sent,
                }),
                Answer::Heartbeat(reply),
            ) => {
                self.send(
                    Message::HeartbeatReply {
                        to: agent,
                        session,
                        sent,
                        reply,
                    },
                    agent,
                );
            }
            _ => {}
        }
    }

    /// Puts a message on its way: it may be lost, doubled, late, and overtake others.
    fn send(&mut self, message: Message, agent: usize) {
        let faulty = self.now < 1_000_000 + FAULTS;
        if self.cut_until[agent] > self.now || (faulty && self.dice.random_bool(0.05)) {
            return;
        }
        let late = if faulty && self.dice.random_bool(0.1) {
            2_500
        } else {
            200
        };
        let when = self.now + self.dice.random_range(1..=late);
        self.sent += 1;
        if faulty
            && self.dice.random_bool(0.05)
            && let Message::Said(from, said) = &message
        {
            let copy = match said {
                Said::Reports(reports) => Said::Reports(reports.clone()),
                Said::Heartbeat(heartbeat) => Said::Heartbeat(heartbeat.clone()),
            };
            let again = when + self.dice.random_range(0..2_000);
            self.way
                .insert((again, self.sent), Message::Said(*from, copy));
            self.sent += 1;
        }
        self.way.insert((when, self.sent), message);
    }

    fn deliver(&mut self, _faulty: bool) {
        let later = self.way.split_off(&(self.now + 1, 0));
        let due = std::mem::replace(&mut self.way, later);
        for (_, message) in due {
            match message {
                Message::Said(from, said) if self.cut_until[from] <= self.now => {
                    self.hear(from, said)
                }
                Message::ReportsReply {
                    to,
                    session,
                    clock,
                    reply,
                } if self.agents[to].session == session && self.cut_until[to] <= self.now => {
                    let length = self.dice.random_range(500..60_000);
                    let replaced = self.agents[to].answered(clock, &reply, self.now, length);
                    self.leave_if(replaced, to);
                }
                Message::HeartbeatReply {
                    to,
                    session,
                    sent,
                    reply,
                } if self.cut_until[to] <= self.now => {
                    let replaced = self.agents[to].heard(session, sent, &reply);
                    self.leave_if(replaced, to);
                }
                Message::Offer(to, offer) if self.cut_until[to] <= self.now => {
                    self.agents[to].offered(&offer, self.now);
                }
                Message::Command(to, command) if self.cut_until[to] <= self.now => {
                    self.agents[to].commanded(&command);
                }
                _ => {}
            }
        }
    }

    fn hear(&mut self, from: usize, said: Said) {
        if self.core.is_none() {
            return;
        }
        self.requests += 1;
        let id = RequestId(self.requests);
        let agent = self.agents[from].id.clone();
        let event = match said {
            Said::Reports(reports) => {
                let (session, clock) = (reports.session, reports.clock);
                self.askers.insert(
                    id,
                    Asker::Reports {
                        agent: from,
                        session,
                        clock,
                    },
                );
                Event::Reported {
                    from: id,
                    agent,
                    reports,
                }
            }
            Said::Heartbeat(heartbeat) => {
                let session = heartbeat.session;
                self.askers.insert(
                    id,
                    Asker::Heartbeat {
                        agent: from,
                        session,
                        sent: self.now,
                    },
                );
                Event::HeartbeatCame {
                    from: id,
                    agent,
                    heartbeat,
                }
            }
        };
        self.step(event);
    }

    fn tick_agents(&mut self, _faulty: bool) {
        let leaderless = self.core.is_none();
        for index in 0..AGENTS {
            let cut = self.cut_until[index] > self.now;
            for said in self.agents[index].tick(self.now, leaderless && !cut) {
                self.send(Message::Said(index, said), index);
            }
            // A link that is there again reads the queue: offers that were lost on their way are still in it.
            if !cut && self.dice.random_bool(0.01) {
                self.read_queue(index);
            }
        }
    }

    fn read_queue(&mut self, index: usize) {
        let now = self.now;
        self.offers.retain(|(sent, ..)| now - sent < OFFER_AGE);
        for (_, to, offer) in &self.offers {
            if *to == index {
                self.agents[index].offered(offer, now);
            }
        }
    }

    /// What must hold after every step.
    fn check(&self) {
        let mut running: BTreeMap<&JobId, &AgentId> = BTreeMap::new();
        for agent in &self.agents {
            for (id, work) in &agent.jobs {
                if matches!(work.stage, Stage::Running(_)) && work.restartable {
                    let other = running.insert(id, &agent.id);
                    assert!(other.is_none(), "{id} runs on {} and {other:?}", agent.id);
                }
            }
            assert!(agent.jobs.len() <= SLOTS);
        }
        let mut held: BTreeMap<&AgentId, usize> = BTreeMap::new();
        for record in self.jobs.values() {
            let timeline = &record.job.timeline;
            assert_eq!(timeline.last().unwrap().status, record.job.status);
            let ends = timeline
                .iter()
                .filter(|entry| entry.status.is_final())
                .count();
            assert!(
                ends <= 1 && (ends == 0 || record.job.status.is_final()),
                "{:?}",
                record.job
            );
            for pair in timeline.windows(2) {
                let backward =
                    pair[0].status == JobStatus::Running && pair[1].status == JobStatus::Accepted;
                assert!(
                    !backward && pair[0].status != pair[1].status,
                    "{:?}",
                    record.job
                );
            }
            if let Some(agent) = &record.job.agent_id
                && (record.job.status.holds_agent() || record.private.holds_slot)
            {
                *held.entry(agent).or_default() += 1;
            }
        }
        assert!(
            held.values().all(|count| *count <= SLOTS),
            "slots are oversubscribed: {held:?}"
        );
    }
}

fn index_of(agent: &AgentId) -> usize {
    agent.as_str().rsplit('-').next().unwrap().parse().unwrap()
}
