//! The core as its driver sees it: events in, effects out, under a clock of the test's own.

use std::time::Duration;

use proptest::prelude::*;
use quintet_contract::JsonObject;
use quintet_contract::agent::{
    ActiveJob, AgentCommand, AgentReport, AgentReports, AgentState, Assignment, CommandReply,
    Heartbeat, HeartbeatReply, Hello, ReportsReply, SessionStatus,
};
use quintet_contract::api::{
    AgentRef, ControlJob, DrainAgent, Gate, JobRef, ListAgents, ListJobs, PatchMetadata,
    SubmitBatch, SubmitJob, SubmitReply,
};
use quintet_contract::cause::CausedBy;
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::{AgentId, AgentSession, IdempotencyKey, JobId, NodeId, PoolName, RunId};
use quintet_contract::job::{
    Attempt, Job, JobAttempt, JobError, JobStatus, KeyRecord, RestartPolicy,
};
use quintet_contract::time::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use quintet_leader::Core as _;

/// A pool under test.
struct Pool {
    core: Core,
    now: Timestamp,
    effects: Effects,
    requests: u64,
    clocks: u64,
}

fn config() -> CoreConfig {
    CoreConfig {
        pool: PoolName::default(),
        heartbeat_interval: Duration::from_secs(3),
        heartbeat_timeout: Duration::from_secs(10),
        stop_grace: Duration::from_secs(10),
        kill_after: Duration::from_secs(5),
        assign_ack_timeout: Duration::from_secs(5),
        job_retention: Duration::from_secs(3600),
        max_agents: 100,
    }
}

fn agent(name: &str) -> AgentId {
    AgentId::parse(name).unwrap()
}

fn job(name: &str) -> JobId {
    JobId::parse(name).unwrap()
}

fn session(number: u128) -> AgentSession {
    AgentSession::from_uuid(Uuid::from_u128(number))
}

fn object(value: Value) -> JsonObject {
    value.as_object().cloned().unwrap()
}

fn submission(id: &str) -> SubmitJob {
    SubmitJob {
        job_id: Some(job(id)),
        inline_config: Some(object(json!({"executor": "noop"}))),
        ..SubmitJob::default()
    }
}

fn hello(capabilities: Value, active: &[(&str, u32, JobStatus)]) -> AgentReport {
    let active_jobs = active
        .iter()
        .map(|(id, attempt, status)| ActiveJob {
            job_id: job(id),
            attempt: Some(Attempt(*attempt)),
            status: *status,
        })
        .collect();
    let hello = Hello {
        name: String::new(),
        version: "1".to_owned(),
        capabilities: object(capabilities),
        drain: false,
        active_jobs,
        meta: JsonObject::new(),
    };
    AgentReport::Hello { hello }
}

impl Pool {
    fn new() -> Self {
        Self::restored(Stored::default(), Timestamp::from_millis(1_000_000))
    }

    fn restored(stored: Stored, now: Timestamp) -> Self {
        let (core, effects) = Core::restore(config(), stored, now);
        Self {
            core,
            now,
            effects,
            requests: 0,
            clocks: 0,
        }
    }

    /// A pool with one agent of two slots that fences itself.
    fn with_agent(name: &str) -> Self {
        let mut pool = Self::new();
        pool.join(name, 1, json!({"slots": 2, "selfFence": true}), &[]);
        pool
    }

    /// What a new leader would start from.
    fn stored(&self) -> Stored {
        Stored {
            jobs: self.core.jobs().cloned().collect(),
            agents: self
                .core
                .agents
                .iter()
                .map(|(_, entry)| entry.stored())
                .collect(),
            templates: Vec::new(),
        }
    }

    fn step(&mut self, event: Event) {
        let effects = self.core.step(event, self.now);
        self.effects.extend(effects);
        self.reconcile();
    }

    fn reconcile(&mut self) {
        let effects = self.core.reconcile(self.now);
        self.effects.extend(effects);
    }

    /// Lets time pass, looking at every moment when something is due.
    fn pass(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while let Some(due) = self.core.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.reconcile();
        }
        self.now = end;
        self.reconcile();
    }

    fn request<R>(&mut self) -> RequestId<R> {
        self.requests += 1;
        RequestId::new(self.requests)
    }

    fn answer_to<R>(&mut self, id: RequestId<R>) -> Option<Answer> {
        let at = self.effects.then.iter().position(
            |action| matches!(action, Action::Reply(reply) if reply.to() == id.number()),
        )?;
        match self.effects.then.remove(at) {
            Action::Reply(reply) => Some(reply.into_parts().1),
            _ => None,
        }
    }

    fn query<R>(&mut self, question: impl FnOnce(RequestId<R>) -> Question) -> Option<Answer> {
        let from = self.request();
        let question = question(from);
        self.step(Event::RequestReceived {
            question,
            traceparent: None,
        });
        self.answer_to(from)
    }

    fn submit(&mut self, submit: SubmitJob) -> Result<SubmitReply, ErrorReply> {
        match self
            .query(|from| Question::Submit(from, Box::new(submit)))
            .unwrap()
        {
            Answer::Submitted(reply) => Ok(*reply),
            Answer::Refused(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    fn report(&mut self, name: &str, number: u128, reports: Vec<AgentReport>) -> ReportsReply {
        self.clocks += 1;
        let message = AgentReports {
            session: session(number),
            clock: self.clocks,
            reports,
        };
        self.deliver(name, message)
    }

    fn deliver(&mut self, name: &str, reports: AgentReports) -> ReportsReply {
        let from = self.request();
        self.step(Event::Reported {
            from,
            agent: agent(name),
            reports,
        });
        match self.answer_to(from).unwrap() {
            Answer::Reports(reply) => *reply,
            other => panic!("{other:?}"),
        }
    }

    fn join(
        &mut self,
        name: &str,
        number: u128,
        capabilities: Value,
        active: &[(&str, u32, JobStatus)],
    ) -> ReportsReply {
        self.report(name, number, vec![hello(capabilities, active)])
    }

    fn heartbeat(
        &mut self,
        name: &str,
        number: u128,
        jobs: Option<&[(&str, u32, JobStatus)]>,
    ) -> HeartbeatReply {
        self.clocks += 1;
        let from = self.request();
        let jobs = jobs.map(|jobs| {
            let jobs = jobs.iter();
            jobs.map(|(id, attempt, status)| ActiveJob {
                job_id: job(id),
                attempt: Some(Attempt(*attempt)),
                status: *status,
            })
            .collect()
        });
        let heartbeat = Heartbeat {
            session: session(number),
            clock: self.clocks,
            jobs,
            metrics: JsonObject::new(),
        };
        self.step(Event::HeartbeatReceived {
            from,
            agent: agent(name),
            heartbeat,
        });
        match self.answer_to(from).unwrap() {
            Answer::Heartbeat(reply) => *reply,
            other => panic!("{other:?}"),
        }
    }

    fn accept(&mut self, name: &str, number: u128, id: &str) -> ReportsReply {
        let attempt = Some(self.job(id).attempt);
        let ack = AgentReport::AssignAck {
            job_id: job(id),
            attempt,
            accepted: true,
            reason: None,
        };
        self.report(name, number, vec![ack])
    }

    fn update(&mut self, name: &str, number: u128, id: &str, status: JobStatus) -> ReportsReply {
        let attempt = Some(self.job(id).attempt);
        self.report(
            name,
            number,
            vec![AgentReport::JobUpdate {
                job_id: job(id),
                attempt,
                status,
            }],
        )
    }

    fn ended(&mut self, name: &str, number: u128, id: &str, status: JobStatus) -> ReportsReply {
        let attempt = Some(self.job(id).attempt);
        let error =
            (status == JobStatus::Failed).then(|| JobError::new("EXIT_STATUS", "it exited with 1"));
        self.report(
            name,
            number,
            vec![AgentReport::JobStopped {
                job_id: job(id),
                attempt,
                status,
                error,
            }],
        )
    }

    /// Submits a job and brings it to RUNNING on the one agent.
    fn run(&mut self, name: &str, number: u128, submit: SubmitJob) {
        let id = submit.job_id.clone().unwrap();
        self.submit(submit).unwrap();
        self.accept(name, number, id.as_str());
        self.update(name, number, id.as_str(), JobStatus::Running);
        assert_eq!(self.status(id.as_str()), JobStatus::Running);
    }

    fn stop(&mut self, id: &str) {
        self.query(|from| Question::Stop(from, JobRef { id: job(id) }));
    }

    fn job(&self, id: &str) -> &Job {
        self.core.job(&job(id)).unwrap()
    }

    fn status(&self, id: &str) -> JobStatus {
        self.job(id).status
    }

    /// Every status the job had.
    fn story(&self, id: &str) -> Vec<JobStatus> {
        self.job(id)
            .timeline
            .iter()
            .map(|entry| entry.status)
            .collect()
    }

    fn state(&self, name: &str) -> AgentState {
        self.core.agents.get(&agent(name)).unwrap().state()
    }

    fn take_offers(&mut self) -> Vec<(AgentId, Assignment)> {
        let mut offers = Vec::new();
        self.effects.then.retain(|effect| match effect {
            Action::Offer {
                agent, assignment, ..
            } => {
                offers.push((agent.clone(), (**assignment).clone()));
                false
            }
            _ => true,
        });
        offers
    }

    fn take_commands(&mut self) -> Vec<(AgentId, AgentCommand, Option<CommandId>)> {
        let mut commands = Vec::new();
        self.effects.then.retain(|effect| match effect {
            Action::Command {
                agent,
                command,
                command_id,
                ..
            } => {
                commands.push((agent.clone(), command.clone(), *command_id));
                false
            }
            _ => true,
        });
        commands
    }

    fn take_claims(&mut self) -> Vec<(IdempotencyKey, KeyRecord, u64)> {
        let mut claims = Vec::new();
        self.effects.then.retain(|effect| match effect {
            Action::ClaimKey {
                key,
                record,
                replaces,
            } => {
                claims.push((key.clone(), (**record).clone(), *replaces));
                false
            }
            _ => true,
        });
        claims
    }
}

use JobStatus::*;

#[test]
fn a_job_goes_through_its_whole_life_in_order() {
    let mut pool = Pool::with_agent("a");
    let reply = pool.submit(submission("j")).unwrap();
    assert_eq!(
        (reply.job.status, reply.created),
        (Pending, true),
        "the client sees it as submitted"
    );
    let offers = pool.take_offers();
    assert_eq!(offers.len(), 1);
    assert_eq!(
        (offers[0].1.attempt, offers[0].1.idempotency_key.as_str()),
        (Attempt(1), "j")
    );
    assert_eq!(pool.state("a"), AgentState::Reserved);
    let reply = pool.accept("a", 1, "j");
    assert_eq!(
        reply.start,
        [JobAttempt {
            job_id: job("j"),
            attempt: Attempt(1)
        }]
    );
    pool.update("a", 1, "j", Starting);
    pool.update("a", 1, "j", Running);
    assert_eq!(pool.state("a"), AgentState::Running);
    pool.stop("j");
    let commands = pool.take_commands();
    assert!(matches!(
        &commands[0].1,
        AgentCommand::Stop {
            deadline_ms: 10_000,
            ..
        }
    ));
    pool.update("a", 1, "j", Running);
    assert_eq!(
        pool.status("j"),
        Stopping,
        "a late RUNNING is normal and ignored"
    );
    pool.ended("a", 1, "j", Stopped);
    assert_eq!(
        pool.story("j"),
        [
            Created, Pending, Assigned, Accepted, Starting, Running, Stopping, Stopped
        ]
    );
    assert_eq!(pool.state("a"), AgentState::Idle);
    pool.update("a", 1, "j", Running);
    assert_eq!(pool.status("j"), Stopped, "terminal statuses stay terminal");
}

#[test]
fn the_least_loaded_agent_then_the_least_recently_used_is_chosen() {
    let mut pool = Pool::new();
    pool.join("big", 1, json!({"slots": 4}), &[]);
    pool.join("small", 2, json!({"slots": 2}), &[]);
    let mut chosen = Vec::new();
    for id in ["1", "2", "3", "4", "5", "6", "7"] {
        pool.now = pool.now.after(Duration::from_millis(1));
        pool.submit(submission(id)).unwrap();
        chosen.extend(
            pool.take_offers()
                .into_iter()
                .map(|(agent, _)| agent.to_string()),
        );
    }
    assert_eq!(chosen, ["big", "small", "big", "small", "big", "big"]);
    assert_eq!(pool.status("7"), Pending, "no slot is given twice");
}

#[test]
fn higher_priority_first_then_older_and_no_job_is_blocked_by_one_that_cannot_be_served() {
    let mut pool = Pool::new();
    let with = |id: &str, priority: i32, tags: Value| SubmitJob {
        priority: Some(priority),
        requirements: serde_json::from_value(json!({"tags": tags})).unwrap(),
        ..submission(id)
    };
    pool.submit(with("impossible", 9, json!(["tpu"]))).unwrap();
    pool.submit(with("old", 0, json!([]))).unwrap();
    pool.submit(with("urgent", 5, json!([]))).unwrap();
    pool.join("a", 1, json!({"slots": 1}), &[]);
    assert_eq!(
        (pool.status("urgent"), pool.status("old")),
        (Assigned, Pending)
    );
    pool.accept("a", 1, "urgent");
    pool.ended("a", 1, "urgent", Stopped);
    assert_eq!(
        (pool.status("old"), pool.status("impossible")),
        (Assigned, Pending)
    );
}

#[test]
fn a_refusal_or_silence_tries_others_at_once_and_that_agent_later() {
    let mut pool = Pool::with_agent("a");
    pool.submit(submission("j")).unwrap();
    let refuse = |attempt| AgentReport::AssignAck {
        job_id: job("j"),
        attempt: Some(Attempt(attempt)),
        accepted: false,
        reason: Some("busy".to_owned()),
    };
    pool.report("a", 1, vec![refuse(1)]);
    assert_eq!(pool.status("j"), Pending);
    pool.join("b", 2, json!({}), &[]);
    assert_eq!(
        (pool.status("j"), pool.job("j").agent_id.clone()),
        (Assigned, Some(agent("b")))
    );
    pool.pass(Duration::from_secs(5));
    assert_eq!(
        pool.job("j").agent_id,
        Some(agent("a")),
        "b was silent, a's second is over"
    );
    pool.report("a", 1, vec![refuse(3)]);
    assert_eq!(pool.job("j").agent_id, None);
    pool.heartbeat("a", 1, None);
    pool.heartbeat("b", 2, None);
    pool.pass(Duration::from_millis(1_100));
    assert_eq!(
        pool.job("j").agent_id,
        Some(agent("b")),
        "a waits 2 s the second time, b only 1 s from its silence"
    );
}

#[test]
fn an_acceptance_that_is_taken_back_costs_the_job_nothing() {
    let withdraw = AgentReport::AssignAck {
        job_id: job("j"),
        attempt: Some(Attempt(1)),
        accepted: false,
        reason: Some("about to leave".to_owned()),
    };
    let mut pool = Pool::with_agent("a");
    pool.submit(submission("j")).unwrap();
    pool.accept("a", 1, "j");
    pool.join("b", 2, json!({}), &[]);
    pool.report("a", 1, vec![withdraw.clone()]);
    let job = pool.job("j");
    assert_eq!((job.status, job.restarts), (Assigned, 0));
    assert_eq!(
        job.agent_id,
        Some(agent("b")),
        "although its policy is never"
    );

    let mut pool = Pool::with_agent("a");
    pool.submit(submission("j")).unwrap();
    pool.accept("a", 1, "j");
    pool.stop("j");
    assert_eq!(pool.status("j"), Stopping);
    pool.report("a", 1, vec![withdraw.clone()]);
    assert_eq!(pool.status("j"), Stopped);

    let mut pool = Pool::with_agent("a");
    pool.run("a", 1, submission("j"));
    pool.report("a", 1, vec![withdraw.clone()]);
    assert_eq!(pool.status("j"), Running, "it was started");
    let goodbye = AgentReport::Goodbye {
        reason: "gone".to_owned(),
    };
    pool.report("a", 1, vec![goodbye, withdraw]);
    assert_eq!(
        pool.status("j"),
        Unknown,
        "and was started before it was lost"
    );
}

#[test]
fn a_stop_of_an_offered_job_is_kept_whatever_the_answer() {
    for answer in ["accepts", "refuses", "is silent"] {
        let mut pool = Pool::with_agent("a");
        pool.submit(submission("j")).unwrap();
        pool.stop("j");
        assert_eq!(pool.status("j"), Assigned);
        match answer {
            "accepts" => {
                let reply = pool.accept("a", 1, "j");
                assert!(reply.start.is_empty());
                assert_eq!(pool.status("j"), Stopping);
                assert!(matches!(
                    pool.take_commands()[0].1,
                    AgentCommand::Stop { .. }
                ));
            }
            "refuses" => {
                let ack = AgentReport::AssignAck {
                    job_id: job("j"),
                    attempt: None,
                    accepted: false,
                    reason: None,
                };
                pool.report("a", 1, vec![ack]);
                assert_eq!(pool.status("j"), Canceled);
            }
            _ => {
                pool.pass(Duration::from_secs(5));
                assert_eq!(pool.status("j"), Canceled);
            }
        }
    }
}

#[test]
fn a_stop_that_is_not_obeyed_becomes_a_kill_and_then_a_failure_that_keeps_the_slot() {
    let mut pool = Pool::with_agent("a");
    pool.run("a", 1, submission("j"));
    pool.stop("j");
    pool.take_commands();
    let alive = |pool: &mut Pool| pool.heartbeat("a", 1, Some(&[("j", 1, Stopping)]));
    pool.pass(Duration::from_secs(5));
    alive(&mut pool);
    pool.pass(Duration::from_secs(5));
    alive(&mut pool);
    assert!(matches!(
        pool.take_commands().as_slice(),
        [(_, AgentCommand::Kill { .. }, None)]
    ));
    pool.pass(Duration::from_secs(5));
    assert_eq!(
        (
            pool.status("j"),
            pool.job("j").error.clone().unwrap().code.as_str()
        ),
        (Failed, "KILL_TIMEOUT")
    );
    assert_eq!(
        pool.core.agents.get(&agent("a")).unwrap().jobs(),
        [job("j")],
        "the slot is still taken"
    );
    let kill = alive(&mut pool).kill;
    assert_eq!(
        kill,
        [JobAttempt {
            job_id: job("j"),
            attempt: Attempt(1)
        }]
    );
    pool.ended("a", 1, "j", Stopped);
    assert!(pool.core.agents.get(&agent("a")).unwrap().jobs().is_empty());
    assert_eq!(pool.status("j"), Failed);
}

#[test]
fn a_lost_agent_leaves_its_jobs_unknown_and_gets_them_back_when_it_returns() {
    let mut pool = Pool::with_agent("a");
    pool.run("a", 1, submission("j"));
    pool.pass(Duration::from_millis(10_900));
    assert_eq!(pool.status("j"), Running);
    pool.pass(Duration::from_millis(200));
    assert_eq!(
        (pool.status("j"), pool.state("a")),
        (Unknown, AgentState::Offline)
    );
    assert_eq!(
        pool.heartbeat("a", 1, None).status,
        SessionStatus::HelloRequired
    );
    pool.stop("j");
    assert_eq!(pool.status("j"), Unknown, "the stop is remembered");
    pool.take_commands();
    pool.join("a", 2, json!({}), &[("j", 1, Running)]);
    assert_eq!(pool.story("j")[5..], [Unknown, Running, Stopping]);
    assert!(matches!(
        pool.take_commands()[0].1,
        AgentCommand::Stop { .. }
    ));
}

#[test]
fn a_job_that_may_be_restarted_is_given_away_only_after_the_fence_has_fallen() {
    let mut pool = Pool::with_agent("a");
    pool.join(
        "b",
        9,
        json!({"slots": 1, "selfFence": true, "tags": ["spare"]}),
        &[],
    );
    let submit = SubmitJob {
        restart_policy: Some(RestartPolicy::OnFailure),
        ..submission("j")
    };
    pool.run("a", 1, submit);
    for _ in 0..11 {
        pool.pass(Duration::from_secs(1));
        pool.heartbeat("b", 9, Some(&[]));
    }
    assert_eq!(pool.status("j"), Unknown);
    for _ in 0..10 {
        pool.pass(Duration::from_secs(1));
        pool.heartbeat("b", 9, Some(&[]));
        assert_eq!(pool.status("j"), Unknown);
    }
    for _ in 0..3 {
        pool.pass(Duration::from_secs(1));
        pool.heartbeat("b", 9, Some(&[]));
    }
    assert_eq!(
        (pool.status("j"), pool.job("j").attempt),
        (Assigned, Attempt(2))
    );
    assert_eq!(pool.job("j").agent_id, Some(agent("b")));
    // The old agent is back and still runs the old attempt: it is commanded to kill it.
    let reply = pool.join("a", 2, json!({}), &[("j", 1, Running)]);
    assert_eq!(
        reply.kill,
        [JobAttempt {
            job_id: job("j"),
            attempt: Attempt(1)
        }]
    );
    let late = AgentReport::JobUpdate {
        job_id: job("j"),
        attempt: Some(Attempt(1)),
        status: Running,
    };
    assert_eq!(pool.report("a", 2, vec![late]).kill.len(), 1);
    assert_eq!(pool.status("j"), Assigned);
}

#[test]
fn an_agent_that_returns_without_its_job_ends_it() {
    let mut pool = Pool::with_agent("a");
    pool.run("a", 1, submission("j"));
    pool.join("a", 2, json!({}), &[]);
    assert_eq!(
        (
            pool.status("j"),
            pool.job("j").error.clone().unwrap().code.as_str()
        ),
        (Failed, "LOST")
    );
}

#[test]
fn a_lost_job_that_may_not_be_restarted_fails() {
    let mut pool = Pool::with_agent("a");
    pool.run("a", 1, submission("j"));
    let bye = AgentReport::Goodbye {
        reason: "link closed".to_owned(),
    };
    pool.report("a", 1, vec![bye]);
    assert_eq!(
        (pool.status("j"), pool.state("a")),
        (Unknown, AgentState::Offline)
    );
    pool.pass(Duration::from_secs(12));
    assert_eq!(
        (
            pool.status("j"),
            pool.job("j").error.clone().unwrap().code.as_str()
        ),
        (Failed, "AGENT_OFFLINE")
    );
}

#[test]
fn a_failure_is_tried_again_with_growing_waits_up_to_the_limit() {
    let mut pool = Pool::with_agent("a");
    let submit = SubmitJob {
        restart_policy: Some(RestartPolicy::OnFailure),
        ..submission("j")
    };
    pool.submit(submit).unwrap();
    for (restart, least_ms) in [(1, 1_000), (2, 2_000), (3, 4_000)] {
        pool.accept("a", 1, "j");
        pool.ended("a", 1, "j", Failed);
        assert_eq!(
            (pool.status("j"), pool.job("j").restarts),
            (Pending, restart)
        );
        pool.pass(Duration::from_millis(least_ms - 1));
        assert_eq!(pool.status("j"), Pending);
        pool.heartbeat("a", 1, None);
        pool.pass(Duration::from_millis(least_ms / 5 + 2));
        assert_eq!(pool.status("j"), Assigned);
    }
    pool.accept("a", 1, "j");
    pool.ended("a", 1, "j", Failed);
    assert_eq!(
        (pool.status("j"), pool.job("j").attempt),
        (Failed, Attempt(4))
    );
}

#[test]
fn a_drained_agent_gets_nothing_and_keeps_the_flag_over_reconnects_and_restarts() {
    let mut pool = Pool::with_agent("a");
    pool.run("a", 1, submission("j"));
    pool.query(|from| {
        Question::Drain(
            from,
            DrainAgent {
                id: agent("a"),
                drain: true,
            },
        )
    });
    assert_eq!(pool.state("a"), AgentState::Draining);
    pool.submit(submission("k")).unwrap();
    assert_eq!(pool.status("k"), Pending);
    pool.join("a", 2, json!({"slots": 2}), &[("j", 1, Running)]);
    assert_eq!(pool.status("k"), Pending);
    let mut pool = Pool::restored(pool.stored(), pool.now);
    pool.clocks = 100;
    assert_eq!(
        (pool.status("k"), pool.state("a")),
        (Pending, AgentState::Draining)
    );
    pool.ended("a", 2, "j", Stopped);
    assert_eq!(pool.state("a"), AgentState::Idle);
    pool.query(|from| {
        Question::Drain(
            from,
            DrainAgent {
                id: agent("a"),
                drain: false,
            },
        )
    });
    assert_eq!(
        pool.status("k"),
        Assigned,
        "undrained, it is schedulable at once"
    );
}

#[test]
fn a_new_leader_offers_and_stops_again_and_declares_no_agent_lost_before_it_has_listened() {
    let mut pool = Pool::with_agent("a");
    pool.run("a", 1, submission("running"));
    pool.submit(submission("offered")).unwrap();
    pool.stop("running");
    let mut pool = Pool::restored(pool.stored(), pool.now.after(Duration::from_secs(60)));
    pool.clocks = 100;
    assert_eq!(
        pool.take_offers()[0].1.attempt,
        Attempt(1),
        "the same attempt, which the agent takes once"
    );
    assert!(matches!(
        pool.take_commands()[0].1,
        AgentCommand::Stop { .. }
    ));
    pool.pass(Duration::from_secs(4));
    assert_eq!(
        (pool.status("running"), pool.state("a")),
        (Stopping, AgentState::Stopping)
    );
}

#[test]
fn a_former_session_is_not_listened_to() {
    let mut pool = Pool::with_agent("a");
    let late_hello = AgentReports {
        session: session(1),
        clock: 1,
        reports: vec![hello(json!({}), &[])],
    };
    pool.join("a", 2, json!({}), &[]);
    assert!(matches!(
        pool.take_commands().as_slice(),
        [(_, AgentCommand::Replaced { current }, None)] if *current == session(2)
    ));
    assert_eq!(pool.heartbeat("a", 1, None).status, SessionStatus::Replaced);
    assert_eq!(
        pool.deliver("a", late_hello).status,
        SessionStatus::Replaced
    );
    assert_eq!(pool.heartbeat("a", 2, None).status, SessionStatus::Current);
    assert_eq!(
        pool.heartbeat("stranger", 3, None).status,
        SessionStatus::HelloRequired
    );
}

#[test]
fn a_copy_of_a_message_changes_nothing_and_is_answered_like_the_first() {
    let mut pool = Pool::with_agent("a");
    let greeting = AgentReports {
        session: session(1),
        clock: 1,
        reports: vec![hello(json!({"slots": 2}), &[])],
    };
    pool.submit(submission("j")).unwrap();
    let ack = AgentReport::AssignAck {
        job_id: job("j"),
        attempt: Some(Attempt(1)),
        accepted: true,
        reason: None,
    };
    let message = AgentReports {
        session: session(1),
        clock: 50,
        reports: vec![ack],
    };
    let first = pool.deliver("a", message.clone());
    let second = pool.deliver("a", message);
    assert_eq!((first.start.len(), &first), (1, &second));
    // Without the clock this would read as "came back without the job".
    pool.deliver("a", greeting);
    assert_eq!(pool.story("j"), [Created, Pending, Assigned, Accepted]);
}

#[test]
fn an_agent_that_was_restarted_and_takes_the_old_offer_again_does_not_run_it_twice() {
    for (policy, end) in [
        (RestartPolicy::Never, Failed),
        (RestartPolicy::OnFailure, Pending),
    ] {
        for by in ["hello", "ack"] {
            let mut pool = Pool::with_agent("a");
            pool.run(
                "a",
                1,
                SubmitJob {
                    restart_policy: Some(policy),
                    ..submission("j")
                },
            );
            // A new process reads its queue before it sends hello, and the offer is still good.
            let kill = match by {
                "hello" => pool.join("a", 2, json!({}), &[("j", 1, Accepted)]),
                _ => {
                    let mut other = Pool::restored(pool.stored(), pool.now);
                    other.clocks = 100;
                    other.join("a", 2, json!({}), &[("j", 1, Running)]);
                    pool = other;
                    pool.join("a", 3, json!({}), &[("j", 1, Accepted)])
                }
            };
            assert!(kill.start.is_empty());
            assert_eq!(
                kill.kill,
                [JobAttempt {
                    job_id: job("j"),
                    attempt: Attempt(1)
                }]
            );
            assert_eq!(pool.status("j"), end);
        }
    }
    // In one session the same message again, with its answer lost, is nothing of the kind.
    let mut pool = Pool::with_agent("a");
    pool.run("a", 1, submission("j"));
    pool.accept("a", 1, "j");
    assert_eq!(pool.status("j"), Running);
}

#[test]
fn a_job_that_two_heartbeats_leave_out_is_lost() {
    let mut pool = Pool::with_agent("a");
    pool.run("a", 1, submission("j"));
    pool.heartbeat("a", 1, Some(&[]));
    assert_eq!(pool.status("j"), Running);
    pool.heartbeat("a", 1, Some(&[("j", 1, Running)]));
    pool.heartbeat("a", 1, Some(&[]));
    assert_eq!(pool.status("j"), Running);
    pool.heartbeat("a", 1, Some(&[]));
    assert_eq!(pool.status("j"), Failed);
}

#[test]
fn an_unknown_job_is_recorded() {
    let mut pool = Pool::new();
    pool.join("a", 1, json!({}), &[("theirs", 1, Running)]);
    assert_eq!(
        (
            pool.status("theirs"),
            pool.job("theirs").requested_by.as_str()
        ),
        (Running, "recovered")
    );
    assert_eq!(pool.state("a"), AgentState::Running);
}

#[test]
fn one_key_is_one_job_however_many_ask_at_once() {
    let mut pool = Pool::new();
    let keyed = |id: &str| SubmitJob {
        idempotency_key: IdempotencyKey::parse("k").ok(),
        ..submission(id)
    };
    let asking: Vec<RequestId<SubmitReply>> = ["one", "two", "three"]
        .map(|id| {
            let from = pool.request();
            let question = Question::Submit(from, Box::new(keyed(id)));
            pool.step(Event::RequestReceived {
                question,
                traceparent: None,
            });
            from
        })
        .to_vec();
    let claims = pool.take_claims();
    assert_eq!(claims.len(), 1);
    let (key, record, _) = claims.into_iter().next().unwrap();
    assert!(
        asking.iter().all(|from| pool.answer_to(*from).is_none()),
        "no request is answered before the key is ours"
    );
    pool.step(Event::KeyClaimed {
        key: key.clone(),
        outcome: Claim::Created(7),
    });
    let replies = asking
        .into_iter()
        .map(|from| match pool.answer_to(from).unwrap() {
            Answer::Submitted(reply) => (reply.job.id.to_string(), reply.created),
            other => panic!("{other:?}"),
        });
    let one = "one".to_owned();
    assert_eq!(
        replies.collect::<Vec<_>>(),
        [
            (one.clone(), true),
            (one.clone(), false),
            (one.clone(), false)
        ]
    );

    // Another leader, which never saw the job: the claim of the first brings it back.
    let mut other = Pool::new();
    let from = other.request();
    let question = Question::Submit(from, Box::new(keyed("four")));
    other.step(Event::RequestReceived {
        question,
        traceparent: None,
    });
    let outcome = Claim::Taken {
        record: Box::new(record),
        revision: 7,
        elsewhere: None,
    };
    other.step(Event::KeyClaimed { key, outcome });
    assert!(
        matches!(other.answer_to(from).unwrap(), Answer::Submitted(reply) if reply.job.id == job("one"))
    );
    assert_eq!(other.core.jobs().count(), 1);
}

#[test]
fn a_key_with_another_request_is_refused_only_when_strict() {
    let mut pool = Pool::new();
    let keyed = |id: &str, seconds: u32| SubmitJob {
        idempotency_key: IdempotencyKey::parse("k").ok(),
        inline_config: Some(object(json!({"durationMs": seconds}))),
        ..submission(id)
    };
    pool.query(|from| Question::Submit(from, Box::new(keyed("one", 1))));
    let (key, ..) = pool.take_claims().remove(0);
    pool.step(Event::KeyClaimed {
        key,
        outcome: Claim::Created(1),
    });
    assert!(!pool.submit(keyed("two", 2)).unwrap().created);
    let strict = SubmitJob {
        strict: true,
        ..keyed("three", 2)
    };
    assert_eq!(
        pool.submit(strict).unwrap_err().code,
        ErrorCode::IdempotencyMismatch
    );
    let same = SubmitJob {
        strict: true,
        requested_by: Some("someone".to_owned()),
        ..keyed("four", 1)
    };
    assert_eq!(pool.submit(same).unwrap().job.id, job("one"));
}

#[test]
fn a_batch_is_answered_in_its_order_and_one_bad_entry_harms_no_other() {
    let mut pool = Pool::with_agent("a");
    let bad = SubmitJob {
        inline_config: None,
        ..submission("bad")
    };
    let batch = SubmitBatch {
        jobs: vec![submission("1"), bad, submission("2")],
    };
    let Some(Answer::Batch(reply)) = pool.query(|from| Question::SubmitBatch(from, batch)) else {
        panic!()
    };
    let results = reply.results;
    assert_eq!(results[0].accepted.as_ref().unwrap().job.id, job("1"));
    let refused = results[1].refused.as_ref().unwrap();
    assert_eq!(
        refused.error,
        "Exactly one of templateId or inlineConfig is required"
    );
    assert_eq!(results[2].accepted.as_ref().unwrap().job.id, job("2"));
}

#[test]
fn a_job_is_not_placed_before_its_time() {
    let mut pool = Pool::with_agent("a");
    let later = pool.now.after(Duration::from_secs(5));
    let reply = pool
        .submit(SubmitJob {
            not_before: Some(later),
            ..submission("j")
        })
        .unwrap();
    assert_eq!(reply.job.status, Created);
    pool.pass(Duration::from_millis(4_999));
    assert_eq!(pool.status("j"), Created);
    pool.pass(Duration::from_millis(1));
    assert_eq!(pool.story("j"), [Created, Pending, Assigned]);
}

#[test]
fn templates_are_resolved_when_the_job_is_placed() {
    let mut pool = Pool::with_agent("a");
    let of = |id: &str, params: Value| SubmitJob {
        inline_config: None,
        template_id: serde_json::from_value(json!("t")).unwrap(),
        params: Some(object(params)),
        ..submission(id)
    };
    pool.submit(of("unknown", json!({}))).unwrap();
    assert_eq!(
        Value::Object(pool.take_offers()[0].1.config.clone()),
        json!({"templateId": "t"})
    );
    let template = json!({"id": "t", "executor": "noop", "config": {"durationMs": "{{ms}}"},
        "requirements": {"tags": ["gpu"]}});
    pool.step(Event::TemplateStored(Box::new(
        serde_json::from_value(template).unwrap(),
    )));
    let error = pool.submit(of("incomplete", json!({}))).unwrap_err();
    assert_eq!(
        (error.code, error.details["param"].as_str()),
        (ErrorCode::ValidationFailed, Some("ms"))
    );
    pool.submit(of("j", json!({"ms": 5}))).unwrap();
    assert_eq!(pool.status("j"), Pending, "the template demands a tag");
    pool.join("b", 2, json!({"tags": ["gpu"]}), &[]);
    let (to, offer) = pool.take_offers().remove(0);
    assert_eq!(
        (to, Value::Object(offer.config)),
        (agent("b"), json!({"durationMs": 5, "executor": "noop"}))
    );
}

#[test]
fn live_commands_go_to_the_agent_and_mute_follows_its_answer() {
    let mut pool = Pool::with_agent("a");
    pool.submit(submission("j")).unwrap();
    let command = |name: &'static str| {
        move |from| {
            let control = ControlJob {
                id: job("j"),
                command: name.to_owned(),
                args: JsonObject::new(),
            };
            Question::Control(from, control)
        }
    };
    let refused = |answer: Option<Answer>| match answer {
        Some(Answer::Refused(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(pool.query(command("mute"))).error,
        "Agent not available"
    );
    pool.accept("a", 1, "j");
    let error = refused(pool.query(command("dance")));
    assert_eq!(
        (error.code, &error.details["commands"]),
        (ErrorCode::UnknownCommand, &json!(["mute", "unmute"]))
    );
    let from = pool.request();
    pool.step(Event::RequestReceived {
        question: command("mute")(from),
        traceparent: None,
    });
    let command_id = pool.take_commands()[0].2.unwrap();
    pool.pass(Duration::from_secs(1));
    assert!(matches!(pool.answer_to(from), Some(Answer::Control(reply)) if reply.answer.is_none()));
    assert_eq!(pool.job("j").stream_metadata, None);
    let outcome = Ok(CommandReply {
        answer: object(json!({"success": true})),
    });
    pool.step(Event::CommandAnswered {
        command_id,
        outcome,
    });
    assert_eq!(
        pool.job("j").stream_metadata.clone().unwrap()["isMuted"],
        true
    );
    let report = AgentReport::JobMuted {
        job_id: job("j"),
        attempt: None,
        muted: false,
        success: false,
    };
    pool.report("a", 1, vec![report]);
    assert_eq!(
        pool.job("j").stream_metadata.clone().unwrap()["isMuted"],
        true
    );
}

#[test]
fn a_record_names_what_caused_the_job_and_the_trace_that_made_it() {
    let mut pool = Pool::new();
    let run = RunId::from_uuid(Uuid::from_u128(7));
    let cause = CausedBy::node(run, &NodeId::parse("each[0].step").unwrap());
    let submit = SubmitJob {
        caused_by: Some(cause.clone()),
        ..submission("j")
    };
    let from = pool.request();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    pool.step(Event::RequestReceived {
        question: Question::Submit(from, Box::new(submit)),
        traceparent: Some(format!("00-{trace}-00f067aa0ba902b7-01")),
    });
    pool.submit(submission("plain")).unwrap();
    let record = |id: &str| pool.core.job_record(&job(id), pool.now).unwrap().0;
    assert_eq!(record("j").caused_by, Some(cause));
    assert_eq!(record("j").trace_id.as_ref().unwrap().as_str(), trace);
    assert_eq!(
        (&record("plain").caused_by, &record("plain").trace_id),
        (&None, &None)
    );
}

#[test]
fn metadata_is_merged_checked_and_bounded() {
    let mut pool = Pool::new();
    pool.submit(submission("j")).unwrap();
    let mut patch = |metadata: Value| {
        pool.query(|from| {
            Question::Metadata(
                from,
                PatchMetadata {
                    id: job("j"),
                    metadata: object(metadata),
                },
            )
        })
        .unwrap()
    };
    assert!(matches!(
        patch(json!({"title": "a", "mood": [1]})),
        Answer::Metadata(_)
    ));
    assert!(
        matches!(patch(json!({"viewers": "many"})), Answer::Refused(error) if error.code == ErrorCode::ValidationFailed)
    );
    let large = "x".repeat(70_000);
    assert!(
        matches!(patch(json!({"note": large})), Answer::Refused(error) if error.code == ErrorCode::PayloadTooLarge)
    );
    let Answer::Metadata(reply) = patch(json!({"title": null})) else {
        panic!()
    };
    assert_eq!(Value::Object(reply.metadata), json!({"mood": [1]}));
}

#[test]
fn an_explanation_names_the_gate_that_is_nearest_to_opening() {
    let mut pool = Pool::new();
    let wants = |tag: &str| SubmitJob {
        requirements: serde_json::from_value(json!({"tags": [tag]})).unwrap(),
        ..submission("j")
    };
    pool.submit(wants("gpu")).unwrap();
    let gate = |pool: &mut Pool| match pool
        .query(|from| Question::Explain(from, JobRef { id: job("j") }))
        .unwrap()
    {
        Answer::Explanation(explanation) => (explanation.gate, explanation.agents),
        other => panic!("{other:?}"),
    };
    assert_eq!(gate(&mut pool).0, Gate::NoAgentOnline);
    pool.join("plain", 1, json!({}), &[]);
    let (at, agents) = gate(&mut pool);
    assert_eq!(
        (at, agents[0].reason.as_str()),
        (Gate::RequirementNotMet, "tag gpu required")
    );
    pool.join(
        "busy",
        2,
        json!({"tags": ["gpu"]}),
        &[("other", 1, Running)],
    );
    assert_eq!(gate(&mut pool).0, Gate::NoFreeSlot);
    pool.query(|from| {
        Question::Drain(
            from,
            DrainAgent {
                id: agent("busy"),
                drain: true,
            },
        )
    });
    assert_eq!(gate(&mut pool).0, Gate::Draining);
    let error = AgentReport::AgentError {
        code: "DISK".to_owned(),
        message: "disk full".to_owned(),
    };
    pool.report("busy", 2, vec![error]);
    assert_eq!(gate(&mut pool).0, Gate::AgentError);
    assert_eq!(pool.state("busy"), AgentState::Error);
}

#[test]
fn lists_are_paged_in_the_order_of_creation() {
    let mut pool = Pool::new();
    for index in 0..7 {
        pool.now = pool.now.after(Duration::from_millis(index % 2));
        pool.submit(submission(&format!("j{index}"))).unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let list = ListJobs {
            limit: Some(3),
            after: after.take(),
            ..ListJobs::default()
        };
        let Some(Answer::Jobs(page)) = pool.query(|from| Question::List(from, list)) else {
            panic!()
        };
        seen.extend(page.jobs.iter().map(|job| job.id.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["j0", "j1", "j2", "j3", "j4", "j5", "j6"]);
}

#[test]
fn only_an_offline_agent_can_be_forgotten() {
    let mut pool = Pool::with_agent("a");
    let forget = || |from| Question::Forget(from, AgentRef { id: agent("a") });
    assert!(
        matches!(pool.query(forget()), Some(Answer::Refused(error)) if error.code == ErrorCode::AgentOnline)
    );
    pool.pass(Duration::from_secs(12));
    assert!(matches!(pool.query(forget()), Some(Answer::Done(_))));
    let Some(Answer::Agents(page)) =
        pool.query(|from| Question::ListAgents(from, ListAgents::default()))
    else {
        panic!()
    };
    assert!(page.agents.is_empty());
}

#[test]
fn an_ended_job_is_forgotten_when_its_time_is_over() {
    let mut pool = Pool::new();
    pool.submit(submission("j")).unwrap();
    pool.stop("j");
    let ttl = pool.core.job_record(&job("j"), pool.now).unwrap().1;
    assert_eq!(ttl, Some(Duration::from_secs(3600)));
    pool.pass(Duration::from_secs(3600));
    assert_eq!(pool.core.jobs().count(), 0);
}

#[derive(Clone, Debug)]
enum Operation {
    Submit(u8, bool),
    Stop(u8),
    Accept(u8, u8),
    Refuse(u8, u8),
    Update(u8, u8, JobStatus),
    Join(u8, u8),
    Leave(u8),
    Drain(u8, bool),
    Pass(u16),
    Restart,
}

fn operations() -> impl Strategy<Value = Operation> {
    let status = prop::sample::select(vec![Starting, Running, Stopping, Stopped, Failed]);
    prop_oneof![
        3 => (0..6_u8, any::<bool>()).prop_map(|(job, again)| Operation::Submit(job, again)),
        1 => (0..6_u8).prop_map(Operation::Stop),
        4 => (0..2_u8, 0..6_u8).prop_map(|(agent, job)| Operation::Accept(agent, job)),
        1 => (0..2_u8, 0..6_u8).prop_map(|(agent, job)| Operation::Refuse(agent, job)),
        4 => (0..2_u8, 0..6_u8, status).prop_map(|(agent, job, status)| Operation::Update(agent, job, status)),
        2 => (0..2_u8, 0..3_u8).prop_map(|(agent, session)| Operation::Join(agent, session)),
        1 => (0..2_u8).prop_map(Operation::Leave),
        1 => (0..2_u8, any::<bool>()).prop_map(|(agent, drain)| Operation::Drain(agent, drain)),
        2 => (0..12_000_u16).prop_map(Operation::Pass),
        1 => Just(Operation::Restart),
    ]
}

impl Pool {
    fn play(&mut self, step: Operation, sessions: &mut [u128; 2]) {
        let name = |agent: u8| if agent == 0 { "a" } else { "b" };
        let report = |id: u8| job(&id.to_string());
        match step {
            Operation::Submit(id, again) => {
                let policy = if again {
                    RestartPolicy::OnFailure
                } else {
                    RestartPolicy::Never
                };
                // Not every agent can serve every job.
                let tags: &[&str] = if id < 3 { &[] } else { &["gpu"] };
                let requirements = serde_json::from_value(json!({"tags": tags})).unwrap();
                let submit = SubmitJob {
                    restart_policy: Some(policy),
                    requirements: Some(requirements),
                    ..submission(&id.to_string())
                };
                self.query(|from| Question::Submit(from, Box::new(submit)));
            }
            Operation::Stop(id) => self.stop(&id.to_string()),
            Operation::Accept(agent, id) | Operation::Refuse(agent, id) => {
                let accepted = matches!(step, Operation::Accept(..));
                let ack = AgentReport::AssignAck {
                    job_id: report(id),
                    attempt: None,
                    accepted,
                    reason: None,
                };
                self.report(name(agent), sessions[usize::from(agent)], vec![ack]);
            }
            Operation::Update(agent, id, status) => {
                let news = AgentReport::JobUpdate {
                    job_id: report(id),
                    attempt: None,
                    status,
                };
                self.report(name(agent), sessions[usize::from(agent)], vec![news]);
            }
            Operation::Join(agent, number) => {
                let session =
                    u128::from(agent) * 1000 + u128::from(number) + u128::from(self.clocks) + 1;
                sessions[usize::from(agent)] = session;
                let tags: &[&str] = if number == 0 { &[] } else { &["gpu"] };
                self.join(name(agent), session, json!({"slots": 2, "tags": tags}), &[]);
            }
            Operation::Leave(agent) => {
                let bye = AgentReport::Goodbye {
                    reason: "test".to_owned(),
                };
                self.report(name(agent), sessions[usize::from(agent)], vec![bye]);
            }
            Operation::Drain(id, drain) => {
                self.query(|from| {
                    Question::Drain(
                        from,
                        DrainAgent {
                            id: agent(name(id)),
                            drain,
                        },
                    )
                });
            }
            Operation::Pass(millis) => self.pass(Duration::from_millis(u64::from(millis))),
            Operation::Restart => {
                let (clocks, requests) = (self.clocks, self.requests);
                *self = Self {
                    clocks,
                    requests,
                    ..Self::restored(self.stored(), self.now)
                };
            }
        }
    }

    /// What must hold after every step.
    fn check(&self) {
        for record in self.core.jobs() {
            let timeline = &record.job.timeline;
            for pair in timeline.windows(2) {
                assert!(
                    life::may_follow(pair[0].status, pair[1].status),
                    "{:?}",
                    record.job
                );
                assert!(pair[0].at <= pair[1].at);
            }
            assert_eq!(timeline.last().unwrap().status, record.job.status);
            let waits = !record.job.status.is_final();
            let reminded = self.core.due(&record.job.id).is_some();
            let held = matches!(record.job.status, Accepted | Starting | Running);
            let queued = self.core.queue.ids().any(|id| *id == record.job.id);
            assert!(
                !waits || reminded || held || queued,
                "nothing will ever wake {:?}",
                record.job
            );
        }
        for id in self.core.queue.ids() {
            let record = &self.core.jobs[id];
            let demand = self.core.demand(&record.job);
            let served = self
                .core
                .choose_for(&demand, &record.private.refusals, self.now);
            assert_eq!(served, None, "{id} waits although it could be served");
        }
        for (id, entry) in self.core.agents.iter() {
            // What an agent brought along takes slots too, but was never placed.
            let recovered = |job: &&JobId| self.core.jobs[*job].job.requested_by == "recovered";
            let placed = entry.jobs().iter().filter(|job| !recovered(job)).count();
            assert!(placed <= 2, "{id} has more jobs than slots");
            for held in entry.jobs() {
                let record = &self.core.jobs[held];
                assert_eq!(record.job.agent_id.as_ref(), Some(id));
                assert!(record.job.status.holds_agent() || record.private.holds_slot);
            }
        }
    }
}

/// The store rejects the record of a job, for which this waited.
fn reject(pool: &mut Pool, name: &str, withheld: Vec<Action>, unstored: Vec<JobId>) {
    let reply = ErrorReply::new(ErrorCode::PayloadTooLarge, "the record is too large");
    let rejection = Rejection {
        keys: vec![Record::Job(job(name))],
        withheld,
        reply,
    };
    pool.step(Event::WriteRejected {
        rejection,
        unstored,
    });
}

#[test]
fn a_job_whose_first_record_is_rejected_is_refused_and_forgotten_and_nothing_else_is() {
    let mut pool = Pool::with_agent("a");
    pool.run("a", 1, submission("runs"));
    pool.effects = Effects::default();
    let from = pool.request();
    pool.step(Event::RequestReceived {
        question: Question::Submit(from, Box::new(submission("large"))),
        traceparent: None,
    });
    let withheld = std::mem::take(&mut pool.effects.then);
    reject(&mut pool, "large", withheld, vec![job("large")]);
    let answer = pool.answer_to(from);
    assert!(
        matches!(&answer, Some(Answer::Refused(reply)) if reply.code == ErrorCode::PayloadTooLarge),
        "{answer:?}"
    );
    assert!(pool.take_offers().is_empty());
    assert!(pool.core.job(&job("large")).is_none());
    assert_eq!(pool.status("runs"), Running);
    // Its slot is free.
    pool.submit(submission("next")).unwrap();
    assert_eq!(pool.take_offers().len(), 1);
}

#[test]
fn a_running_job_whose_record_is_rejected_fails_with_one_sentence_and_is_killed() {
    let mut pool = Pool::with_agent("a");
    pool.run("a", 1, submission("j"));
    pool.effects = Effects::default();
    reject(&mut pool, "j", Vec::new(), Vec::new());
    assert_eq!(pool.status("j"), Failed);
    let error = pool.job("j").error.clone().unwrap();
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("NOT_STORED", "the record is too large")
    );
    assert!(pool.effects.writes.contains(&Write::Job(job("j"))));
    assert!(matches!(
        &pool.take_commands()[..],
        [(_, AgentCommand::Kill { .. }, None)]
    ));
    // Rejected once more, nothing about it is written.
    pool.effects = Effects::default();
    reject(&mut pool, "j", Vec::new(), Vec::new());
    assert!(!pool.effects.writes.contains(&Write::Job(job("j"))));
    // Its slot is free when the agent has confirmed.
    pool.ended("a", 1, "j", Failed);
    assert!(pool.core.agents.get(&agent("a")).unwrap().jobs().is_empty());
}

#[test]
fn of_a_batch_the_rejected_job_alone_is_refused() {
    let mut pool = Pool::with_agent("a");
    pool.effects = Effects::default();
    let from = pool.request();
    pool.step(Event::RequestReceived {
        question: Question::SubmitBatch(
            from,
            SubmitBatch {
                jobs: vec![submission("small"), submission("large")],
            },
        ),
        traceparent: None,
    });
    let withheld = std::mem::take(&mut pool.effects.then);
    reject(&mut pool, "large", withheld, vec![job("large")]);
    let Some(Answer::Batch(reply)) = pool.answer_to(from) else {
        panic!("a batch is answered");
    };
    let accepted: Vec<bool> = reply
        .results
        .iter()
        .map(|entry| entry.accepted.is_some() && entry.refused.is_none())
        .collect();
    assert_eq!(accepted, [true, false]);
    let offers = pool.take_offers();
    assert_eq!(offers.len(), 1);
    assert_eq!(offers[0].1.job_id, job("small"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_events_breaks_the_rules(steps in prop::collection::vec(operations(), 1..80)) {
        let mut pool = Pool::new();
        let mut sessions = [1, 1001];
        pool.join("a", 1, json!({"slots": 2}), &[]);
        pool.join("b", 1001, json!({"slots": 2}), &[]);
        for step in steps {
            pool.play(step, &mut sessions);
            pool.check();
            // Settled is settled: looking again finds nothing to do.
            let again = pool.core.reconcile(pool.now);
            prop_assert!(again.is_empty(), "{:?}", again);
        }
    }
}
