//! A cluster of processes of the real program on a NATS of its own, and what its jobs leave behind.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use quintet::system::BusSettings;
use quintet_bus::Bus;
use quintet_contract::bucket::{LeaseKey, Leases};
use quintet_contract::id::PoolName;
use quintet_contract::permission::Role;
use quintet_testkit::{Nats, NatsCluster, Process, free_port, wait_for};
use quintet_tests::{Api, TIMEOUT, binary};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Jobs of one batch.
const BATCH: usize = 100;

/// A cluster on one NATS server, or on several.
pub(crate) struct Cluster<N = Nats> {
    pub(crate) nats: N,
    folder: TempDir,
    started: AtomicU32,
}

/// What a cluster stands on.
pub(crate) trait Ground {
    /// Where its processes connect.
    fn url(&self) -> String;
    /// Copies of everything stored.
    fn copies(&self) -> usize;
}

impl Ground for Nats {
    fn url(&self) -> String {
        self.url()
    }

    fn copies(&self) -> usize {
        1
    }
}

impl Ground for NatsCluster {
    fn url(&self) -> String {
        self.url()
    }

    fn copies(&self) -> usize {
        self.count()
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::on(Nats::start().await.unwrap())
    }
}

impl<N: Ground> Cluster<N> {
    pub(crate) fn on(nats: N) -> Self {
        Self {
            nats,
            folder: TempDir::new().unwrap(),
            started: AtomicU32::new(0),
        }
    }

    /// A process of the program; its output goes to a file in the folder.
    fn spawn(&self, arguments: &[&str], nats: &str) -> Process {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let log = self.folder.path().join(format!("{number}.log"));
        let log = fs::File::create(log).unwrap();
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .args(["--nats-url", nats])
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"))
            .envs([
                ("HEARTBEAT_INTERVAL_MS", "200"),
                ("HEARTBEAT_TIMEOUT_MS", "1500"),
                ("ASSIGN_ACK_TIMEOUT_MS", "1500"),
                ("TASK_ACK_WAIT", "2s"),
                ("RATE_LIMIT_MAX", "0"),
                ("QUINTET_REPLICAS", &self.nats.copies().to_string()),
            ])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Process::spawn(command).unwrap()
    }

    pub(crate) fn scheduler(&self) -> Process {
        self.scheduler_at(&self.nats.url())
    }

    /// A scheduler that reaches NATS at another address.
    pub(crate) fn scheduler_at(&self, nats: &str) -> Process {
        self.spawn(&["serve", "scheduler"], nats)
    }

    pub(crate) fn runner(&self) -> Process {
        self.spawn(&["serve", "runner"], &self.nats.url())
    }

    pub(crate) fn frames(&self) -> Process {
        self.spawn(&["serve", "frames"], &self.nats.url())
    }

    /// A worker that takes so many commands of runs at once.
    pub(crate) fn run_worker(&self, slots: u32) -> Process {
        let slots = slots.to_string();
        let arguments = ["worker", "run", "--run-worker-slots", &slots];
        self.spawn(&arguments, &self.nats.url())
    }

    pub(crate) fn agent(&self, id: &str, slots: u32) -> Process {
        self.agent_at(id, slots, &self.nats.url())
    }

    /// An agent with a label, as name=value.
    pub(crate) fn labelled_agent(&self, id: &str, label: &str) -> Process {
        let arguments = [
            "agent",
            "--agent-id",
            id,
            "--agent-slots",
            "64",
            "--agent-labels",
            label,
        ];
        self.spawn(&arguments, &self.nats.url())
    }

    /// An agent that reaches NATS at another address.
    pub(crate) fn agent_at(&self, id: &str, slots: u32, nats: &str) -> Process {
        let slots = slots.to_string();
        self.spawn(&["agent", "--agent-id", id, "--agent-slots", &slots], nats)
    }

    pub(crate) async fn edge(&self) -> (Process, Api) {
        let (process, api) = self.edge_at(free_port().unwrap());
        self.until_ready(&api).await;
        (process, api)
    }

    /// Waits until an edge can serve.
    pub(crate) async fn until_ready(&self, api: &Api) {
        let ready = wait_for("an edge", TIMEOUT, async || {
            let answer = reqwest::get(api.url("/ready")).await;
            match answer {
                Ok(answer) if answer.status().is_success() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        ready.await.unwrap();
    }

    /// Waits until an edge reports that it is not ready, and returns its reason.
    pub(crate) async fn until_not_ready(&self, api: &Api) -> String {
        let not_ready = wait_for("the edge to notice", TIMEOUT, async || {
            let answer = api.get("/ready").await;
            match answer.status == 503 {
                true => Ok(answer.text),
                false => Err(answer.text),
            }
        });
        not_ready.await.unwrap()
    }

    pub(crate) fn edge_at(&self, port: u16) -> (Process, Api) {
        self.edge_of(port, &self.nats.url())
    }

    /// An edge that reaches NATS at another address.
    pub(crate) fn edge_of(&self, port: u16, nats: &str) -> (Process, Api) {
        let process = self.spawn(&["serve", "edge", "--port", &port.to_string()], nats);
        (process, Api::new(SocketAddr::from(([127, 0, 0, 1], port))))
    }

    /// A connection of the test's own.
    pub(crate) async fn bus(&self) -> Bus {
        let mut settings = BusSettings::open(self.nats.url());
        settings.replicas = self.nats.copies();
        Bus::connect(settings.config(&Role::Edge)).await.unwrap()
    }

    /// The index of the scheduler that leads now.
    pub(crate) async fn leader(&self, schedulers: &[&Process]) -> usize {
        let key = LeaseKey::Scheduler(PoolName::default());
        self.holder(key, schedulers).await
    }

    /// The index of the process that holds a lease now.
    pub(crate) async fn holder(&self, key: LeaseKey, processes: &[&Process]) -> usize {
        let bus = self.bus().await;
        let found = wait_for("a leader", TIMEOUT, async || {
            let lease = bus.bucket::<Leases>().get(&key).await.unwrap();
            let holder = lease.map(|lease| lease.record.holder.to_string());
            let holder = holder.ok_or("no scheduler leads")?;
            let place = processes
                .iter()
                .position(|process| holder.contains(&format!("-{}-", process.id())));
            place.ok_or("another scheduler leads")
        });
        found.await.unwrap()
    }

    pub(crate) fn witness(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("ran-{name}"))
    }

    /// A job that writes a line whenever it is run, and must not be made twice.
    pub(crate) fn job(&self, name: &str) -> Value {
        let command = json!(["sh", "-c", "echo ran >> \"$0\"", self.witness(name)]);
        json!({"inlineConfig": {"command": command}, "idempotencyKey": name})
    }

    /// A job that may be started again, runs until it is stopped, and complains if it runs twice at once.
    pub(crate) fn fenced(&self, name: &str) -> Value {
        let script = "exec flock --nonblock \"$0\" sh -c 'echo ran >> \"$0\"; exec sleep 1000' \"$1\" || echo TWICE >> \"$1\"";
        // flock itself must not be replaced, or no process would be left to complain.
        let script = script.replacen("exec ", "", 1);
        let lock = self.folder.path().join(format!("lock-{name}"));
        let command = json!(["sh", "-c", script, lock, self.witness(name)]);
        json!({
            "inlineConfig": {"command": command}, "restartPolicy": "onFailure", "maxRestarts": 100, "idempotencyKey": name,
        })
    }

    /// What runs of a job have written, line by line.
    pub(crate) fn runs(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.witness(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Submits jobs in batches, each again until it is taken: a batch may meet an edge or a bus that is just gone.
    pub(crate) async fn submit(&self, api: &Api, names: &[String]) {
        for names in names.chunks(BATCH) {
            let batch: Value = names.iter().map(|name| self.job(name)).collect();
            let taken = wait_for("a batch to be taken", TIMEOUT, async || {
                let request = api
                    .request(reqwest::Method::POST, "/v1/jobs/batch")
                    .json(&batch);
                let answer = request.send().await.map_err(|error| error.to_string())?;
                let body: Value = answer.json().await.map_err(|error| error.to_string())?;
                let entries = body.as_array().cloned().unwrap_or_default();
                let is_taken = |entry: &Value| entry["status"] == 201 || entry["status"] == 200;
                match entries.len() == names.len() && entries.iter().all(is_taken) {
                    true => Ok(()),
                    false => Err(body.to_string()),
                }
            });
            taken.await.unwrap();
        }
    }

    /// Waits until all jobs have ended well, and checks that each was run exactly once; returns them.
    pub(crate) async fn all_ran_once(&self, api: &Api, names: &[String]) -> Vec<Value> {
        let jobs = self.all_ended(api, names.len()).await;
        self.each_ran_once(names);
        jobs
    }

    /// Waits until there are so many jobs, and all have ended well; returns them.
    pub(crate) async fn all_ended(&self, api: &Api, count: usize) -> Vec<Value> {
        let ended = wait_for("the end of all jobs", TIMEOUT * 4, async || {
            let mut counts = std::collections::BTreeMap::<String, usize>::new();
            let jobs = self.jobs(api).await?;
            for job in &jobs {
                *counts
                    .entry(job["status"].as_str().unwrap_or_default().to_owned())
                    .or_default() += 1;
            }
            match counts.get("STOPPED") == Some(&count) {
                true => Ok(jobs),
                false => Err(format!("{counts:?}")),
            }
        });
        ended.await.unwrap()
    }

    /// All jobs there are.
    async fn jobs(&self, api: &Api) -> Result<Vec<Value>, String> {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/jobs?limit=1000{cursor}");
            let answer = api.request(reqwest::Method::GET, &path).send().await;
            let answer = answer.map_err(|error| error.to_string())?;
            let next = answer.headers().get("x-next-cursor").cloned();
            let mut jobs: Vec<Value> = answer.json().await.map_err(|error| error.to_string())?;
            found.append(&mut jobs);
            match next {
                Some(next) => cursor = format!("&cursor={}", next.to_str().unwrap()),
                None => return Ok(found),
            }
        }
    }

    pub(crate) fn each_ran_once(&self, names: &[String]) {
        let wrong: Vec<_> = names
            .iter()
            .map(|name| (name, self.runs(name)))
            .filter(|(_, runs)| runs.len() != 1)
            .collect();
        assert!(wrong.is_empty(), "not run exactly once: {wrong:?}");
    }
}

/// Names of many jobs.
pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("job-{number}")).collect()
}
