//! Attempts against a server that plays the Kubernetes API.

mod endings;
mod faults;
mod restarts;
mod shape;

use std::collections::BTreeMap;
use std::time::Duration;

use quintet_contract::event::LogStream;
use quintet_contract::id::{NodeId, RunId};
use quintet_contract::job::Attempt;
use quintet_contract::task::{CommandSpec, WorkerEvent};
use quintet_testkit::kubernetes::{Cluster, NAMESPACE, status};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Execution, Kubernetes, KubernetesConfig, Pace, Reported};

/// One second in nanoseconds.
const SECOND: i64 = 1_000_000_000;
/// When the programs of these tests begin.
const START: i64 = 1_800_000_000 * SECOND;
/// Longest wait for something to happen.
const TIMEOUT: Duration = Duration::from_secs(20);

async fn kubernetes(cluster: &Cluster) -> Kubernetes {
    with_config(cluster, |_| {}).await
}

async fn with_config(cluster: &Cluster, change: impl FnOnce(&mut KubernetesConfig)) -> Kubernetes {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    std::fs::write(&path, cluster.kubeconfig()).unwrap();
    let mut config = KubernetesConfig {
        kubeconfig: Some(path),
        namespace: NAMESPACE.to_owned(),
        cancel_grace: Duration::from_millis(50),
        ..KubernetesConfig::default()
    };
    change(&mut config);
    let mut kubernetes = Kubernetes::connect(&config).await.unwrap();
    kubernetes.pace = Pace {
        poll: Duration::from_millis(100),
        retry_min: Duration::from_millis(5),
        retry_max: Duration::from_millis(20),
        log_silence: Duration::from_secs(10),
        last_silence: Duration::from_secs(10),
        settle: Duration::from_millis(300),
    };
    kubernetes
}

fn execution() -> Execution {
    let argv = ["sh", "-c", "echo $(NODE_ID) $$"].map(str::to_owned);
    Execution {
        run: RunId::from_uuid(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0007)),
        node: NodeId::parse("each[0].transcode").unwrap(),
        attempt: Attempt(2),
        command: CommandSpec {
            argv: argv.into(),
            env: BTreeMap::from([("LEVEL".to_owned(), "debug".to_owned())]),
            image: Some("busybox:1".to_owned()),
        },
        env: BTreeMap::from([
            ("INPUT_SPEC".to_owned(), r#"{"price":"5$"}"#.to_owned()),
            ("INPUT_CONTEXT".to_owned(), "{}".to_owned()),
        ]),
        timeout: Some(Duration::from_millis(90_500)),
        heartbeat: None,
        after: 0,
    }
}

/// An attempt that continues beside the test.
struct RunningAttempt {
    events: mpsc::Receiver<Reported>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl RunningAttempt {
    fn start(kubernetes: &Kubernetes, execution: Execution) -> Self {
        let (sender, events) = mpsc::channel(4);
        let cancel = CancellationToken::new();
        let (kubernetes, token) = (kubernetes.clone(), cancel.clone());
        let task = tokio::spawn(async move { kubernetes.execute(execution, sender, token).await });
        Self {
            events,
            cancel,
            task,
        }
    }

    /// The next event that is no heartbeat; none at the end.
    async fn next(&mut self) -> Option<Reported> {
        loop {
            let next = tokio::time::timeout(TIMEOUT, self.events.recv()).await;
            let reported = next.expect("an event comes in time")?;
            if reported.event != WorkerEvent::Heartbeat {
                return Some(reported);
            }
        }
    }

    async fn some(&mut self, count: usize) -> Vec<Reported> {
        let mut some = Vec::new();
        while some.len() < count {
            some.push(self.next().await.expect("there are more events"));
        }
        some
    }

    async fn rest(&mut self) -> Vec<WorkerEvent> {
        let mut rest: Vec<Reported> = Vec::new();
        while let Some(reported) = self.next().await {
            let last = rest.last().map_or(0, |last| last.seq);
            assert!(reported.seq > last, "{} after {last}", reported.seq);
            rest.push(reported);
        }
        rest.into_iter().map(|reported| reported.event).collect()
    }
}

/// An attempt whose Job is being made.
async fn begun() -> (Cluster, RunningAttempt) {
    let cluster = Cluster::start().await;
    let kubernetes = kubernetes(&cluster).await;
    let attempt = RunningAttempt::start(&kubernetes, execution());
    (cluster, attempt)
}

/// An attempt whose program runs.
async fn running() -> (Cluster, RunningAttempt) {
    let (cluster, attempt) = begun().await;
    run_program(&cluster).await;
    (cluster, attempt)
}

fn line(text: &str) -> WorkerEvent {
    WorkerEvent::Log {
        stream: LogStream::Stdout,
        line: text.to_owned(),
    }
}

fn lines(numbers: std::ops::Range<i64>) -> Vec<WorkerEvent> {
    numbers
        .map(|number| line(&format!("line {number}")))
        .collect()
}

fn write_lines(cluster: &Cluster, numbers: std::ops::Range<i64>, gap: i64) {
    for number in numbers {
        cluster.log(START + number * gap, &format!("line {number}\n"));
    }
}

fn succeeded() -> WorkerEvent {
    WorkerEvent::Succeeded { output: None }
}

fn failed(error: &str, retryable: bool) -> WorkerEvent {
    WorkerEvent::Failed {
        error: error.to_owned(),
        retryable,
    }
}

async fn run_program(cluster: &Cluster) {
    let running = json!({"running": {"startedAt": "2026-01-31T12:00:00Z"}});
    cluster.pod(status("Running", running)).await;
}
