//! Runs of the mode `k8s`, from the request to the Job and back, over runners that come and go.

use quintet::system::{Part, System};
use quintet_contract::id::HolderId;
use quintet_runner::{KubernetesConfig, RunnerConfig};
use quintet_testkit::kubernetes::{Cluster, Fault, NAMESPACE, Verb, status};
use quintet_testkit::{Nats, wait_for};
use quintet_tests::{Api, TIMEOUT, part, start_edges};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::runs_http::until;

/// When the programs of these tests begin, in nanoseconds.
const START: i64 = 1_800_000_000_000_000_000;

/// A cluster, and a runner that uses it behind an edge.
struct Place {
    cluster: Cluster,
    folder: TempDir,
    nats: Nats,
    api: Api,
    runner: System,
    _edges: Vec<System>,
}

impl Place {
    async fn start() -> Self {
        let (cluster, folder) = (Cluster::start().await, TempDir::new().unwrap());
        std::fs::write(folder.path().join("config"), cluster.kubeconfig()).unwrap();
        let nats = Nats::start().await.unwrap();
        let runner = runner(&nats, &folder).await;
        let (mut apis, edges) = start_edges(&nats, 1, |_| {}).await;
        Self {
            cluster,
            folder,
            nats,
            api: apis.remove(0),
            runner,
            _edges: edges,
        }
    }

    /// The runner ends, and another one comes.
    async fn change_runner(self) -> Self {
        assert!(self.runner.shutdown(TIMEOUT).await.is_clean());
        let runner = runner(&self.nats, &self.folder).await;
        Self { runner, ..self }
    }

    /// Makes a run of one command, and returns its id once the program runs.
    async fn begin(&self) -> String {
        let plan = json!({"nodes": [
            {"id": "train", "kind": "command", "command": ["python3", "train.py"], "image": "trainer:1",
             "input": {"epochs": 3}},
        ]});
        let made = self.api.post("/runs?mode=k8s", json!({"plan": plan})).await;
        let made = made.expect(201).body;
        let running = json!({"running": {"startedAt": "2026-01-31T12:00:00Z"}});
        self.cluster.pod(status("Running", running)).await;
        made["runId"].as_str().unwrap().to_owned()
    }

    /// What the checkpoints so far hold.
    async fn checkpoints(&self, run: &str) -> Vec<Value> {
        let listed = self.api.get(&format!("/runs/{run}/checkpoints")).await;
        let listed = listed.expect(200).body;
        let listed = listed["checkpoints"].as_array().unwrap();
        listed.iter().map(|one| one["data"].clone()).collect()
    }
}

async fn runner(nats: &Nats, folder: &TempDir) -> System {
    let runner = part(nats, |config| {
        let mut runner = RunnerConfig::new(HolderId::parse("test").unwrap());
        runner.kubernetes = KubernetesConfig {
            kubeconfig: Some(folder.path().join("config")),
            namespace: NAMESPACE.to_owned(),
            ..KubernetesConfig::default()
        };
        config.parts.push(Part::Runner(runner));
    });
    let runner = runner.await;
    runner.ready(TIMEOUT).await.unwrap();
    runner
}

#[tokio::test]
async fn a_command_is_one_job_that_outlives_its_runner() {
    let place = Place::start().await;
    let id = place.begin().await;
    let created = place.cluster.requests(Verb::CreateJob).remove(0).body;
    let container = &created["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "trainer:1");
    let variables = container["env"].as_array().unwrap();
    let spec = variables.iter().find(|one| one["name"] == "INPUT_SPEC");
    let spec = spec.unwrap()["value"].as_str().unwrap();
    assert!(spec.contains(r#""epochs":3"#), "{spec}");

    let output = "{\"type\": \"checkpoint\", \"name\": \"epoch\", \"data\": {\"epoch\": 1}}\n";
    place.cluster.log(START, output);
    let seen = wait_for("the checkpoint", TIMEOUT, async || {
        match place.checkpoints(&id).await {
            none if none.is_empty() => Err("none"),
            _ => Ok(()),
        }
    });
    seen.await.unwrap();

    let place = place.change_runner().await;
    let output = "{\"type\": \"output\", \"data\": {\"loss\": 0.5}}\n";
    place.cluster.log(START + 1, output);
    place.cluster.end(0, "Completed").await;
    let run = until(&place.api, &id, "completed").await;
    let node = &run["nodes"]["train"];
    assert_eq!(node["attempt"], 1, "{node}");
    assert_eq!(node["output"]["loss"], 0.5, "{node}");
    assert_eq!(place.checkpoints(&id).await, [json!({"epoch": 1})]);
    assert_eq!(place.cluster.requests(Verb::DeleteJob).len(), 0);
}

#[tokio::test]
async fn a_canceled_job_is_removed_also_when_the_runner_dies_over_it() {
    let place = Place::start().await;
    let id = place.begin().await;
    // This runner would ask again in an hour.
    let fault = Fault::Code(429, Some(3600));
    place.cluster.fail_next(Verb::DeleteJob, fault);
    place.api.delete(&format!("/runs/{id}")).await.expect(200);
    place.cluster.until_requested(Verb::DeleteJob, 1).await;
    let place = place.change_runner().await;
    let requests = place.cluster.until_requested(Verb::DeleteJob, 2).await;
    assert_eq!(requests[1].body["propagationPolicy"], "Foreground");
    until(&place.api, &id, "canceled").await;
}
