//! Reports of agents. Reports cannot be refused: a valid one moves the job on, an invalid one has no effect,
//! is counted, and when it shows work that should not be there, the agent is commanded to kill it.
//!
//! Within a session the clock distinguishes a late copy from a new report: reports travel one message at a time, each
//! with a higher clock. A copy changes nothing and is answered like the first.

use std::collections::BTreeSet;

use quintet_contract::agent::{
    AgentCommand, AgentFault, AgentReport, AgentReports, AgentSettings, Heartbeat, HeartbeatReply,
    Hello, ReportsReply, SessionStatus,
};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::{AgentId, AgentSession, JobId};
use quintet_contract::job::{Attempt, Job, JobAttempt, JobError, JobStatus};
use quintet_contract::reply::RequestId;
use quintet_contract::time::Timestamp;
use quintet_contract::{JsonObject, metadata, nesting};

use super::Core;
use super::event::{Action, Anomaly, Write};
use super::observe::{Observation, Ownership};
use super::submit::size_of_object;

/// Most bytes of an agent's text about a job, such as why it failed; the rest is cut off.
const TEXT_BYTES: usize = 2 * 1024;
/// Most bytes of the detail of an error as JSON; more is left out, and so is what is nested too deeply.
const DETAIL_BYTES: usize = 16 * 1024;
/// Most bytes of what an agent announces about itself as JSON; more is left out, and so is what is nested too deeply.
const ANNOUNCEMENT_BYTES: usize = 64 * 1024;

impl Core {
    pub(super) fn reported(
        &mut self,
        from: RequestId<ReportsReply>,
        agent: &AgentId,
        reports: AgentReports,
        now: Timestamp,
    ) {
        let outcome = self.take_reports(agent, reports, now);
        self.reply(from, outcome);
    }

    fn take_reports(
        &mut self,
        agent: &AgentId,
        reports: AgentReports,
        now: Timestamp,
    ) -> Result<ReportsReply, ErrorReply> {
        let AgentReports {
            session,
            clock,
            reports,
        } = reports;
        let greets = matches!(reports.first(), Some(AgentReport::Hello { .. }));
        let status = self.session_status(agent, session, greets);
        if status != SessionStatus::Current {
            self.count(Anomaly::OldSession);
            let leaves = matches!(reports.last(), Some(AgentReport::Goodbye { .. }));
            if leaves && status == SessionStatus::HelloRequired {
                // A goodbye that was received before; it need not be sent again.
                return Ok(ReportsReply::default());
            }
            return Ok(ReportsReply {
                status,
                ..ReportsReply::default()
            });
        }
        self.check_room(agent)?;
        let mut reply = ReportsReply {
            settings: greets.then(|| self.settings()),
            ..ReportsReply::default()
        };
        let entry = self.agents.get(agent);
        let is_copy = entry.is_some_and(|entry| {
            entry.record.session == Some(session) && entry.reports_clock >= clock
        });
        if is_copy {
            self.count(Anomaly::Duplicate);
        } else {
            for report in &reports {
                self.take_report(agent, session, report, now);
            }
            self.agents.change(agent, |entry| {
                entry.reports_clock = clock;
                entry.heard_at = now;
            });
        }
        for report in &reports {
            self.answer_report(agent, report, &mut reply);
        }
        reply.kill.sort();
        reply.kill.dedup();
        Ok(reply)
    }

    /// Whether one more agent may be registered, if this one is new. Offline ones stay listed until they are forgotten.
    fn check_room(&self, agent: &AgentId) -> Result<(), ErrorReply> {
        let most = self.config.max_agents;
        if self.agents.get(agent).is_some() || self.agents.iter().len() < most {
            return Ok(());
        }
        let text = format!(
            "this pool has {most} agents and takes no new one; forget some that are offline, or raise max_agents"
        );
        Err(ErrorReply::new(ErrorCode::Conflict, text))
    }

    /// The status of a session. Any session that is not known to have ended may open with a hello.
    fn session_status(
        &self,
        agent: &AgentId,
        session: AgentSession,
        greets: bool,
    ) -> SessionStatus {
        let Some(entry) = self.agents.get(agent) else {
            return if greets {
                SessionStatus::Current
            } else {
                SessionStatus::HelloRequired
            };
        };
        if entry.record.session == Some(session) {
            return SessionStatus::Current;
        }
        if entry.is_former(session) {
            // Former because another took over, or because it sent goodbye or was declared lost.
            let replaced = entry.record.session.is_some();
            return if replaced {
                SessionStatus::Replaced
            } else {
                SessionStatus::HelloRequired
            };
        }
        if greets {
            SessionStatus::Current
        } else {
            SessionStatus::HelloRequired
        }
    }

    fn settings(&self) -> AgentSettings {
        let millis =
            |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        AgentSettings {
            heartbeat_interval_ms: millis(self.config.heartbeat_interval),
            heartbeat_timeout_ms: millis(self.config.heartbeat_timeout),
            stop_grace_ms: millis(self.config.stop_grace),
            kill_after_ms: millis(self.config.kill_after),
        }
    }

    fn take_report(
        &mut self,
        agent: &AgentId,
        session: AgentSession,
        report: &AgentReport,
        now: Timestamp,
    ) {
        match report {
            AgentReport::Hello { hello } => self.hello(agent, session, hello, now),
            AgentReport::AssignAck {
                job_id,
                attempt,
                accepted: true,
                ..
            } => {
                self.observed(
                    Observation {
                        agent,
                        session,
                        job: job_id,
                        attempt: *attempt,
                        status: JobStatus::Accepted,
                        error: None,
                    },
                    now,
                );
            }
            AgentReport::AssignAck {
                job_id,
                attempt,
                accepted: false,
                reason,
            } => {
                let holds = matches!(self.ownership(agent, job_id, *attempt), Ownership::Current);
                match self.job(job_id).filter(|_| holds).map(last_known) {
                    // An acceptance may be taken back as long as the job was not started.
                    Some(JobStatus::Assigned | JobStatus::Accepted) => {
                        let reason = cut(reason.as_deref().unwrap_or("refused without a reason"));
                        self.assignment_rejected(job_id, &reason, now);
                    }
                    // It was to end, and will not begin.
                    Some(JobStatus::Stopping) => self.observed(
                        Observation {
                            agent,
                            session,
                            job: job_id,
                            attempt: *attempt,
                            status: JobStatus::Stopped,
                            error: None,
                        },
                        now,
                    ),
                    _ => self.count(Anomaly::Stale),
                }
            }
            AgentReport::JobUpdate {
                job_id,
                attempt,
                status,
            } => {
                self.observed(
                    Observation {
                        agent,
                        session,
                        job: job_id,
                        attempt: *attempt,
                        status: *status,
                        error: None,
                    },
                    now,
                );
            }
            AgentReport::JobStopped {
                job_id,
                attempt,
                status,
                error,
            } => {
                let status = if *status == JobStatus::Failed {
                    JobStatus::Failed
                } else {
                    JobStatus::Stopped
                };
                let error = error.as_ref().map(cut_error);
                self.observed(
                    Observation {
                        agent,
                        session,
                        job: job_id,
                        attempt: *attempt,
                        status,
                        error,
                    },
                    now,
                );
            }
            AgentReport::JobMuted {
                job_id,
                attempt,
                muted,
                success,
            } => {
                if *success && matches!(self.ownership(agent, job_id, *attempt), Ownership::Current)
                {
                    self.set_muted(job_id, *muted, now);
                }
            }
            AgentReport::JobMetadata {
                job_id,
                attempt,
                metadata,
            } => {
                if matches!(self.ownership(agent, job_id, *attempt), Ownership::Current) {
                    self.agent_metadata(job_id, metadata.clone(), now);
                } else {
                    self.count(Anomaly::Stale);
                }
            }
            AgentReport::AgentError { code, message } => {
                let fault = AgentFault {
                    code: cut(code),
                    message: cut(message),
                };
                self.agents.set_error(agent, Some(fault));
                self.effects.write(Write::Agent(agent.clone()));
            }
            AgentReport::Goodbye { reason } => {
                self.agent_lost(agent, &format!("agent left: {}", cut(reason)), now);
            }
            AgentReport::Unknown => self.count(Anomaly::UnknownKind),
        }
    }

    /// The verdict on one report of an agent, the same for the first and for every copy.
    fn answer_report(&self, agent: &AgentId, report: &AgentReport, reply: &mut ReportsReply) {
        let mut judge = |job_id: &JobId, attempt: Option<Attempt>, status: JobStatus| {
            let named = JobAttempt {
                job_id: job_id.clone(),
                attempt: attempt.unwrap_or_default(),
            };
            match self.ownership(agent, job_id, attempt) {
                Ownership::Current if status == JobStatus::Accepted && self.may_start(job_id) => {
                    let attempt = self.job(job_id).map_or(named.attempt, |job| job.attempt);
                    reply.start.push(JobAttempt { attempt, ..named });
                }
                Ownership::Ended | Ownership::Stale if !status.is_final() => reply.kill.push(named),
                Ownership::Current | Ownership::Ended | Ownership::Stale | Ownership::Unknown => {}
            }
        };
        match report {
            AgentReport::Hello { hello } => {
                for active in &hello.active_jobs {
                    judge(&active.job_id, active.attempt, active.status);
                }
            }
            AgentReport::AssignAck {
                job_id,
                attempt,
                accepted: true,
                ..
            } => {
                judge(job_id, *attempt, JobStatus::Accepted);
            }
            AgentReport::JobUpdate {
                job_id,
                attempt,
                status,
            } => judge(job_id, *attempt, *status),
            AgentReport::AssignAck {
                accepted: false, ..
            }
            | AgentReport::JobStopped { .. }
            | AgentReport::JobMuted { .. }
            | AgentReport::JobMetadata { .. }
            | AgentReport::AgentError { .. }
            | AgentReport::Goodbye { .. }
            | AgentReport::Unknown => {}
        }
    }

    /// An accepted job may start unless it is to be stopped.
    fn may_start(&self, id: &JobId) -> bool {
        let status = self.job(id).map(|job| job.status);
        matches!(
            status,
            Some(JobStatus::Accepted | JobStatus::Starting | JobStatus::Running)
        )
    }

    /// An agent is here, with these jobs.
    fn hello(&mut self, agent: &AgentId, session: AgentSession, hello: &Hello, now: Timestamp) {
        let before = self.agents.get(agent).map(|entry| entry.record.session);
        self.agents.hello(agent, bounded(hello), session, now);
        if before != Some(Some(session)) {
            self.agents.change(agent, |entry| entry.reports_clock = 0);
            self.watch_silence(agent, now);
        }
        if matches!(before, Some(Some(old)) if old != session) {
            self.effects.act(Action::Command {
                agent: agent.clone(),
                command: AgentCommand::Replaced { current: session },
                command_id: None,
                traceparent: None,
            });
        }
        for active in &hello.active_jobs {
            let seen = Observation {
                agent,
                session,
                job: &active.job_id,
                attempt: active.attempt,
                status: active.status,
                error: None,
            };
            self.observed(seen, now);
            self.remind(&active.job_id, active.status, now);
        }
        let active: BTreeSet<&JobId> = hello
            .active_jobs
            .iter()
            .map(|active| &active.job_id)
            .collect();
        let held = self
            .agents
            .get(agent)
            .map(|entry| entry.jobs().to_vec())
            .unwrap_or_default();
        for job in held.into_iter().filter(|job| !active.contains(job)) {
            self.gone(&job, now);
        }
        self.effects.write(Write::Agent(agent.clone()));
    }

    /// A heartbeat, and perhaps the list of what the agent has.
    pub(super) fn heartbeat(
        &mut self,
        from: RequestId<HeartbeatReply>,
        agent: &AgentId,
        heartbeat: Heartbeat,
        now: Timestamp,
    ) {
        let status = self.session_status(agent, heartbeat.session, false);
        if status != SessionStatus::Current {
            self.count(Anomaly::OldSession);
            let kill = Vec::new();
            return self.reply(from, Ok(HeartbeatReply { status, kill }));
        }
        let well = heartbeat
            .metrics
            .get("ok")
            .and_then(serde_json::Value::as_bool)
            == Some(true);
        let news = self.agents.change(agent, |entry| {
            entry.heard_at = now;
            // A heartbeat that is older than the newest reports adds nothing to them.
            (
                heartbeat.clock > entry.reports_clock,
                well && entry.record.agent.error.is_some(),
            )
        });
        let Some((is_news, recovered)) = news else {
            return;
        };
        if recovered {
            self.agents.set_error(agent, None);
            self.effects.write(Write::Agent(agent.clone()));
        }
        let kill = match heartbeat.jobs {
            Some(jobs) if is_news => self.reconcile_agent(agent, &jobs, now),
            Some(_) | None => Vec::new(),
        };
        self.reply(from, Ok(HeartbeatReply { status, kill }));
    }

    /// The stream's sound is off or on.
    pub(super) fn set_muted(&mut self, id: &JobId, muted: bool, now: Timestamp) {
        let mut news = JsonObject::new();
        news.insert("isMuted".to_owned(), muted.into());
        self.agent_metadata(id, news, now);
    }

    fn agent_metadata(&mut self, id: &JobId, news: JsonObject, now: Timestamp) {
        if metadata::check(&news).is_err() || self.merge_metadata(id, news, now).is_err() {
            self.count(Anomaly::BadMetadata);
        }
    }
}

/// A hello whose announcements fit a record.
fn bounded(hello: &Hello) -> Hello {
    let fits = |object: &JsonObject| {
        nesting::is_bounded_object(object) && size_of_object(object) <= ANNOUNCEMENT_BYTES
    };
    Hello {
        name: cut(&hello.name),
        version: cut(&hello.version),
        capabilities: Some(hello.capabilities.clone())
            .filter(fits)
            .unwrap_or_default(),
        meta: Some(hello.meta.clone()).filter(fits).unwrap_or_default(),
        drain: hello.drain,
        active_jobs: Vec::new(),
    }
}

/// The status before the agent was lost, or the status.
fn last_known(job: &Job) -> JobStatus {
    let mut known = job.timeline.iter().rev().map(|entry| entry.status);
    known
        .find(|status| *status != JobStatus::Unknown)
        .unwrap_or(job.status)
}

fn cut(text: &str) -> String {
    if text.len() <= TEXT_BYTES {
        return text.to_owned();
    }
    let end = (0..=TEXT_BYTES)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    format!("{}…", &text[..end])
}

fn cut_error(error: &JobError) -> JobError {
    let fits = |detail: &serde_json::Value| {
        nesting::is_bounded(detail) && detail.to_string().len() <= DETAIL_BYTES
    };
    JobError {
        code: cut(&error.code),
        message: cut(&error.message),
        detail: error.detail.clone().filter(fits),
    }
}
