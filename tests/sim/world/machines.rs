//! The agents: the messages to them, and their effects.

use super::*;

impl World {
    pub(super) fn machine(&mut self, index: usize) -> Machine {
        self.count += 1;
        let boot = self.count;
        let id = AgentId::parse(format!("agent-{index}")).unwrap();
        let mut config = AgentConfig::new(id);
        config.slots = SLOTS;
        let mut sessions = u128::from(boot) * 1_000_000;
        let agent = Simulated::boot(&config, move || {
            sessions += 1;
            AgentSession::from_uuid(Uuid::from_u128(sessions))
        });
        Machine {
            agent,
            boot,
            wakes_at: None,
            thawed_at: 0,
        }
    }

    pub(super) fn open(&mut self, index: usize) {
        let (moment, wall) = (moment(self.now), at(self.now));
        let effects = self.machines[index].agent.open(moment, wall);
        self.agent_did(index, effects);
    }

    pub(super) fn link_event(&mut self, index: usize, event: link::Event) {
        let (moment, wall) = (moment(self.now), at(self.now));
        if !matches!(event, link::Event::Woken) {
            self.trace(|| format!("agent {index} receives {event:?}"));
        }
        let effects = self.machines[index].agent.link_event(event, moment, wall);
        self.agent_did(index, effects);
    }

    pub(super) fn reach(&mut self, index: usize, boot: u64, delivery: Delivery) {
        if self.machines[index].boot != boot || self.is_cut(Who::Agent(index)) {
            return;
        }
        match delivery {
            Delivery::Offer(offer) => self.link_event(
                index,
                link::Event::Offered {
                    assignment: Box::new(offer.assignment),
                    sequence: Some(offer.sequence),
                    previous: Some(offer.previous),
                },
            ),
            Delivery::Command(command) => {
                self.trace(|| format!("agent {index} receives the command {command:?}"));
                let (moment, wall) = (moment(self.now), at(self.now));
                let agent = &mut self.machines[index].agent;
                let effects = agent.command(command, moment, wall);
                self.agent_did(index, effects);
            }
            Delivery::Link(event) => self.link_event(index, event),
        }
    }

    pub(super) fn agent_did(&mut self, index: usize, effects: Vec<link::Effect>) {
        let (me, boot, sent) = (
            Who::Agent(index),
            self.machines[index].boot,
            moment(self.now),
        );
        for effect in effects {
            self.trace(|| format!("agent {index} does {effect:?}"));
            match effect {
                link::Effect::SendReports(reports) => {
                    let call = Call::Reports {
                        agent: index,
                        boot,
                        sent,
                    };
                    self.call(me, call, REPORTS_DEADLINE, Request::Reports(index, reports));
                }
                link::Effect::SendHeartbeat(heartbeat) => {
                    let session = heartbeat.session;
                    let call = Call::Heartbeat {
                        agent: index,
                        boot,
                        sent,
                        session,
                    };
                    let deadline = self.machines[index].agent.heartbeat_deadline();
                    let deadline = Millis::try_from(deadline.as_millis()).unwrap_or(Millis::MAX);
                    self.call(me, call, deadline, Request::Heartbeat(index, heartbeat));
                }
                link::Effect::ReadLease => {
                    let (after, leadership) = match (self.is_cut(me), self.store.holder(self.now)) {
                        (true, _) => (1_000, link::Leadership::Unreadable),
                        (false, Some(_)) => (5, link::Leadership::Held),
                        (false, None) => (5, link::Leadership::Vacant),
                    };
                    let delivery = Delivery::Link(link::Event::LeaseRead {
                        requested_at: sent,
                        leadership,
                    });
                    self.plan(after, SimEvent::Reach(index, boot, delivery));
                }
                link::Effect::ReadQueue(from) => {
                    let (after, event) = match self.is_cut(me) {
                        true => (5_000, link::Event::QueueUnreadable),
                        false => {
                            let (offers, last) = self.store.queue(index, from);
                            let remaining = 0;
                            (
                                5,
                                link::Event::QueueRead {
                                    offers,
                                    last,
                                    remaining,
                                },
                            )
                        }
                    };
                    self.plan(after, SimEvent::Reach(index, boot, Delivery::Link(event)));
                }
                _ => {}
            }
        }
        self.check_agent(index);
        if self.machines[index].agent.has_left() {
            // It was replaced by another process, or received that; its supervisor restarts it.
            self.machines[index] = self.machine(index);
            self.open(index);
            return;
        }
        let machine = &mut self.machines[index];
        if let Some(wake) = machine.agent.wake_at(moment(self.now)) {
            let after = wake.since(moment(self.now)).as_millis();
            let when = self.now + Millis::try_from(after).unwrap_or(Millis::MAX / 2).max(1);
            if machine.wakes_at.is_none_or(|planned| when < planned) {
                machine.wakes_at = Some(when);
                let boot = machine.boot;
                self.plan(when - self.now, SimEvent::Wake(index, boot));
            }
        }
    }

    pub(super) fn call(&mut self, from: Who, call: Call, deadline: Millis, request: Request) {
        self.count += 1;
        let number = self.count;
        self.calls.insert(number, call);
        self.plan(deadline, SimEvent::GiveUp(number));
        let copies = if self.chance(0.05) { 2 } else { 1 };
        for _ in 0..copies {
            if let Some(after) = self.journey(from, Who::World) {
                self.plan(after, SimEvent::Request(number, request.clone()));
            }
        }
    }

    pub(super) fn answered(&mut self, number: u64, reply: Reply) {
        // The first answer counts, as with every request.
        let Some(call) = self.calls.get(&number) else {
            return;
        };
        let who = match call {
            Call::Reports { agent, .. } | Call::Heartbeat { agent, .. } => Who::Agent(*agent),
            Call::Client(_) => Who::World,
        };
        if !matches!(reply, Reply::NoResponder) && self.is_cut(who) {
            return;
        }
        let Some(call) = self.calls.remove(&number) else {
            return;
        };
        match (call, reply) {
            (Call::Reports { agent, boot, sent }, reply) => {
                let answer = match reply {
                    Reply::Reports(reply) => link::Answer::Reply(reply),
                    _ => link::Answer::None,
                };
                if self.machines[agent].boot == boot {
                    self.link_event(agent, link::Event::ReportsAnswered { sent, answer });
                }
            }
            (
                Call::Heartbeat {
                    agent,
                    boot,
                    sent,
                    session,
                },
                reply,
            ) => {
                let answer = match reply {
                    Reply::Heartbeat(reply) => link::Answer::Reply(reply),
                    _ => link::Answer::None,
                };
                if self.machines[agent].boot == boot {
                    self.link_event(
                        agent,
                        link::Event::HeartbeatAnswered {
                            sent,
                            session,
                            answer,
                        },
                    );
                }
            }
            (Call::Client(index), Reply::Client(answer)) => self.client_answered(index, answer),
            (Call::Client(index), _) => self.plan(300, SimEvent::Client(index)),
        }
    }
}
