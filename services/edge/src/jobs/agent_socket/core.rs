//! Translates between an agent's frames and the bus, and remembers which jobs the agent has: pure, without I/O. Time
//! and the ids of frames are passed in.

use std::collections::BTreeMap;

use quintet_contract::agent::{
    ActiveJob, AgentCommand, AgentReport, AgentSettings, Assignment, Hello,
};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::event::{JobLog, LogLine, MAX_LOG_LINE_BYTES};
use quintet_contract::id::{AgentId, JobId, MessageId};
use quintet_contract::job::{Attempt, JobAttempt, JobError, JobStatus};
use quintet_contract::socket::{
    AgentErrorPayload, AssignAckPayload, AssignMetadata, AssignStartPayload, Envelope,
    HeartbeatPayload, HelloPayload, JobLogPayload, JobPayload, JobStopPayload, JobStoppedPayload,
    JobUpdatePayload, MutedPayload, from_agent, to_agent,
};
use quintet_contract::time::Timestamp;
use quintet_contract::{JsonObject, nesting};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const MUTE: &str = "mute";
const UNMUTE: &str = "unmute";

/// What a frame of an agent means.
#[derive(Debug)]
pub(super) enum Inbound {
    /// Nothing; the kind of nonsense is for the metrics.
    Ignored(&'static str),
    /// It is here.
    Hello(Box<HelloPayload>),
    /// A heartbeat.
    Heartbeat(JsonObject),
    /// A fact for the scheduler.
    Report(AgentReport),
    /// The answer to a mute or unmute.
    Muted {
        job: JobId,
        verb: &'static str,
        report: AgentReport,
        success: bool,
    },
    /// Output of one of its jobs.
    Log(JobLog),
}

/// What a command becomes.
#[derive(Debug)]
pub(super) enum Outbound {
    /// A frame that needs no answer.
    Notify(String),
    /// A frame that the agent answers.
    Request {
        frame: String,
        job: JobId,
        verb: &'static str,
    },
    /// Nothing that an agent on a socket understands.
    Reject(ErrorReply),
}

/// The mark of a frame to the agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameStamp {
    pub(super) id: MessageId,
    pub(super) at: Timestamp,
}

/// One agent on one socket.
#[derive(Debug, Default)]
pub(super) struct Core {
    agent: Option<AgentId>,
    /// Its jobs: those it was offered or brought along.
    jobs: BTreeMap<JobId, Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    /// None when it was brought along: then the scheduler knows better.
    attempt: Option<Attempt>,
    /// None while it is only offered.
    status: Option<JobStatus>,
}

impl Core {
    /// Takes in one frame that was received at `now`.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Timestamp) -> Inbound {
        let Ok(Value::Object(mut frame)) = serde_json::from_slice::<Value>(bytes) else {
            return Inbound::Ignored("not_an_object");
        };
        let Some(Value::String(kind)) = frame.remove("type") else {
            return Inbound::Ignored("no_type");
        };
        let payload = match frame.remove("payload") {
            Some(payload @ Value::Object(_)) => payload,
            Some(_) | None => return Inbound::Ignored("no_payload"),
        };
        self.read(&kind, payload, now)
            .unwrap_or(Inbound::Ignored("bad_payload"))
    }

    fn read(&mut self, kind: &str, payload: Value, now: Timestamp) -> Option<Inbound> {
        Some(match kind {
            from_agent::HELLO => {
                let hello: HelloPayload = typed(payload)?;
                let announced = hello.capabilities.iter().chain(&hello.meta);
                if !announced.into_iter().all(nesting::is_bounded_object) {
                    return Some(Inbound::Ignored("too_deep"));
                }
                Inbound::Hello(Box::new(hello))
            }
            from_agent::HEARTBEAT => {
                let HeartbeatPayload { metrics } = typed(payload)?;
                // It is alive, whatever its metrics are.
                let metrics = metrics.filter(nesting::is_bounded_object);
                Inbound::Heartbeat(metrics.unwrap_or_default())
            }
            from_agent::ASSIGN_ACK => self.acknowledged(typed(payload)?),
            from_agent::JOB_UPDATE => {
                let JobUpdatePayload {
                    job_id,
                    status,
                    attempt,
                } = typed(payload)?;
                let attempt = self.attempt(&job_id, attempt);
                if let Some(held) = self.jobs.get_mut(&job_id) {
                    held.status = Some(status);
                }
                Inbound::Report(AgentReport::JobUpdate {
                    job_id,
                    attempt,
                    status,
                })
            }
            from_agent::JOB_STOPPED => {
                let JobStoppedPayload {
                    job_id,
                    status,
                    error,
                    attempt,
                } = typed(payload)?;
                let attempt = self.attempt(&job_id, attempt);
                if let Some(held) = self.jobs.get_mut(&job_id) {
                    held.status = Some(status);
                }
                Inbound::Report(AgentReport::JobStopped {
                    job_id,
                    attempt,
                    status,
                    error: error.map(JobError::bounded),
                })
            }
            from_agent::JOB_MUTE => self.muted(typed(payload)?, MUTE),
            from_agent::JOB_UNMUTE => self.muted(typed(payload)?, UNMUTE),
            from_agent::JOB_LOG => self.log(typed(payload)?, now),
            from_agent::ERROR => {
                let AgentErrorPayload { code, message } = typed(payload)?;
                let code = code.unwrap_or_else(|| "ERROR".to_owned());
                let message = message.unwrap_or_else(|| "the agent gave no reason".to_owned());
                Inbound::Report(AgentReport::AgentError { code, message })
            }
            _ => Inbound::Ignored("unknown_type"),
        })
    }

    fn acknowledged(&mut self, ack: AssignAckPayload) -> Inbound {
        let AssignAckPayload {
            job_id,
            accepted,
            reason,
            attempt,
        } = ack;
        let attempt = self.attempt(&job_id, attempt);
        if accepted {
            if let Some(held) = self.jobs.get_mut(&job_id) {
                held.status = Some(held.status.unwrap_or(JobStatus::Accepted));
            }
        } else {
            self.jobs.remove(&job_id);
        }
        Inbound::Report(AgentReport::AssignAck {
            job_id,
            attempt,
            accepted,
            reason,
        })
    }

    fn muted(&mut self, muted: MutedPayload, verb: &'static str) -> Inbound {
        let MutedPayload {
            job_id,
            success,
            attempt,
        } = muted;
        let attempt = self.attempt(&job_id, attempt);
        let report = AgentReport::JobMuted {
            job_id: job_id.clone(),
            attempt,
            muted: verb == MUTE,
            success,
        };
        Inbound::Muted {
            job: job_id,
            verb,
            report,
            success,
        }
    }

    fn log(&mut self, log: JobLogPayload, now: Timestamp) -> Inbound {
        let JobLogPayload {
            job_id,
            line,
            lines,
            stream,
            attempt,
        } = log;
        if !self.jobs.contains_key(&job_id) {
            // An agent writes into the logs of its own jobs only.
            return Inbound::Ignored("foreign_log");
        }
        let lines = line.into_iter().chain(lines.unwrap_or_default());
        let lines = lines
            .map(|line| LogLine {
                at: now,
                stream: stream.unwrap_or_default(),
                line: truncated(line),
            })
            .collect();
        Inbound::Log(JobLog {
            attempt: self.attempt(&job_id, attempt),
            job_id,
            lines,
        })
    }

    /// The attempt of a frame: its own, else the one that this agent was offered.
    fn attempt(&self, job: &JobId, given: Option<Attempt>) -> Option<Attempt> {
        given.or_else(|| self.jobs.get(job).and_then(|held| held.attempt))
    }

    pub(super) fn speaks_for(&self, agent: &AgentId) -> bool {
        self.agent.as_ref() == Some(agent)
    }

    /// The agent is accepted: its hello for the bus.
    pub(super) fn greet(&mut self, hello: HelloPayload) -> Hello {
        self.agent = Some(hello.agent_id);
        let listed: Vec<ActiveJob> = hello
            .active_job
            .into_iter()
            .chain(hello.active_jobs.unwrap_or_default())
            .collect();
        self.jobs = listed
            .iter()
            .map(|job| {
                (
                    job.job_id.clone(),
                    Held {
                        attempt: job.attempt,
                        status: Some(job.status),
                    },
                )
            })
            .collect();
        Hello {
            name: hello.name.unwrap_or_default(),
            version: hello.version.unwrap_or_default(),
            capabilities: hello.capabilities.unwrap_or_default(),
            drain: hello.drain.unwrap_or_default(),
            active_jobs: listed,
            meta: hello.meta.unwrap_or_default(),
        }
    }

    /// The jobs that the agent has taken and not returned.
    pub(super) fn jobs(&self) -> Vec<ActiveJob> {
        let taken = self.jobs.iter().filter_map(|(job_id, held)| {
            let status = held.status?;
            Some(ActiveJob {
                job_id: job_id.clone(),
                attempt: held.attempt,
                status,
            })
        });
        taken.collect()
    }

    /// The scheduler has stored these reports: ended jobs are gone. True when that changed anything.
    pub(super) fn stored(&mut self, reports: &[AgentReport]) -> bool {
        let before = self.jobs.len();
        for report in reports {
            if let AgentReport::JobStopped { job_id, .. } = report {
                self.jobs.remove(job_id);
            }
        }
        self.jobs.len() != before
    }

    pub(super) fn welcome(&self, settings: AgentSettings, stamp: FrameStamp) -> String {
        frame(to_agent::HELLO_OK, settings, stamp)
    }

    pub(super) fn offer(&mut self, assignment: Assignment, stamp: FrameStamp) -> String {
        let held = Held {
            attempt: Some(assignment.attempt),
            status: None,
        };
        self.jobs.insert(assignment.job_id.clone(), held);
        let payload = AssignStartPayload {
            job_id: assignment.job_id,
            idempotency_key: assignment.idempotency_key,
            config: assignment.config,
            expires_at: assignment.expires_at,
            attempt: assignment.attempt,
            metadata: AssignMetadata {
                requested_by: assignment.requested_by,
            },
            stream_metadata: assignment.stream_metadata,
        };
        frame(to_agent::ASSIGN_START, payload, stamp)
    }

    pub(super) fn kill(&mut self, placement: &JobAttempt, stamp: FrameStamp) -> String {
        self.jobs.remove(&placement.job_id);
        let job_id = placement.job_id.clone();
        frame(to_agent::JOB_KILL, JobPayload { job_id }, stamp)
    }

    pub(super) fn command(&self, command: AgentCommand, stamp: FrameStamp) -> Outbound {
        match command {
            AgentCommand::Stop {
                job_id,
                reason,
                deadline_ms,
                ..
            } => Outbound::Notify(frame(
                to_agent::JOB_STOP,
                JobStopPayload {
                    job_id,
                    reason,
                    deadline_ms,
                },
                stamp,
            )),
            AgentCommand::Kill { job_id, .. } => {
                Outbound::Notify(frame(to_agent::JOB_KILL, JobPayload { job_id }, stamp))
            }
            AgentCommand::Control {
                job_id, command, ..
            } => {
                let (kind, verb) = match command.as_str() {
                    MUTE => (to_agent::JOB_MUTE, MUTE),
                    UNMUTE => (to_agent::JOB_UNMUTE, UNMUTE),
                    other => {
                        let text =
                            format!("agents on a WebSocket know mute and unmute, not {other:?}");
                        let error = ErrorReply::new(ErrorCode::UnknownCommand, text);
                        return Outbound::Reject(error.with("commands", vec![MUTE, UNMUTE]));
                    }
                };
                Outbound::Request {
                    frame: frame(
                        kind,
                        JobPayload {
                            job_id: job_id.clone(),
                        },
                        stamp,
                    ),
                    job: job_id,
                    verb,
                }
            }
            AgentCommand::Replaced { .. } | AgentCommand::Unknown => {
                let text = "this command cannot be sent to an agent on a WebSocket";
                Outbound::Reject(ErrorReply::new(ErrorCode::UnknownCommand, text))
            }
        }
    }
}

fn typed<T: DeserializeOwned>(payload: Value) -> Option<T> {
    serde_json::from_value(payload).ok()
}

fn frame<P: Serialize>(kind: &str, payload: P, stamp: FrameStamp) -> String {
    let envelope = Envelope {
        kind: kind.to_owned(),
        msg_id: Some(stamp.id.to_string()),
        ts: Some(stamp.at.to_string()),
        correlation_id: None,
        payload,
    };
    serde_json::to_string(&envelope).unwrap_or_default()
}

fn truncated(mut line: String) -> String {
    if line.len() > MAX_LOG_LINE_BYTES {
        let end = (0..=MAX_LOG_LINE_BYTES)
            .rev()
            .find(|at| line.is_char_boundary(*at))
            .unwrap_or(0);
        line.truncate(end);
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_704_067_200_005);
    const STAMP: FrameStamp = FrameStamp {
        id: MessageId::from_uuid(Uuid::nil()),
        at: NOW,
    };

    fn receive(core: &mut Core, frame: Value) -> Inbound {
        core.receive(frame.to_string().as_bytes(), NOW)
    }

    fn offered(core: &mut Core, id: &str) -> Value {
        let assignment = json!({"jobId": id, "attempt": 3, "config": {"a": 1}, "idempotencyKey": "k",
            "expiresAt": "2026-01-01T00:00:00.000Z", "requestedBy": "eve"});
        serde_json::from_str(&core.offer(serde_json::from_value(assignment).unwrap(), STAMP))
            .unwrap()
    }

    #[test]
    fn nonsense_is_ignored_by_kind() {
        let mut core = Core::default();
        let cases = [
            ("", "not_an_object"),
            ("null", "not_an_object"),
            ("[]", "not_an_object"),
            ("{}", "no_type"),
            (r#"{"type":"agent.hello"}"#, "no_payload"),
            (r#"{"type":"agent.hello","payload":null}"#, "no_payload"),
            (r#"{"type":"agent.hello","payload":{}}"#, "bad_payload"),
            (r#"{"type":"dance","payload":{}}"#, "unknown_type"),
            (
                r#"{"type":"agent.job.log","payload":{"jobId":"x","line":"y"}}"#,
                "foreign_log",
            ),
        ];
        for (text, expected) in cases {
            let inbound = core.receive(text.as_bytes(), NOW);
            assert!(
                matches!(inbound, Inbound::Ignored(kind) if kind == expected),
                "{text}: {inbound:?}"
            );
        }
    }

    #[test]
    fn reports_carry_the_attempt_that_was_offered() {
        let mut core = Core::default();
        let frame = offered(&mut core, "j");
        assert_eq!(frame["type"], "orchestrator.assign.start");
        assert_eq!(
            (&frame["payload"]["attempt"], &frame["payload"]["metadata"]),
            (&json!(3), &json!({"requestedBy": "eve"}))
        );
        assert!(core.jobs().is_empty(), "an offer is not a job yet");
        let ack = json!({"type": "agent.assign.ack", "payload": {"jobId": "j", "accepted": true}});
        let inbound = receive(&mut core, ack);
        assert!(matches!(
            inbound,
            Inbound::Report(AgentReport::AssignAck {
                attempt: Some(Attempt(3)),
                accepted: true,
                ..
            })
        ));
        assert_eq!(core.jobs()[0].status, JobStatus::Accepted);
        let update =
            json!({"type": "agent.job.update", "payload": {"jobId": "j", "status": "RUNNING"}});
        let inbound = receive(&mut core, update);
        assert!(matches!(
            inbound,
            Inbound::Report(AgentReport::JobUpdate {
                attempt: Some(Attempt(3)),
                ..
            })
        ));
        let stopped =
            json!({"type": "agent.job.stopped", "payload": {"jobId": "j", "status": "STOPPED"}});
        let Inbound::Report(report) = receive(&mut core, stopped) else {
            panic!()
        };
        assert_eq!(
            core.jobs().len(),
            1,
            "it has the job until its end is stored"
        );
        assert!(core.stored(&[report]) && core.jobs().is_empty());
    }

    #[test]
    fn a_hello_lists_one_job_or_several() {
        let one = json!({"type": "agent.hello", "payload": {"agentId": "a", "activeJob": {"jobId": "j", "status": "RUNNING"}}});
        let mut core = Core::default();
        let Inbound::Hello(hello) = receive(&mut core, one) else {
            panic!()
        };
        assert_eq!(core.greet(*hello).active_jobs.len(), 1);
        let two = json!({"type": "agent.hello", "payload": {"agentId": "a", "activeJob": null, "activeJobs": [
            {"jobId": "j", "status": "RUNNING"}, {"jobId": "k", "status": "STOPPING"}]}});
        let Inbound::Hello(hello) = receive(&mut core, two) else {
            panic!()
        };
        assert_eq!(core.greet(*hello).active_jobs.len(), 2);
    }

    #[test]
    fn commands_become_frames_and_unknown_ones_are_refused() {
        let core = Core::default();
        let control = |command: &str| AgentCommand::Control {
            job_id: JobId::parse("j").unwrap(),
            attempt: Attempt(1),
            command: command.to_owned(),
            args: JsonObject::new(),
        };
        assert!(
            matches!(core.command(control("mute"), STAMP), Outbound::Request { verb: "mute", frame, .. } if frame.contains("job.mute"))
        );
        assert!(
            matches!(core.command(control("dance"), STAMP), Outbound::Reject(error) if error.code == ErrorCode::UnknownCommand)
        );
    }
}
