//! Workers of every kind, as `GET /v1/workers` and `quintet workers` show them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use quintet_contract::task::command_queue;
use quintet_testkit::{Process, wait_for};
use quintet_tests::{Api, Plan, Stack, TIMEOUT, binary, run_to_end};
use serde_json::{Value, json};

use crate::runs_http;

async fn list(api: &Api, query: &str) -> Vec<Value> {
    let answer = api.get(&format!("/v1/workers{query}")).await.expect(200);
    answer.body.as_array().unwrap().clone()
}

fn ids(workers: &[Value]) -> Vec<&str> {
    let ids = workers.iter().map(|worker| worker["id"].as_str().unwrap());
    ids.collect()
}

/// Waits until the workers are as they should be, and returns them.
async fn until(api: &Api, what: &str, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let found = wait_for(what, TIMEOUT, async || {
        let workers = list(api, "").await;
        match is_so(&workers) {
            true => Ok(workers),
            false => Err(format!("{workers:?}")),
        }
    });
    found.await.unwrap()
}

/// A command of the client: its exit code and what it printed.
async fn quintet(api: &Api, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command
        .args(["--url", &api.url(""), "workers"])
        .args(arguments);
    let output = run_to_end(command, &[]).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = text(&output.stdout) + &text(&output.stderr);
    (output.status.code(), printed)
}

/// A run worker in a process of its own.
fn start(stack: &Stack, name: &str) -> Process {
    let mut command = Command::new(binary());
    command
        .args(["worker", "run"])
        .env("NATS_URL", stack.nats.url())
        .env("RUN_WORKER_NAME", name)
        .env("WORK_DIR", stack.folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Process::spawn(command).unwrap()
}

async fn stack() -> Stack {
    let plan = Plan {
        agents: 0,
        ..Plan::default()
    };
    Stack::with(plan).await
}

#[tokio::test]
async fn workers_of_every_kind_are_listed_and_a_killed_one_is_gone_after_its_ttl() {
    let stack = stack().await;
    let api = &stack.api;
    let own = ["run-worker-1", "bouncing-dot", "simplex-noise", "text"];
    let workers = until(api, "all workers of the system", |workers| {
        ids(workers) == own
    })
    .await;
    let run = &workers[0];
    assert_eq!(
        (&run["kind"], &run["state"]),
        (&json!("run"), &json!("ready"))
    );
    assert_eq!(run["load"], json!({"slots": 4, "used": 0}));
    assert_eq!(run["queues"], json!(["command"]));
    let ttl = run["ttlMs"].as_u64().unwrap();
    assert!((1..=6_000).contains(&ttl), "{run}");
    assert!(run["lastSeenAt"].is_string(), "{run}");
    let text = &workers[3];
    assert_eq!(
        (&text["kind"], &text["effects"]),
        (&json!("frames"), &json!(["text"]))
    );
    for worker in &workers {
        assert!(worker["version"] != "" && worker["host"] != "", "{worker}");
    }
    assert_eq!(ids(&list(api, "?kind=frames").await), own[1..]);
    api.get("/v1/workers?kind=dance").await.expect(422);
    let (code, out) = quintet(api, &["list", "--kind", "frames"]).await;
    assert!(code == Some(0) && out.contains("simplex-noise"), "{out}");

    // A wait returns when the second comes.
    let waiting = quintet(api, &["wait", "--kind", "run", "--count", "2"]);
    let starting = async { start(&stack, "second") };
    let ((code, out), mut second) = tokio::join!(waiting, starting);
    assert!(code == Some(0) && out.contains("second"), "{out}");

    let is_second = |worker: &&Value| worker["name"] == "second";
    let present = list(api, "?kind=run").await;
    let ttl = present.iter().find(is_second).unwrap()["ttlMs"].as_u64();
    let begun = Instant::now();
    second.kill().unwrap();
    until(api, "the end of the second", |workers| ids(workers) == own).await;
    let took = begun.elapsed();
    let least = Duration::from_millis(ttl.unwrap().saturating_sub(500));
    assert!(took >= least, "a killed one sends no goodbye: {took:?}");

    // One that is stopped sends a goodbye.
    let mut third = start(&stack, "third");
    until(api, "the third", |workers| workers.len() == 5).await;
    third.signal(rustix::process::Signal::TERM).unwrap();
    until(api, "the goodbye of the third", |workers| {
        workers.len() == 4
    })
    .await;
}

#[tokio::test]
async fn a_drained_run_worker_takes_no_tasks_until_it_may_again() {
    let stack = stack().await;
    let (api, bus) = (&stack.api, stack.bus().await);
    until(api, "the workers", |workers| workers.len() == 4).await;
    let (code, out) = quintet(api, &["drain", "run-worker-1"]).await;
    assert!(code == Some(0) && out.contains("draining"), "{out}");
    let queue = async |what: &str, is_so: &dyn Fn(usize, u64) -> bool| {
        let queue = wait_for(what, TIMEOUT, async || {
            let state = bus.queue_state(&command_queue()).await.unwrap().unwrap();
            match is_so(state.waiting, state.pending) {
                true => Ok(()),
                false => Err(format!("{state:?}")),
            }
        });
        queue.await.unwrap();
    };
    queue("no worker that waits for tasks", &|waiting, _| waiting == 0).await;
    let node = json!({"id": "n", "kind": "command", "command": ["true"]});
    let run = runs_http::make(api, json!({"plan": {"nodes": [node]}})).await;
    queue("a task that no worker takes", &|_, pending| pending == 1).await;
    let workers = until(api, "a heartbeat with that state", |workers| {
        workers[0]["state"] == "draining"
    });
    assert_eq!(workers.await[0]["load"]["used"], 0);
    let (code, out) = quintet(api, &["wait", "--kind", "run", "--timeout", "0"]).await;
    assert!(code == Some(1) && out.contains("0 of 1 workers"), "{out}");

    let again = api.post("/v1/workers/run-worker-1/drain", json!({"drain": false}));
    assert_eq!(again.await.expect(200).body["worker"]["state"], "ready");
    runs_http::until(api, &run, "completed").await;

    let drain = json!({"drain": true});
    api.post("/v1/workers/text/drain", drain.clone())
        .await
        .expect(409);
    api.post("/v1/workers/run-worker-1/drain?kind=frames", drain.clone())
        .await
        .expect(404);
    api.post("/v1/workers/unknown/drain", drain)
        .await
        .expect(404);
}
