//! Faults.

use super::*;

impl World {
    /// Injects faults, every tenth of a second.
    pub(super) fn fault(&mut self) {
        if !self.is_faulty() {
            // The end: no agent stays drained, or jobs could not end.
            for index in 0..AGENTS {
                let id = AgentId::parse(format!("agent-{index}")).unwrap();
                self.add_client(ClientRequest::Drain(id, false));
            }
            for index in 0..SCHEDULERS {
                self.start(index);
            }
            return;
        }
        self.plan(100, SimEvent::Fault);
        if self.dice.random_bool(0.03) {
            self.add_random_client();
        }
        for index in 0..SCHEDULERS {
            let who = (false, index);
            if self.until(&self.frozen_until, Who::Scheduler(index)) > self.now {
                // Only death frees a process that is frozen for longer.
                if self.dice.random_bool(0.004) {
                    self.kill(index);
                }
                continue;
            }
            if matches!(self.schedulers[index].state, State::Down) {
                if self.dice.random_bool(0.03) {
                    self.start(index);
                }
            } else if self.dice.random_bool(0.004) {
                self.kill(index);
            } else if self.dice.random_bool(0.003) {
                let until = self.now + self.dice.random_range(100..15_000);
                self.trace(|| format!("scheduler {index} is frozen until {}", until - START));
                self.frozen_until.insert(who, until);
            } else if self.dice.random_bool(0.003) {
                let until = self.now + self.dice.random_range(100..10_000);
                self.trace(|| format!("scheduler {index} is cut off until {}", until - START));
                self.cut_until.insert(who, until);
            }
        }
        for index in 0..AGENTS {
            let who = (true, index);
            if self.until(&self.frozen_until, Who::Agent(index)) > self.now {
                continue;
            }
            if self.dice.random_bool(0.002) {
                self.trace(|| format!("agent {index} dies and comes back"));
                self.machines[index] = self.machine(index);
                self.open(index);
            } else if self.dice.random_bool(0.002) {
                let until = self.now + self.dice.random_range(1_000..60_000);
                self.trace(|| format!("agent {index} is cut off until {}", until - START));
                self.cut_until.insert(who, until);
                let boot = self.machines[index].boot;
                let delivery = Delivery::Link(link::Event::Reconnected);
                let back = until.min(FAULTS_END) - self.now + 1;
                self.plan(back, SimEvent::Reach(index, boot, delivery));
            } else if self.dice.random_bool(0.001) {
                let until = self.now + self.dice.random_range(1_000..40_000);
                self.trace(|| format!("agent {index} is frozen until {}", until - START));
                self.frozen_until.insert(who, until);
                self.machines[index].thawed_at = until.min(FAULTS_END);
            }
        }
    }

    pub(super) fn add_random_client(&mut self) {
        let number = self.clients.len();
        let agent = self.dice.random_range(0..AGENTS);
        let agent = AgentId::parse(format!("agent-{agent}")).unwrap();
        let known = self.submitted.iter().next_back().cloned();
        let requests = self.clients.iter();
        let submissions = requests
            .filter(|client| matches!(client.request, ClientRequest::Submit(..)))
            .count();
        let dice = self.dice.random_range(0..100);
        match (dice, known) {
            (0..8, Some(id)) => self.add_client(ClientRequest::Stop(id)),
            (8..14, _) => self.add_client(ClientRequest::Drain(agent, true)),
            (14..20, _) => self.add_client(ClientRequest::Drain(agent, false)),
            _ if submissions < JOBS => {
                let id = JobId::parse(format!("job-{number}")).unwrap();
                let key = (dice % 3 == 0)
                    .then(|| IdempotencyKey::parse(format!("key-{}", dice % 5)).unwrap());
                self.add_client(ClientRequest::Submit(id, key));
            }
            _ => {}
        }
    }

    pub(super) fn add_client(&mut self, request: ClientRequest) {
        self.clients.push(Client {
            request,
            done: false,
        });
        let index = self.clients.len() - 1;
        self.plan(1, SimEvent::Client(index));
    }

    pub(super) fn kill(&mut self, index: usize) {
        let lost = self.now + self.dice.random_range(0..20);
        self.trace(|| format!("scheduler {index} is killed"));
        let scheduler = &mut self.schedulers[index];
        scheduler.died_at.insert(scheduler.term, lost);
        scheduler.state = State::Down;
        scheduler.term += 1;
        scheduler.lease_until = 0;
        self.frozen_until.remove(&(false, index));
    }

    pub(super) fn start(&mut self, index: usize) {
        let scheduler = &mut self.schedulers[index];
        if matches!(scheduler.state, State::Down) {
            scheduler.state = State::Waiting;
            scheduler.term += 1;
        }
    }
}
