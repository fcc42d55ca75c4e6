//! The schedulers: their lease, their requests, their writes and messages.

use quintet_leader::Core as _;

use super::*;

impl World {
    pub(super) fn leader(&mut self, index: usize, term: u64) -> Option<&mut Leader> {
        let scheduler = &mut self.schedulers[index];
        match &mut scheduler.state {
            State::Leading(leader) if scheduler.term == term => Some(leader),
            _ => None,
        }
    }

    pub(super) fn try_for_lease(&mut self, index: usize) {
        let jitter = self.dice.random_range(0..100);
        self.plan(LEASE_EVERY + jitter, SimEvent::Lease(index));
        let now = self.now;
        if matches!(self.schedulers[index].state, State::Down) {
            return;
        }
        if self.schedulers[index].lease_until <= now {
            self.depose(index);
        }
        let reached = !self.is_cut(Who::Scheduler(index)) && !self.chance(0.03);
        if reached && self.store.lease(index, now, LEASE) {
            let scheduler = &mut self.schedulers[index];
            // Its own count begins when the renewal was sent.
            scheduler.lease_until = now + LEASE - 30;
            if matches!(scheduler.state, State::Waiting) {
                self.begin_load(index, 5);
            }
        }
    }

    pub(super) fn depose(&mut self, index: usize) {
        if !matches!(self.schedulers[index].state, State::Down | State::Waiting) {
            self.turn_all_away(index);
            self.schedulers[index].state = State::Waiting;
            self.schedulers[index].term += 1;
        }
    }

    pub(super) fn turn_all_away(&mut self, index: usize) {
        if let State::Leading(leader) = &mut self.schedulers[index].state {
            let calls = std::mem::take(&mut leader.requesters);
            for call in calls.into_values() {
                if let Some(after) = self.journey(Who::Scheduler(index), Who::World) {
                    self.plan(after, SimEvent::Answered(call, Reply::NoResponder));
                }
            }
        }
    }

    pub(super) fn begin_load(&mut self, index: usize, after: Millis) {
        let scheduler = &mut self.schedulers[index];
        scheduler.state = State::Loading;
        scheduler.term += 1;
        let term = scheduler.term;
        self.plan(after, SimEvent::Load(index, term));
    }

    pub(super) fn load(&mut self, index: usize, term: u64) {
        let scheduler = &self.schedulers[index];
        if scheduler.term != term || !matches!(scheduler.state, State::Loading) {
            return;
        }
        if scheduler.lease_until <= self.now {
            return self.depose(index);
        }
        if self.is_cut(Who::Scheduler(index)) {
            return self.plan(RELOAD_PAUSE, SimEvent::Load(index, term));
        }
        self.trace(|| format!("scheduler {index} leads"));
        let (leader, outputs) = Leader::load(&self.store, self.now);
        self.schedulers[index].state = State::Leading(Box::new(leader));
        self.perform(index, outputs);
    }

    pub(super) fn indeterminate(&mut self, index: usize) {
        self.turn_all_away(index);
        self.begin_load(index, RELOAD_PAUSE);
    }

    pub(super) fn deliver_request(&mut self, call: u64, request: Request) {
        let mut delivered = false;
        for index in 0..SCHEDULERS {
            if self.is_cut(Who::Scheduler(index)) {
                continue;
            }
            let State::Leading(leader) = &mut self.schedulers[index].state else {
                continue;
            };
            delivered = true;
            let number = leader.enter(call);
            let agent = |index: usize| AgentId::parse(format!("agent-{index}")).unwrap();
            let event = match request.clone() {
                Request::Reports(index, reports) => {
                    let agent = agent(index);
                    Event::Reported {
                        from: RequestId::new(number),
                        agent,
                        reports,
                    }
                }
                Request::Heartbeat(index, heartbeat) => {
                    let agent = agent(index);
                    Event::HeartbeatReceived {
                        from: RequestId::new(number),
                        agent,
                        heartbeat,
                    }
                }
                Request::Question(question) => {
                    let traceparent = None;
                    Event::RequestReceived {
                        question: question(number),
                        traceparent,
                    }
                }
            };
            // A frozen process finds it in its socket when it thaws.
            match self.until(&self.frozen_until, Who::Scheduler(index)) > self.now {
                true => leader_inbox(&mut self.schedulers[index], event),
                false => self.step(index, Some(event)),
            }
        }
        if !delivered {
            self.plan(5, SimEvent::Answered(call, Reply::NoResponder));
        }
    }

    pub(super) fn step(&mut self, index: usize, event: Option<Event>) {
        let now = self.now;
        // Found out before anything is written.
        if self.schedulers[index].lease_until <= now {
            return self.depose(index);
        }
        if let State::Leading(leader) = &mut self.schedulers[index].state {
            let outputs = leader.step(event, now);
            self.perform(index, outputs);
        }
    }

    pub(super) fn perform(&mut self, index: usize, outputs: Outputs) {
        let term = self.schedulers[index].term;
        if outputs.indeterminate {
            return self.indeterminate(index);
        }
        let mut commits = BTreeSet::new();
        for (commit, write) in outputs.writes {
            self.send(index, commit, write);
            commits.insert(commit);
        }
        for commit in commits {
            self.plan(WRITE_DEADLINE, SimEvent::NotStored(index, term, commit));
        }
        for act in outputs.acts {
            self.act(index, act);
        }
        let now = self.now;
        let mut planned = None;
        if let Some(leader) = self.leader(index, term)
            && let Some(due) = leader.core.next_due()
        {
            let due = due.as_millis().max(now) + 1;
            if leader.due_at.is_none_or(|planned| due < planned) {
                leader.due_at = Some(due);
                planned = Some(due);
            }
        }
        if let Some(due) = planned {
            self.plan(due - now, SimEvent::Due(index, term));
        }
    }

    /// Sends a write after all before it.
    pub(super) fn send(&mut self, index: usize, commit: u64, write: Write) {
        let stall = if self.chance(0.002) { 6_000 } else { 10 };
        let delay = self.dice.random_range(1..=stall);
        let now = self.now;
        let scheduler = &mut self.schedulers[index];
        scheduler.sent_until = scheduler.sent_until.max(now + delay);
        let (after, term) = (scheduler.sent_until - now, scheduler.term);
        self.plan(after, SimEvent::Write(index, term, commit, write));
    }

    pub(super) fn act(&mut self, index: usize, act: Action) {
        let me = Who::Scheduler(index);
        match act {
            Action::Reply(reply) => {
                let (to, answer) = reply.into_parts();
                let State::Leading(leader) = &mut self.schedulers[index].state else {
                    return;
                };
                let Some(call) = leader.requesters.remove(&to) else {
                    return;
                };
                let reply = match answer {
                    Answer::Reports(reply) => Reply::Reports(*reply),
                    Answer::Heartbeat(reply) => Reply::Heartbeat(*reply),
                    Answer::Refused(error) if error.retry == Retry::Never => {
                        Reply::Client(Answer::Refused(error))
                    }
                    Answer::Refused(_) => Reply::NoResponder,
                    answer => Reply::Client(answer),
                };
                if let (Reply::Reports(reply), Some(Call::Reports { agent, .. })) =
                    (&reply, self.calls.get(&call))
                {
                    let who = AgentId::parse(format!("agent-{agent}")).unwrap();
                    for start in &reply.start {
                        let attempt = (start.job_id.clone(), start.attempt);
                        let before = self.started.insert(attempt, who.clone());
                        assert!(
                            before.is_none_or(|before| before == who),
                            "one attempt was confirmed to two agents"
                        );
                    }
                }
                if let Some(after) = self.journey(me, Who::World) {
                    self.plan(after, SimEvent::Answered(call, reply));
                }
            }
            Action::Offer {
                agent, assignment, ..
            } => {
                self.send(index, 0, Write::Offer(index_of(&agent), assignment));
            }
            Action::Command { agent, command, .. } => {
                let to = index_of(&agent);
                let boot = self.machines[to].boot;
                // Sent again when the agent does not confirm it; here, in any case.
                for again in [0, 1_000] {
                    if let Some(after) = self.journey(me, Who::Agent(to)) {
                        let delivery = Delivery::Command(command.clone());
                        self.plan(again + after, SimEvent::Reach(to, boot, delivery));
                    }
                }
            }
            Action::ClaimKey {
                key,
                record,
                replaces,
            } => {
                let term = self.schedulers[index].term;
                if let Some(leader) = self.leader(index, term) {
                    leader.claims.insert(key.clone());
                }
                self.plan(
                    WRITE_DEADLINE,
                    SimEvent::ClaimLost(index, term, key.clone()),
                );
                self.send(index, 0, Write::Claim(key, record, replaces));
            }
            _ => {}
        }
    }

    pub(super) fn write(&mut self, index: usize, term: u64, commit: u64, write: Write) {
        let scheduler = &self.schedulers[index];
        let died = scheduler
            .died_at
            .get(&term)
            .is_some_and(|died| *died < self.now);
        if died || self.is_cut(Who::Scheduler(index)) {
            return;
        }
        self.trace(|| format!("scheduler {index} of term {term} writes {write}"));
        let changed = match &write {
            Write::Job(record, _) | Write::LastOfKey(record, _) => Some(record.job.id.clone()),
            _ => None,
        };
        let before = changed
            .as_ref()
            .and_then(|id| self.store.jobs.get(id))
            .cloned();
        let outcome = self.store.write(write);
        if let Outcome::Conflict = outcome {
            self.trace(|| "  which is refused: there is a newer one".to_owned());
        } else if let Some(id) = changed {
            self.check_change(index, before.map(|(_, record)| record).as_ref(), &id);
        }
        if let Outcome::Offered(offer) = outcome {
            let to = offer.agent;
            let boot = self.machines[to].boot;
            if let Some(after) = self.journey(Who::World, Who::Agent(to)) {
                self.plan(after, SimEvent::Reach(to, boot, Delivery::Offer(offer)));
            }
            return;
        }
        if let Some(after) = self.journey(Who::World, Who::Scheduler(index)) {
            self.plan(after, SimEvent::Stored(index, term, commit, outcome));
        }
    }

    pub(super) fn stored(&mut self, index: usize, term: u64, commit: u64, outcome: Outcome) {
        if let Outcome::Claimed(key, claim) = outcome {
            return self.claimed(index, term, key, claim);
        }
        let now = self.now;
        if self.schedulers[index].lease_until <= now {
            return self.depose(index);
        }
        if let Some(leader) = self.leader(index, term) {
            let outputs = leader.stored(commit, outcome, now);
            self.perform(index, outputs);
        }
    }

    pub(super) fn claimed(&mut self, index: usize, term: u64, key: IdempotencyKey, outcome: Claim) {
        let waits = self
            .leader(index, term)
            .is_some_and(|leader| leader.claims.remove(&key));
        if waits {
            self.step(index, Some(Event::KeyClaimed { key, outcome }));
        }
    }
}

fn leader_inbox(scheduler: &mut Scheduler, event: Event) {
    if let State::Leading(leader) = &mut scheduler.state {
        leader.keep(event);
    }
}
