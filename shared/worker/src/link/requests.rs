//! Requests of a link to the bus: each runs beside the loop, and its result is an event.

use std::time::Duration;

use quintet_bus::RequestError;
use quintet_contract::agent::{AgentReport, AgentReports, Heartbeat};
use quintet_contract::bucket::{LeaseKey, Leases};
use quintet_contract::error::{ErrorReply, Retry};
use quintet_contract::subject::{AgentHeartbeat, AgentReporting, AssignQueue};
use quintet_contract::topology::stream;
use tokio::time::timeout;
use tracing::{Instrument, Span, debug};

use super::core::{Answer, Event, Leadership};
use super::driver::Driver;
use super::outbox::job_of;
use crate::clock::moment;
use crate::metrics;

/// How long the owner may take to store reports; after that they are sent again.
const REPORTS_DEADLINE: Duration = Duration::from_secs(3);
/// How long a read of the lease may take.
const LEASE_DEADLINE: Duration = Duration::from_secs(1);
/// How long one read of the queue may take.
const QUEUE_DEADLINE: Duration = Duration::from_secs(5);
/// Offers per read of the queue.
const QUEUE_PAGE: usize = 512;
impl Driver {
    pub(super) fn send_reports(&self, reports: AgentReports) {
        let (bus, subject) = (self.bus.clone(), self.reporting());
        let (sent, kind) = (moment(), kind_of(&reports));
        // The answer's trace is that of the first job in the message.
        let jobs = reports.reports.iter().filter_map(job_of);
        let span = jobs
            .filter_map(|job| self.spans.get(job))
            .next()
            .cloned()
            .unwrap_or_else(Span::none);
        let request = async move {
            let answer = bus.request(&subject, &reports, REPORTS_DEADLINE).await;
            let answer = read_answer(answer, kind);
            Event::ReportsAnswered { sent, answer }
        };
        self.work.push(Box::pin(request.instrument(span)));
    }

    fn reporting(&self) -> AgentReporting {
        AgentReporting {
            agent: self.identity.agent.clone(),
            pool: self.identity.pool.clone(),
        }
    }

    pub(super) fn queue(&self) -> AssignQueue {
        AssignQueue {
            agent: self.identity.agent.clone(),
        }
    }

    pub(super) fn send_heartbeat(&self, heartbeat: Heartbeat) {
        let (bus, sent) = (self.bus.clone(), moment());
        let subject = AgentHeartbeat {
            agent: self.identity.agent.clone(),
            pool: self.identity.pool.clone(),
        };
        let (deadline, session) = (self.core.heartbeat_deadline(), heartbeat.session);
        self.work.push(Box::pin(async move {
            let answer = bus.request(&subject, &heartbeat, deadline).await;
            let answer = read_answer(answer, "heartbeat");
            Event::HeartbeatAnswered {
                sent,
                session,
                answer,
            }
        }));
    }

    pub(super) fn read_lease(&self) {
        let (leases, requested_at) = (self.bus.bucket::<Leases>(), moment());
        let key = LeaseKey::Scheduler(self.identity.pool.clone());
        self.work.push(Box::pin(async move {
            let leadership = match timeout(LEASE_DEADLINE, leases.get(&key)).await {
                Ok(Ok(Some(_))) => Leadership::Held,
                Ok(Ok(None)) => Leadership::Vacant,
                Ok(Err(_)) | Err(_) => Leadership::Unreadable,
            };
            Event::LeaseRead {
                requested_at,
                leadership,
            }
        }));
    }

    pub(super) fn read_queue(&self, from: u64) {
        let bus = self.bus.clone();
        let subject = self.queue();
        self.work.push(Box::pin(async move {
            let stream = stream::assignments(bus.prefix());
            let read = bus.replay(stream, &subject, from, QUEUE_PAGE);
            match timeout(QUEUE_DEADLINE, read).await {
                Ok(Ok(replay)) => Event::QueueRead {
                    offers: replay
                        .messages
                        .into_iter()
                        .map(|(sequence, _, offer)| (sequence, offer))
                        .collect(),
                    last: replay.last_sequence,
                    remaining: replay.remaining,
                },
                Ok(Err(error)) => {
                    debug!(%error, "cannot read the queue, trying again");
                    Event::QueueUnreadable
                }
                Err(_) => Event::QueueUnreadable,
            }
        }));
    }
}

fn kind_of(reports: &AgentReports) -> &'static str {
    match reports.reports.first() {
        Some(AgentReport::Hello { .. }) => "hello",
        _ => "reports",
    }
}

fn read_answer<R>(answer: Result<R, RequestError>, kind: &'static str) -> Answer<R> {
    let error = match answer {
        Ok(reply) => {
            metrics::message(kind, "ok");
            return Answer::Reply(reply);
        }
        Err(error) => error,
    };
    match error {
        RequestError::Refused(ErrorReply {
            retry: Retry::Never,
            ..
        })
        | RequestError::Codec(_) => {
            metrics::message(kind, "refused");
            Answer::Refused(error.to_reply())
        }
        RequestError::Refused(_)
        | RequestError::NoResponders { .. }
        | RequestError::Timeout { .. }
        | RequestError::Link { .. } => {
            debug!(kind, %error, "not acknowledged");
            metrics::message(kind, "unreachable");
            Answer::None
        }
    }
}
