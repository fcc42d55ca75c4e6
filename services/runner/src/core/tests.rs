//! Scenarios of the core: a run is created, workers report, time passes.

use quintet_contract::cause::CausedBy;
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::{CheckpointId, NodeId, RunId, WorkerId};
use quintet_contract::job::Attempt;
use quintet_contract::run::{NodeStatus, RunMode, RunRecord, RunStatus};
use quintet_contract::run_api::{AddCheckpoint, CompleteRun, CreateRun, DecideGate, Decision};
use quintet_contract::subject::Prefix;
use quintet_contract::task::{RunReport, Task, Verdict, WorkerEvent};
use quintet_contract::time::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use quintet_leader::Core as _;

use super::*;

/// A core with a store that confirms every write at once.
struct Scenario {
    core: Core,
    now: Timestamp,
    run: RunId,
    record: Option<RunRecord>,
    log: Vec<(u64, LogEntry)>,
    sequence: u64,
    tasks: Vec<Task>,
    cancels: Vec<NodeId>,
    answers: BTreeMap<u64, Answer>,
    requests: u64,
    seqs: HashMap<(NodeId, Attempt), u64>,
    /// Most bytes of a message, as JSON.
    limit: usize,
}

fn config() -> CoreConfig {
    CoreConfig {
        prefix: Prefix::default(),
        task_ack_wait: Duration::from_secs(10),
        run_retention: Duration::from_secs(3600),
        has_kubernetes: false,
    }
}

impl Scenario {
    fn new(plan: Option<Value>) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let (core, _) = Core::restore(config(), Vec::new(), now);
        let mut scenario = Self {
            core,
            now,
            run: RunId::from_uuid(Uuid::now_v7()),
            record: None,
            log: Vec::new(),
            sequence: 0,
            tasks: Vec::new(),
            cancels: Vec::new(),
            answers: BTreeMap::new(),
            requests: 0,
            seqs: HashMap::new(),
            limit: usize::MAX,
        };
        let create = CreateRun {
            run_id: scenario.run,
            mode: RunMode::Queue,
            plan,
            inputs: json!({"n": 2, "files": ["x", "y"]}).as_object().cloned(),
            name: None,
            metadata: None,
            owner: None,
            retry_of: None,
            finished: BTreeMap::new(),
        };
        scenario.request(|id| Event::Create(id, Box::new(create), None));
        scenario
    }

    fn request<R>(&mut self, event: impl FnOnce(RequestId<R>) -> Event) -> Option<Answer> {
        self.requests += 1;
        let id = RequestId::new(self.requests);
        let effects = self.core.step(event(id), self.now);
        self.act(effects);
        self.reconcile();
        self.answers.get(&id.number()).cloned()
    }

    fn reconcile(&mut self) {
        loop {
            let effects = self.core.reconcile(self.now);
            if effects.is_empty() {
                break;
            }
            self.act(effects);
        }
        // Lazy entries are written a moment later.
        self.now = self.now.after(Duration::from_millis(21));
        let effects = self.core.reconcile(self.now);
        self.act(effects);
    }

    fn act(&mut self, effects: Effects) {
        for RunWrite(run, write) in effects.writes {
            if bytes_of_write(&write) > self.limit {
                let reply = ErrorReply::new(ErrorCode::PayloadTooLarge, "it is too large");
                let rejection = Rejection {
                    keys: vec![run],
                    withheld: Vec::new(),
                    reply,
                };
                let more = self.core.step(Event::WriteRejected(rejection), self.now);
                self.act(more);
                continue;
            }
            match write {
                Write::Append(events) => {
                    self.sequence += 1;
                    let entries = events.entries.into_iter();
                    self.log.extend(entries.map(|entry| (self.sequence, entry)));
                }
                Write::Create(record) | Write::Snapshot(record) | Write::End(record) => {
                    self.record = Some(*record);
                }
            }
            let more = self.core.step(Event::Written(run, self.sequence), self.now);
            self.act(more);
        }
        for action in effects.then {
            match action {
                Action::Dispatch(_, task) => self.tasks.push(*task),
                Action::Cancel(_, _, node, _) => self.cancels.push(node),
                Action::Reply(reply) => {
                    let (id, answer) = reply.into_parts();
                    self.answers.insert(id, answer);
                }
                Action::ReplyWithResume(id, verdicts, _) => {
                    let answer = RunReportsReply { verdicts }.into();
                    self.answers.insert(id.number(), answer);
                }
                Action::VerifyEnqueued(..)
                | Action::Execute(_)
                | Action::Stop(..)
                | Action::Read(..)
                | Action::List(..)
                | Action::Forget(_) => {}
            }
        }
    }

    /// The process dies, and another one continues with what is stored.
    fn restart(&mut self) {
        let stored = StoredRun {
            record: self.record.clone().unwrap(),
            log: self.log.clone(),
        };
        self.tasks.clear();
        let (core, effects) = Core::restore(config(), vec![stored], self.now);
        self.core = core;
        self.act(effects);
        self.reconcile();
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.reconcile();
    }

    fn report(
        &mut self,
        (worker, node): (&str, &str),
        attempt: u32,
        seq: u64,
        event: WorkerEvent,
    ) -> Verdict {
        let report = RunReport {
            run_id: self.run,
            node_id: NodeId::parse(node).unwrap(),
            worker: WorkerId::parse(worker).unwrap(),
            attempt: Attempt(attempt),
            seq,
            event,
        };
        let id = CheckpointId::from_uuid(Uuid::now_v7());
        match self.request(|request| Event::Reported(request, vec![(report, id)])) {
            Some(Answer::Reports(mut reply)) => reply.verdicts.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn take(&mut self, worker: &str, node: &str, delivered: u32) -> Verdict {
        self.report(
            (worker, node),
            0,
            0,
            WorkerEvent::Take {
                delivered,
                sequence: 7,
            },
        )
    }

    /// Takes a node, and reports its end.
    fn do_it(&mut self, node: &str, event: WorkerEvent) {
        let Verdict::Granted { attempt, .. } = self.take("w", node, 1) else {
            panic!("{node} was not granted");
        };
        let key = (NodeId::parse(node).unwrap(), attempt);
        let seq = self.seqs.entry(key).or_default();
        *seq += 1;
        let seq = *seq;
        assert_eq!(self.report(("w", node), attempt.0, seq, event), Verdict::Ok);
    }

    fn succeed(&mut self, node: &str, output: Value) {
        let output = output.as_object().cloned();
        self.do_it(node, WorkerEvent::Succeeded { output });
    }

    fn fail(&mut self, node: &str, retryable: bool) {
        let error = "broken".to_owned();
        self.do_it(node, WorkerEvent::Failed { error, retryable });
    }

    fn status(&self) -> RunStatus {
        self.record_now().run.status
    }

    /// The run as restored from its record and its log.
    fn record_now(&self) -> RunRecord {
        let record = self.record.clone().unwrap();
        let mut active = Active::restore(record);
        for (sequence, entry) in &self.log {
            active.replay(entry, *sequence);
        }
        RunRecord {
            run: active.shown(),
            private: Default::default(),
            caused_by: None,
            trace_id: None,
        }
    }

    fn node(&self, id: &str) -> NodeStatus {
        self.record_now().run.nodes.unwrap()[id].status
    }
}

fn bytes_of_write(write: &Write) -> usize {
    let json = match write {
        Write::Append(events) => serde_json::to_vec(events),
        Write::Create(record) | Write::Snapshot(record) | Write::End(record) => {
            serde_json::to_vec(record)
        }
    };
    json.unwrap().len()
}

fn task(id: &str, needs: &[&str]) -> Value {
    json!({"id": id, "kind": "task", "queue": "q", "needs": needs})
}

#[test]
fn a_chain_is_worked_off_one_node_after_the_other() {
    let mut scenario = Scenario::new(Some(json!({"nodes": [task("a", &[]), {
        "id": "b", "kind": "task", "queue": "q", "needs": ["a"], "input": {"from": "{{nodes.a.output.x}}", "n": "{{inputs.n}}"}
    }]})));
    assert_eq!(scenario.tasks.len(), 1);
    scenario.succeed("a", json!({"x": [1]}));
    assert_eq!(scenario.tasks[1].input, Some(json!({"from": [1], "n": 2})));
    assert_eq!(scenario.tasks[1].context["a"]["x"], json!([1]));
    scenario.succeed("b", json!({}));
    assert_eq!(scenario.status(), RunStatus::Completed);
    let numbers: Vec<u64> = scenario.log.iter().map(|(_, entry)| entry.n).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn what_is_stored_is_enough_to_go_on_at_every_step() {
    let mut scenario = Scenario::new(Some(
        json!({"nodes": [task("a", &[]), task("b", &["a"]), task("c", &["b"])]}),
    ));
    for node in ["a", "b", "c"] {
        scenario.restart();
        assert_eq!(scenario.tasks.len(), 1, "{node} is dispatched again");
        assert_eq!(scenario.tasks[0].node_id.as_str(), node);
        scenario.succeed(node, json!({}));
    }
    assert_eq!(scenario.status(), RunStatus::Completed);
}

#[test]
fn a_task_that_comes_again_is_the_next_attempt_and_begins_where_the_last_one_was() {
    let mut scenario = Scenario::new(Some(json!({"nodes": [task("a", &[])]})));
    let granted = scenario.take("w1", "a", 1);
    assert!(matches!(
        granted,
        Verdict::Granted {
            attempt: Attempt(1),
            resume_state: None,
            ..
        }
    ));
    // The answer was lost.
    assert_eq!(scenario.take("w1", "a", 1), granted);
    let checkpoint = |data| WorkerEvent::Checkpoint {
        name: None,
        data: Some(data),
    };
    assert_eq!(
        scenario.report(("w1", "a"), 1, 1, checkpoint(json!({"at": 5}))),
        Verdict::Ok
    );
    assert_eq!(
        scenario.report(("w1", "a"), 1, 1, checkpoint(json!({"at": 5}))),
        Verdict::Ok
    );
    let checkpoints = |scenario: &Scenario| {
        let is_checkpoint = |(_, entry): &&(u64, LogEntry)| {
            matches!(
                entry.fact,
                quintet_contract::run::RunEvent::Checkpoint { .. }
            )
        };
        scenario.log.iter().filter(is_checkpoint).count()
    };
    assert_eq!(
        checkpoints(&scenario),
        1,
        "a report that comes twice counts once"
    );
    // A copy of the task takes nothing from the worker that has it.
    assert!(matches!(scenario.take("w2", "a", 1), Verdict::Gone { .. }));
    scenario.wait(Duration::from_secs(11));
    let Verdict::Granted {
        attempt,
        resume_state,
        ..
    } = scenario.take("w2", "a", 2)
    else {
        panic!("it was delivered again");
    };
    assert_eq!(
        (attempt, resume_state),
        (Attempt(2), Some(json!({"at": 5})))
    );
    assert_eq!(
        scenario.cancels.len(),
        1,
        "the worker that had it is commanded"
    );
    assert!(matches!(
        scenario.report(("w1", "a"), 1, 2, checkpoint(json!({}))),
        Verdict::Gone { .. }
    ));
    assert_eq!(
        scenario.report(("w2", "a"), 2, 1, WorkerEvent::Succeeded { output: None }),
        Verdict::Ok
    );
    assert_eq!(scenario.status(), RunStatus::Completed);
}

#[test]
fn a_grant_that_was_not_stored_is_learnt_from_its_first_report() {
    let mut scenario = Scenario::new(Some(json!({"nodes": [task("a", &[])]})));
    let report = RunReport {
        run_id: scenario.run,
        node_id: NodeId::parse("a").unwrap(),
        worker: WorkerId::parse("w").unwrap(),
        attempt: Attempt(0),
        seq: 0,
        event: WorkerEvent::Take {
            delivered: 1,
            sequence: 7,
        },
    };
    // The process dies before anything of it is written. An older one would have granted it.
    let id = CheckpointId::from_uuid(Uuid::nil());
    let effects = scenario.core.step(
        Event::Reported(RequestId::new(99), vec![(report, id)]),
        scenario.now,
    );
    assert!(
        effects.is_empty(),
        "nothing is granted before it is stored: {effects:?}"
    );
    scenario.restart();
    assert_eq!(scenario.node("a"), NodeStatus::Queued);
    assert_eq!(
        scenario.report(("w", "a"), 1, 1, WorkerEvent::Succeeded { output: None }),
        Verdict::Ok
    );
    assert_eq!(scenario.status(), RunStatus::Completed);
}

#[test]
fn a_failed_node_is_tried_again_after_its_backoff_without_a_worker() {
    let mut scenario = Scenario::new(Some(json!({"nodes": [
        {"id": "a", "kind": "task", "queue": "q", "retry": {"max": 2, "backoffMs": 1000, "kind": "exponential"}}
    ]})));
    scenario.fail("a", true);
    assert_eq!(scenario.node("a"), NodeStatus::Waiting);
    scenario.wait(Duration::from_millis(900));
    assert_eq!(scenario.tasks.len(), 1);
    scenario.wait(Duration::from_millis(200));
    assert_eq!(scenario.tasks.len(), 2);
    scenario.fail("a", true);
    scenario.wait(Duration::from_millis(1500));
    assert_eq!(scenario.tasks.len(), 2, "the second wait is twice as long");
    scenario.restart();
    scenario.wait(Duration::from_millis(600));
    scenario.fail("a", true);
    assert_eq!(scenario.status(), RunStatus::Failed);
    assert!(scenario.record_now().run.error.unwrap().contains("broken"));
}

#[test]
fn a_failure_stops_the_run_or_lets_the_independent_rest_finish() {
    for (on_failure, rest) in [
        ("stop", NodeStatus::Canceled),
        ("continue", NodeStatus::Succeeded),
    ] {
        let mut scenario = Scenario::new(Some(json!({"onFailure": on_failure, "nodes": [
            task("a", &[]), task("after", &["a"]), task("other", &[]), task("last", &["other"])
        ]})));
        scenario.take("w2", "other", 1);
        scenario.fail("a", false);
        if on_failure == "continue" {
            assert_eq!(scenario.status(), RunStatus::Running);
            scenario.report(
                ("w2", "other"),
                1,
                1,
                WorkerEvent::Succeeded { output: None },
            );
            scenario.succeed("last", json!({}));
            assert_eq!(scenario.node("after"), NodeStatus::Skipped);
        } else {
            assert_eq!(scenario.cancels.len(), 1);
        }
        assert_eq!(scenario.node("other"), rest);
        assert_eq!(scenario.status(), RunStatus::Failed);
    }
}

#[test]
fn a_condition_skips_one_branch_and_the_join_still_runs() {
    let mut scenario = Scenario::new(Some(json!({"nodes": [
        {"id": "big", "kind": "condition", "when": "inputs.n > 1", "then": ["yes"], "else": ["no"]},
        task("yes", &["big"]), task("no", &["big"]), task("after_no", &["no"]), task("join", &["yes", "after_no"])
    ]})));
    assert_eq!(scenario.node("no"), NodeStatus::Skipped);
    assert_eq!(scenario.node("after_no"), NodeStatus::Skipped);
    scenario.succeed("yes", json!({}));
    scenario.succeed("join", json!({}));
    assert_eq!(scenario.status(), RunStatus::Completed);
}

#[test]
fn a_foreach_does_its_body_for_every_item_and_keeps_its_limit() {
    let mut scenario = Scenario::new(Some(json!({"nodes": [
        {"id": "each", "kind": "foreach", "items": "{{inputs.files}}", "maxParallel": 1, "nodes": [
            {"id": "step", "kind": "task", "queue": "q", "input": "{{index}}:{{item}}"},
            {"id": "check", "kind": "task", "queue": "q", "needs": ["step"], "input": "{{nodes.step.output.o}}"}
        ]},
        {"id": "join", "kind": "task", "queue": "q", "needs": ["each"], "input": "{{nodes.each.output.items[1].step.o}}"}
    ]})));
    assert_eq!(scenario.tasks.len(), 1);
    assert_eq!(scenario.tasks[0].input, Some(json!("0:x")));
    scenario.succeed("each[0].step", json!({"o": "0"}));
    scenario.restart();
    assert_eq!(scenario.tasks[0].node_id.as_str(), "each[0].check");
    scenario.succeed("each[0].check", json!({}));
    assert_eq!(scenario.tasks[1].input, Some(json!("1:y")));
    scenario.succeed("each[1].step", json!({"o": "one"}));
    scenario.succeed("each[1].check", json!({}));
    assert_eq!(scenario.tasks.last().unwrap().input, Some(json!("one")));
    scenario.succeed("join", json!({}));
    assert_eq!(scenario.status(), RunStatus::Completed);
}

#[test]
fn a_run_that_waits_is_kept_as_it_is_stored_and_goes_on_from_there() {
    let plan = json!({"nodes": [
        {"id": "gate", "kind": "gate"}, {"id": "after", "kind": "task", "queue": "q", "needs": ["gate"]},
    ]});
    let mut scenario = Scenario::new(Some(plan));
    let run = scenario.run;
    assert_eq!(scenario.core.runs.passivated(), 1);
    let Some(Answer::Run(shown)) = scenario.request(|id| Event::Get(id, run)) else {
        panic!("there is no such run");
    };
    assert_eq!(shown.run, scenario.record.clone().unwrap().run);
    assert_eq!(scenario.core.runs.passivated(), 1, "a read loads no run");
    let decide = DecideGate {
        run_id: run,
        node_id: NodeId::parse("gate").unwrap(),
        decision: Decision::Approve,
        by: None,
        actor: None,
    };
    scenario.request(|id| Event::Decide(id, decide));
    assert_eq!(scenario.core.runs.passivated(), 0);
    assert_eq!(scenario.tasks.len(), 1);
    let numbers: Vec<u64> = scenario.log.iter().map(|(_, entry)| entry.n).collect();
    let all: Vec<u64> = (1..).take(numbers.len()).collect();
    assert_eq!(numbers, all, "no entry is numbered twice");
}

#[test]
fn gates_wait_for_a_decision_or_their_timeout_and_sleeps_for_their_moment() {
    let plan = json!({"nodes": [
        {"id": "gate", "kind": "gate"},
        {"id": "late", "kind": "gate", "timeoutMs": 5000, "onTimeout": "approve"},
        {"id": "sleep", "kind": "sleep", "for": "1h", "needs": ["gate"]}
    ]});
    let mut scenario = Scenario::new(Some(plan));
    let decide = |decision, run| {
        move |id| {
            Event::Decide(
                id,
                DecideGate {
                    run_id: run,
                    node_id: NodeId::parse("gate").unwrap(),
                    decision,
                    by: Some("eve".to_owned()),
                    actor: None,
                },
            )
        }
    };
    let run = scenario.run;
    assert!(matches!(
        scenario.request(decide(Decision::Approve, run)),
        Some(Answer::Run(_))
    ));
    assert!(
        matches!(
            scenario.request(decide(Decision::Approve, run)),
            Some(Answer::Refused(_))
        ),
        "it waits no more"
    );
    scenario.wait(Duration::from_secs(6));
    assert_eq!(scenario.node("late"), NodeStatus::Succeeded);
    scenario.restart();
    scenario.wait(Duration::from_secs(3500));
    assert_eq!(scenario.node("sleep"), NodeStatus::Waiting);
    scenario.wait(Duration::from_secs(100));
    assert_eq!(scenario.status(), RunStatus::Completed);
    assert!(scenario.tasks.is_empty(), "no task was dispatched");

    let mut scenario = Scenario::new(Some(json!({"nodes": [{"id": "gate", "kind": "gate"}]})));
    let run = scenario.run;
    scenario.request(decide(Decision::Reject, run));
    assert_eq!(scenario.status(), RunStatus::Failed);
}

#[test]
fn a_decision_names_the_key_that_made_it_and_whom_the_client_claims() {
    let plan = json!({"nodes": [{"id": "gate", "kind": "gate"}]});
    let decide = |run, decision, by: &str, actor: &str| DecideGate {
        run_id: run,
        node_id: NodeId::parse("gate").unwrap(),
        decision,
        by: Some(by.to_owned()),
        actor: Some(actor.to_owned()),
    };
    let mut scenario = Scenario::new(Some(plan.clone()));
    let run = scenario.run;
    for (by, actor) in [
        ("x".repeat(129), "ada".to_owned()),
        ("oz".to_owned(), "x".repeat(129)),
    ] {
        let long = decide(run, Decision::Approve, &by, &actor);
        let answer = scenario.request(|id| Event::Decide(id, long));
        let Some(Answer::Refused(refusal)) = answer else {
            panic!("a name of any length is taken")
        };
        assert_eq!(refusal.code, ErrorCode::ValidationFailed);
    }
    let approve = decide(run, Decision::Approve, "oz", "ada");
    scenario.request(|id| Event::Decide(id, approve));
    let output = |scenario: &Scenario| {
        let nodes = scenario.record.as_ref().unwrap().run.nodes.clone().unwrap();
        let node = nodes[&NodeId::parse("gate").unwrap()].clone();
        (serde_json::to_value(node.output).unwrap(), node.error)
    };
    let approved = json!({"decision": "approve", "by": "oz", "actor": "ada"});
    assert_eq!(output(&scenario), (approved, None));
    let mut scenario = Scenario::new(Some(plan));
    let reject = decide(scenario.run, Decision::Reject, "oz", "ada");
    scenario.request(|id| Event::Decide(id, reject));
    let (_, error) = output(&scenario);
    assert_eq!(error.as_deref(), Some("rejected by oz for ada"));
}

#[test]
fn an_attempt_that_takes_too_long_or_sends_no_heartbeat_has_failed() {
    for limits in [
        json!({"timeoutMs": 2000}),
        json!({"heartbeatTimeoutMs": 2000}),
    ] {
        let mut node = task("a", &[]);
        node.as_object_mut()
            .unwrap()
            .extend(limits.as_object().cloned().unwrap());
        node["retry"] = json!({"max": 1, "backoffMs": 0});
        let mut scenario = Scenario::new(Some(json!({"nodes": [node]})));
        scenario.take("w", "a", 1);
        scenario.wait(Duration::from_millis(2100));
        assert_eq!(scenario.cancels.len(), 1);
        assert_eq!(scenario.tasks.len(), 2, "{limits}");
        assert!(matches!(
            scenario.report(("w", "a"), 1, 1, WorkerEvent::Succeeded { output: None }),
            Verdict::Gone { .. }
        ));
        scenario.take("w", "a", 1);
        scenario.wait(Duration::from_millis(2100));
        assert_eq!(scenario.status(), RunStatus::Failed);
    }
}

#[test]
fn a_cancelled_run_stops_its_workers_and_stays_cancelled() {
    let mut scenario = Scenario::new(Some(json!({"nodes": [task("a", &[]), task("b", &["a"])]})));
    scenario.take("w", "a", 1);
    let run = scenario.run;
    assert!(matches!(
        scenario.request(|id| Event::Cancel(id, run)),
        Some(Answer::Canceled(_))
    ));
    assert_eq!(scenario.cancels.len(), 1);
    assert!(matches!(
        scenario.report(("w", "a"), 1, 1, WorkerEvent::Succeeded { output: None }),
        Verdict::Gone { .. }
    ));
    assert_eq!(scenario.status(), RunStatus::Canceled);
    let Some(Answer::Refused(error)) = scenario.request(|id| Event::Cancel(id, run)) else {
        panic!()
    };
    assert_eq!(error.error, "invalid status transition");
    assert_eq!(
        (&error.details["from"], &error.details["to"]),
        (&json!("canceled"), &json!("canceled"))
    );
}

#[test]
fn a_run_without_a_plan_is_written_and_ended_from_outside() {
    let mut scenario = Scenario::new(None);
    let run = scenario.run;
    let id = CheckpointId::from_uuid(Uuid::now_v7());
    let add = |kind: &str| {
        let add = AddCheckpoint {
            run_id: run,
            checkpoint_id: id,
            kind: kind.to_owned(),
            data: None,
            blob: None,
        };
        move |request| Event::Checkpoint(request, Box::new(add))
    };
    assert!(matches!(
        scenario.request(add(" step ")),
        Some(Answer::Checkpoint(_))
    ));
    let before = scenario.log.len();
    assert!(matches!(
        scenario.request(add(" step ")),
        Some(Answer::Checkpoint(_))
    ));
    scenario.restart();
    assert!(matches!(
        scenario.request(add(" step ")),
        Some(Answer::Checkpoint(_))
    ));
    assert_eq!(
        scenario.log.len(),
        before,
        "the same request again is the same checkpoint"
    );
    let complete = |status| {
        move |request| {
            Event::Complete(
                request,
                Box::new(CompleteRun {
                    run_id: run,
                    status,
                    error: None,
                    output: None,
                }),
            )
        }
    };
    assert!(matches!(
        scenario.request(complete(RunStatus::Running)),
        Some(Answer::Refused(_))
    ));
    assert!(matches!(
        scenario.request(complete(RunStatus::Completed)),
        Some(Answer::Run(_))
    ));
    assert!(matches!(
        scenario.request(complete(RunStatus::Failed)),
        Some(Answer::Refused(_))
    ));
    assert!(matches!(
        scenario.request(add("late")),
        Some(Answer::Refused(_))
    ));
    assert_eq!(scenario.status(), RunStatus::Completed);
}

#[test]
fn at_most_so_many_nodes_run_at_once() {
    let mut scenario = Scenario::new(Some(
        json!({"maxParallel": 2, "nodes": [task("a", &[]), task("b", &[]), task("c", &[])]}),
    ));
    assert_eq!(scenario.tasks.len(), 2);
    scenario.succeed("a", json!({}));
    assert_eq!(scenario.tasks.len(), 3);
}

#[test]
fn a_place_that_nothing_can_fill_fails_its_node_with_the_reason() {
    let mut scenario = Scenario::new(Some(json!({"nodes": [task("a", &[]), {
        "id": "b", "kind": "task", "queue": "q", "needs": ["a"], "input": "{{nodes.a.output.missing}}"
    }]})));
    scenario.succeed("a", json!({}));
    assert_eq!(scenario.status(), RunStatus::Failed);
    assert!(
        scenario
            .record_now()
            .run
            .error
            .unwrap()
            .contains("nodes.a.output.missing")
    );
}

#[test]
fn a_record_names_the_run_that_it_continues_and_the_trace_that_made_it() {
    let mut scenario = Scenario::new(None);
    let (first, again) = (scenario.run, RunId::from_uuid(Uuid::now_v7()));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let create = CreateRun {
        run_id: again,
        mode: RunMode::Queue,
        plan: None,
        inputs: None,
        name: None,
        metadata: None,
        owner: None,
        retry_of: Some(first),
        finished: BTreeMap::new(),
    };
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    scenario.request(|id| Event::Create(id, Box::new(create), Some(traceparent)));
    let record = scenario.record.as_ref().unwrap();
    assert_eq!(record.run.id, again);
    assert_eq!(record.caused_by, Some(CausedBy::run(first)));
    assert_eq!(record.trace_id.as_ref().unwrap().as_str(), trace);
}

#[test]
fn a_result_that_cannot_be_stored_fails_its_run_with_one_sentence_and_nothing_follows_from_it() {
    let mut scenario = Scenario::new(Some(json!({"nodes": [task("a", &[]), task("b", &["a"])]})));
    scenario.limit = 10_000;
    scenario.tasks.clear();
    scenario.succeed("a", json!({"text": "x".repeat(20_000)}));
    let run = scenario.record_now().run;
    assert_eq!(run.status, RunStatus::Failed);
    assert!(
        run.error
            .unwrap()
            .contains("cannot be stored: it is too large")
    );
    assert_eq!(scenario.node("b"), NodeStatus::Canceled);
    assert!(scenario.tasks.is_empty());
    let numbers: Vec<u64> = scenario.log.iter().map(|(_, entry)| entry.n).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(scenario.record.unwrap().run.status.is_final());
}

#[test]
fn a_checkpoint_that_cannot_be_stored_is_refused_and_its_run_goes_on() {
    let mut scenario = Scenario::new(None);
    scenario.limit = 10_000;
    let run = scenario.run;
    let add = |bytes: usize| AddCheckpoint {
        run_id: run,
        checkpoint_id: CheckpointId::from_uuid(Uuid::now_v7()),
        kind: "step".to_owned(),
        data: Some(json!("x".repeat(bytes))),
        blob: None,
    };
    let (large, small) = (add(20_000), add(10));
    for _ in 0..2 {
        // Sent again, it is rejected again: it is not known.
        let large = large.clone();
        let answer = scenario.request(|id| Event::Checkpoint(id, Box::new(large)));
        assert!(
            matches!(&answer, Some(Answer::Refused(reply)) if reply.code == ErrorCode::PayloadTooLarge),
            "{answer:?}"
        );
    }
    let answer = scenario.request(|id| Event::Checkpoint(id, Box::new(small)));
    assert!(matches!(answer, Some(Answer::Checkpoint(_))), "{answer:?}");
    assert_eq!(scenario.status(), RunStatus::Running);
    let numbers: Vec<u64> = scenario.log.iter().map(|(_, entry)| entry.n).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_run_whose_first_record_cannot_be_stored_is_refused_and_forgotten() {
    let mut scenario = Scenario::new(None);
    scenario.limit = 10_000;
    let create = CreateRun {
        run_id: RunId::from_uuid(Uuid::now_v7()),
        mode: RunMode::Queue,
        plan: None,
        inputs: json!({"text": "x".repeat(20_000)}).as_object().cloned(),
        name: None,
        metadata: None,
        owner: None,
        retry_of: None,
        finished: BTreeMap::new(),
    };
    let (before, id) = (scenario.core.sizes(), create.run_id);
    let answer = scenario.request(|request| Event::Create(request, Box::new(create), None));
    assert!(matches!(answer, Some(Answer::Refused(_))), "{answer:?}");
    let answer = scenario.request(|request| Event::Get(request, id));
    assert!(matches!(answer, Some(Answer::Refused(_))), "{answer:?}");
    assert_eq!(scenario.core.sizes(), before);
}
