//! Workers of runs in other languages: each takes tasks of a queue as in `services/workers/TASKS.md`.

use std::fs;
use std::process::{Command, Stdio};

use quintet_bus::{Bus, RequestError};
use quintet_contract::JsonObject;
use quintet_contract::error::ErrorCode;
use quintet_contract::id::{NodeId, RunShard};
use quintet_contract::run::{NodeStatus, Run, RunMode, RunStatus};
use quintet_contract::run_api::{CreateRun, RunRef};
use quintet_contract::subject::{CreateRuns, GetRun};
use quintet_contract::{bucket::RunKey, bucket::Runs};
use quintet_testkit::{Process, wait_for};
use quintet_tests::{Plan, Stack, TIMEOUT, repository};
use serde_json::{Value, json};

use crate::python::tool;

/// Seconds until a task of a dead worker is given to another.
const ACK_WAIT_S: u64 = 2;

fn python() -> Command {
    let mut worker = tool("python3");
    worker.arg(repository().join("tests/examples/run_worker.py"));
    worker
}

fn javascript() -> Command {
    let folder = repository().join("tests/examples");
    assert!(
        folder.join("node_modules/@nats-io").exists(),
        "the packages of tests/examples are missing; `make setup` installs them"
    );
    let mut worker = Command::new("node");
    worker.arg(folder.join("run_worker.mjs"));
    worker
}

async fn start(stack: &Stack, mut worker: Command, name: &str) -> Process {
    let log = stack.folder.path().join(name);
    let file = fs::File::create(&log).unwrap();
    worker
        .arg("count")
        .env("NATS_URL", stack.nats.url())
        .env("TASK_ACK_WAIT_S", ACK_WAIT_S.to_string())
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file);
    let worker = Process::spawn(worker).unwrap();
    let serves = wait_for("a worker that serves", TIMEOUT, async || {
        let text = fs::read_to_string(&log).unwrap();
        text.starts_with("serves").then_some(()).ok_or(text)
    });
    serves.await.unwrap();
    worker
}

/// A run of one node that counts.
async fn create(bus: &Bus, input: Value) -> RunRef {
    let run_id = quintet_bus::new_run_id();
    let node = json!({"id": "count", "kind": "task", "queue": "count", "input": input});
    let create = CreateRun {
        run_id,
        mode: RunMode::Queue,
        plan: Some(json!({"nodes": [node]})),
        inputs: None,
        name: None,
        metadata: None,
        owner: None,
        retry_of: None,
        finished: Default::default(),
    };
    let shard = RunShard::of(run_id);
    let subject = CreateRuns { shard };
    bus.request_until(&subject, &create, TIMEOUT).await.unwrap();
    RunRef { run_id }
}

/// How a run stands: of its owner, or as it was stored at its end.
async fn get_run(bus: &Bus, run: &RunRef) -> Run {
    let shard = RunShard::of(run.run_id);
    match bus.request_until(&GetRun { shard }, run, TIMEOUT).await {
        Ok(reply) => reply.run,
        Err(RequestError::Refused(reply)) if reply.code == ErrorCode::NotFound => {
            let stored = bus.bucket::<Runs>().get(&RunKey(run.run_id)).await.unwrap();
            stored.unwrap().record.run
        }
        Err(error) => panic!("{error}"),
    }
}

async fn completed(bus: &Bus, run: &RunRef) -> (u32, JsonObject) {
    let ended = wait_for("the end of the run", TIMEOUT, async || {
        let run = get_run(bus, run).await;
        match run.status {
            RunStatus::Completed => Ok(run),
            status => Err(format!("{status}: {:?}", run.nodes)),
        }
    });
    let run = ended.await.unwrap();
    let node = run
        .nodes
        .unwrap()
        .remove(&NodeId::parse("count").unwrap())
        .unwrap();
    assert_eq!(node.status, NodeStatus::Succeeded);
    (node.attempt.0, node.output.unwrap())
}

/// Two workers of one language: the first is killed in the middle of a task, the second continues from its checkpoint.
async fn survives(program: fn() -> Command) {
    let plan = Plan {
        agents: 0,
        run_workers: 0,
        runner: |config| config.task_ack_wait = std::time::Duration::from_secs(ACK_WAIT_S),
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    let bus = stack.bus().await;
    let mut first = start(&stack, program(), "first.log").await;
    let run = create(&bus, json!({"upTo": 3})).await;
    let (attempt, output) = completed(&bus, &run).await;
    assert_eq!(
        (attempt, &output["steps"], &output["from"]),
        (1, &json!(3), &json!(0))
    );
    let run = create(&bus, json!({"upTo": 30, "pauseMs": 100})).await;
    let running = wait_for("a few steps", TIMEOUT, async || {
        let shard = RunShard::of(run.run_id);
        let reply = bus
            .request_until(&GetRun { shard }, &run, TIMEOUT)
            .await
            .unwrap();
        (reply.entries > 5)
            .then_some(())
            .ok_or(format!("{:?}", reply.run.nodes))
    });
    running.await.unwrap();
    first.kill().unwrap();
    let _second = start(&stack, program(), "second.log").await;
    let (attempt, output) = completed(&bus, &run).await;
    assert_eq!((attempt, &output["steps"]), (2, &json!(30)));
    let from = output["from"].as_u64().unwrap();
    assert!((1..30).contains(&from), "went on from {from}");
}

#[tokio::test]
async fn a_worker_in_python_goes_on_from_the_checkpoint_of_one_that_was_killed() {
    survives(python).await;
}

#[tokio::test]
async fn a_worker_in_javascript_goes_on_from_the_checkpoint_of_one_that_was_killed() {
    survives(javascript).await;
}
