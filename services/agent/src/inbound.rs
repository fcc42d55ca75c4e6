//! Inbound: messages of the link as events, each with the span in which it is handled.

use std::collections::HashMap;
use std::time::Duration;

use quintet_bus::{Delivery, Incoming, Responder};
use quintet_contract::agent::{AgentCommand, AgentReport, CommandReply};
use quintet_contract::id::AgentId;
use quintet_contract::id::JobId;
use quintet_contract::job::{Attempt, JobAttempt};
use quintet_contract::subject::{Assigned, CommandAgent, CommandVerb};
use quintet_worker::LinkEvent;
use tracing::Span;

use crate::core::{AnswerId, Event, Request};

/// Commands that wait for their answers.
#[derive(Default)]
pub(crate) struct Answers {
    waiting: HashMap<AnswerId, Responder<CommandReply>>,
    last: u64,
}

impl Answers {
    fn expect(&mut self, responder: Responder<CommandReply>) -> AnswerId {
        self.last += 1;
        let answer = AnswerId(self.last);
        self.waiting.insert(answer, responder);
        answer
    }

    /// The duty to answer, once.
    pub(crate) fn take(&mut self, answer: AnswerId) -> Option<Responder<CommandReply>> {
        self.waiting.remove(&answer)
    }
}

/// Translates an event of the link, which may be several of ours.
pub(crate) fn read(agent: &AgentId, event: LinkEvent, answers: &mut Answers) -> (Vec<Event>, Span) {
    let event = match event {
        LinkEvent::Welcome(settings) => Event::Welcome(settings),
        LinkEvent::Assigned { assignment, meta } => {
            let delivery = Delivery {
                subject: Assigned {
                    agent: agent.clone(),
                },
                message: assignment,
                meta,
            };
            let span = delivery.span("agent.job");
            return (vec![Event::Assigned(Box::new(delivery.message))], span);
        }
        LinkEvent::Confirmed(placement) => Event::Confirmed(placement),
        LinkEvent::Kill(placement) => Event::Revoked(placement),
        LinkEvent::Command {
            command,
            meta,
            responder,
        } => {
            let verb = CommandVerb::of(&command).unwrap_or(CommandVerb::Control);
            let incoming = Incoming {
                subject: CommandAgent {
                    agent: agent.clone(),
                    verb,
                },
                message: command,
                meta,
                responder,
            };
            let span = incoming.span("agent.command");
            let answer = answers.expect(incoming.responder);
            return (vec![command_event(incoming.message, answer)], span);
        }
        LinkEvent::Stored(reports) => {
            let finals = reports.into_iter().filter_map(final_of);
            return (finals.map(Event::FinalStored).collect(), Span::none());
        }
        LinkEvent::Refused { report, .. } => {
            // An end that will never be taken must not be listed for ever.
            let finals = final_of(*report).map(Event::FinalStored);
            return (finals.into_iter().collect(), Span::none());
        }
        LinkEvent::Fence => Event::Fenced,
        LinkEvent::Replaced => Event::Replaced,
        LinkEvent::Closed => Event::LinkClosed,
        // Contact, and unknown events of a newer link.
        _ => return (Vec::new(), Span::none()),
    };
    (vec![event], Span::none())
}

pub(crate) fn command_event(command: AgentCommand, answer: AnswerId) -> Event {
    let command_for = |job_id: JobId, attempt: Attempt, request| Event::CommandReceived {
        placement: JobAttempt { job_id, attempt },
        request,
        answer,
    };
    match command {
        AgentCommand::Stop {
            job_id,
            attempt,
            deadline_ms,
            ..
        } => {
            let deadline = Duration::from_millis(deadline_ms);
            command_for(job_id, attempt, Request::Stop { deadline })
        }
        AgentCommand::Kill { job_id, attempt } => command_for(job_id, attempt, Request::Kill),
        AgentCommand::Control {
            job_id,
            attempt,
            command,
            args,
        } => command_for(job_id, attempt, Request::Control { command, args }),
        // The link keeps the news of a replacement to itself.
        AgentCommand::Replaced { .. } | AgentCommand::Unknown => Event::UnknownCommand { answer },
    }
}

pub(crate) fn final_of(report: AgentReport) -> Option<JobAttempt> {
    match report {
        AgentReport::JobStopped {
            job_id,
            attempt: Some(attempt),
            ..
        }
        | AgentReport::AssignAck {
            job_id,
            attempt: Some(attempt),
            accepted: false,
            ..
        } => Some(JobAttempt { job_id, attempt }),
        _ => None,
    }
}
