//! Plans that continue while the runners that lead them, the workers that do their work, edges and NATS are killed and
//! frozen.

use std::collections::BTreeMap;

use quintet_testkit::{Process, wait_for};
use quintet_tests::{Api, Message, TIMEOUT};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Runs that are made before the first fault and after each.
const RUNS: usize = 6;
/// Checkpoints of each command.
const STEPS: u64 = 6;

/// Goes on after its last checkpoint, and marks every step in a file of its run and node.
const COUNT: &str = r#"
i=${RESUME_STATE:-0}
while [ "$i" -lt 6 ]; do
  i=$((i + 1))
  echo "{\"type\": \"checkpoint\", \"data\": $i}"
  sleep 0.1
done
echo "{\"type\": \"output\", \"data\": {\"steps\": $i}}"
"#;

/// Everything that a runner leads: commands beside each other and once for each item, a sleep, a job, and a choice.
fn plan(cluster: &Cluster, name: &str) -> Value {
    let count = json!(["sh", "-c", COUNT]);
    json!({"nodes": [
        {"id": "first", "kind": "command", "command": count},
        {"id": "each", "kind": "foreach", "items": [1, 2], "needs": ["first"],
         "nodes": [{"id": "count", "kind": "command", "command": count}]},
        {"id": "rest", "kind": "sleep", "for": "200ms", "needs": ["first"]},
        {"id": "job", "kind": "job", "needs": ["rest"], "job": cluster.job(name)},
        {"id": "whole", "kind": "condition", "needs": ["each", "job"],
         "when": "nodes.first.output.steps == 6", "then": ["last"], "else": ["never"]},
        {"id": "last", "kind": "command", "needs": ["whole"], "command": ["sh", "-c",
         "echo '{\"type\": \"output\", \"data\": {\"seen\": {{nodes.first.output.steps}}}}'"]},
        {"id": "never", "kind": "gate", "needs": ["whole"]},
    ]})
}

/// Clients of several edges.
struct Clients(Vec<Api>);

impl Clients {
    /// Asks one edge after the other until one answers as it should.
    async fn ask(&self, what: &str, method: Method, path: &str, body: Option<&Value>) -> Value {
        let mut next = 0;
        let answered = wait_for(what, TIMEOUT * 2, async || {
            next += 1;
            let mut request = self.0[next % self.0.len()].request(method.clone(), path);
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = request.send().await.map_err(|error| error.to_string())?;
            let is_good = answer.status().is_success();
            let body: Value = answer.json().await.map_err(|error| error.to_string())?;
            match is_good {
                true => Ok(body),
                false => Err(body.to_string()),
            }
        });
        answered.await.unwrap()
    }

    /// Makes runs, and returns their ids with the names of their jobs.
    async fn make(&self, cluster: &Cluster, runs: &mut BTreeMap<String, String>) {
        for _ in 0..RUNS {
            // A client that repeats a request after a timeout may have created two runs: what the first one runs is its
            // own.
            let name = format!("run-{}", runs.len());
            let body = json!({"plan": plan(cluster, &name)});
            let made = self.ask("a run", Method::POST, "/runs?mode=queue", Some(&body));
            let id = made.await["runId"].as_str().unwrap().to_owned();
            runs.insert(id, name);
        }
    }

    async fn run(&self, id: &str) -> Value {
        let path = format!("/runs/{id}");
        self.ask("the run", Method::GET, &path, None).await["run"].clone()
    }

    /// Waits until so many nodes of these runs have ended: the moment for the next fault.
    async fn until_ended(&self, runs: &BTreeMap<String, String>, wanted: usize) {
        let ended = wait_for("nodes to end", TIMEOUT * 2, async || {
            let mut ended = 0;
            for id in runs.keys() {
                let run = self.run(id).await;
                let nodes = run["nodes"].as_object().into_iter().flatten();
                ended += nodes
                    .filter(|(_, node)| node["status"] == "succeeded")
                    .count();
            }
            match ended >= wanted {
                true => Ok(()),
                false => Err(format!("{ended} of {wanted}")),
            }
        });
        ended.await.unwrap();
    }

    async fn until_completed(&self, id: &str) -> Value {
        let run = wait_for("the end of a run", TIMEOUT * 4, async || {
            let run = self.run(id).await;
            match run["status"] == "completed" {
                true => Ok(run),
                false => Err(run.to_string()),
            }
        });
        run.await.unwrap()
    }

    /// Everything in the log of a run that has ended.
    async fn log(&self, id: &str) -> Vec<Message> {
        let path = format!("/runs/{id}/events");
        let mut feed = self.0[0].events(&path, Some("0")).await;
        assert_eq!(feed.next().await.unwrap().event, "hello");
        let mut log = Vec::new();
        while let Some(message) = feed.next().await {
            log.push(message);
        }
        log
    }

    /// Every run came to the end that it would have come to without a fault.
    async fn all_ended_as_without_a_fault(
        &self,
        cluster: &Cluster,
        runs: &BTreeMap<String, String>,
    ) {
        for (id, name) in runs {
            let run = self.until_completed(id).await;
            let nodes = &run["nodes"];
            for node in ["first", "each[0].count", "each[1].count"] {
                assert_eq!(nodes[node]["output"], json!({"steps": STEPS}), "{run}");
            }
            assert_eq!(nodes["last"]["output"], json!({"seen": STEPS}), "{run}");
            assert_eq!(nodes["never"]["status"], "skipped", "{run}");
            assert_eq!(cluster.runs(name), ["ran"], "the job of {id}");
            is_sound(id, &self.log(id).await);
        }
    }
}

/// Numbers without a gap, each node's end once, attempts that rise, and each checkpoint once and in its order.
fn is_sound(id: &str, log: &[Message]) {
    let mut ended = BTreeMap::<String, usize>::new();
    let mut attempts = BTreeMap::<String, u64>::new();
    let mut steps = BTreeMap::<String, Vec<u64>>::new();
    for (before, message) in log.iter().enumerate() {
        let (_, number) = message.id.rsplit_once('_').unwrap();
        assert_eq!(number.parse(), Ok(before + 1), "{id}: {log:#?}");
        let data = &message.data;
        let node = data["nodeId"].as_str().unwrap_or_default().to_owned();
        match message.event.as_str() {
            "node" => {
                let attempt = data["attempt"].as_u64().unwrap();
                let last = attempts.insert(node.clone(), attempt).unwrap_or_default();
                assert!(attempt >= last, "{id}: {log:#?}");
                if data["status"] == "succeeded" {
                    *ended.entry(node).or_default() += 1;
                }
            }
            "checkpoint" => steps
                .entry(node)
                .or_default()
                .push(data["data"].as_u64().unwrap()),
            _ => {}
        }
    }
    assert!(ended.values().all(|times| *times == 1), "{id}: {ended:?}");
    let all: Vec<u64> = (1..=STEPS).collect();
    assert!(steps.values().all(|steps| *steps == all), "{id}: {steps:?}");
    assert_eq!(steps.len(), 3, "{id}: {steps:?}");
    let last = &log.last().unwrap().data;
    assert_eq!(last["status"], "completed", "{id}: {log:#?}");
}

async fn agent(cluster: &Cluster, api: &Api) -> Process {
    let agent = cluster.agent("one", 16);
    api.until_agent("one", "IDLE").await;
    agent
}

#[tokio::test]
async fn runners_are_killed_frozen_and_restarted_and_every_plan_comes_to_its_end() {
    let cluster = Cluster::start().await;
    let _scheduler = cluster.scheduler();
    let mut runners = [cluster.runner(), cluster.runner(), cluster.runner()];
    let (_edge, api) = cluster.edge().await;
    let _agent = agent(&cluster, &api).await;
    let _workers = [cluster.run_worker(8), cluster.run_worker(8)];
    let clients = Clients(vec![api]);
    let mut runs = BTreeMap::new();
    clients.make(&cluster, &mut runs).await;
    clients.until_ended(&runs, RUNS / 2).await;
    runners[0].kill().unwrap();
    clients.make(&cluster, &mut runs).await;
    clients.until_ended(&runs, RUNS * 3).await;
    runners[1].pause().await.unwrap();
    runners[0] = cluster.runner();
    clients.make(&cluster, &mut runs).await;
    clients.until_ended(&runs, RUNS * 8).await;
    runners[1].resume().unwrap();
    // All at once: no runner is left to take over until they are back.
    for runner in &mut runners {
        runner.kill().unwrap();
    }
    runners = [cluster.runner(), cluster.runner(), cluster.runner()];
    clients.make(&cluster, &mut runs).await;
    // As an update does it: each is asked to go.
    for runner in &mut runners {
        runner.signal(rustix::process::Signal::TERM).unwrap();
        assert!(runner.wait(TIMEOUT).await.unwrap().success());
        *runner = cluster.runner();
    }
    clients.all_ended_as_without_a_fault(&cluster, &runs).await;
}

#[tokio::test]
async fn workers_edges_and_nats_are_killed_and_frozen_and_every_plan_comes_to_its_end() {
    let mut cluster = Cluster::start().await;
    let _scheduler = cluster.scheduler();
    let _runners = [cluster.runner(), cluster.runner()];
    let (mut first, first_api) = cluster.edge().await;
    let (_second, second_api) = cluster.edge().await;
    let _agent = agent(&cluster, &first_api).await;
    let mut workers = [cluster.run_worker(8), cluster.run_worker(8)];
    let clients = Clients(vec![second_api, first_api]);
    let mut runs = BTreeMap::new();
    clients.make(&cluster, &mut runs).await;
    clients.until_ended(&runs, 1).await;
    workers[0].kill().unwrap();
    clients.make(&cluster, &mut runs).await;
    first.kill().unwrap();
    workers[0] = cluster.run_worker(8);
    clients.until_ended(&runs, RUNS * 2).await;
    workers[1].pause().await.unwrap();
    clients.make(&cluster, &mut runs).await;
    cluster.nats.kill().await.unwrap();
    cluster.nats.restart().await.unwrap();
    clients.make(&cluster, &mut runs).await;
    clients.until_ended(&runs, RUNS * 8).await;
    workers[1].resume().unwrap();
    cluster.nats.pause().await.unwrap();
    cluster.nats.resume().await.unwrap();
    clients.all_ended_as_without_a_fault(&cluster, &runs).await;
}
