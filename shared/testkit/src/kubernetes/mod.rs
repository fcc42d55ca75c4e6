//! A fake of the Kubernetes API, for the few requests that are sent to it.
//!
//! Honest in what it takes: every path, verb, parameter and body is one that the real API has. A body is read into the
//! type of `k8s-openapi` and written again, and must come out as it came in, so that a field that does not exist is found;
//! names, labels and selectors follow the rules of Kubernetes; the token must be there. Whatever is wrong is refused and
//! fails the test. It plays versions, watches with bookmarks, 410 Gone, 409, log streams that break, and faults on demand.
//!
//! What it does not do: there is no scheduler, controller or kubelet, so that a test decides itself on the outcome of a
//! Job and its pod; no admission, quota, defaults or validation of a pod beyond what is listed above; no TLS; no paging
//! of lists; a removed Job is gone at once, whatever the propagation.

#![expect(clippy::unwrap_used, reason = "what cannot be played fails the test")]

mod answers;
mod check;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The one namespace that it has.
pub const NAMESPACE: &str = "runs";
const TOKEN: &str = "a-token";

/// The operation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are self-explanatory")]
pub enum Verb {
    CreateJob,
    GetJob,
    DeleteJob,
    ListPods,
    WatchPods,
    Log,
}

/// A fault of a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered with this code, and a `Retry-After` of so many seconds.
    Code(u16, Option<u32>),
    /// The log breaks off after so many bytes.
    CutLog(usize),
    /// The log ends after so many bytes, as if that were all.
    ShortLog(usize),
}

/// One request as it was received.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// The operation.
    pub verb: Verb,
    /// The parameters of the query.
    pub query: BTreeMap<String, String>,
    /// The body; null where there is none.
    pub body: Value,
    /// When.
    pub at: tokio::time::Instant,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// Watches from before this version are answered 410 Gone.
    oldest: u64,
    /// Ends every watch when it changes.
    watch_epoch: u64,
    jobs: BTreeMap<String, Job>,
    pods: BTreeMap<String, Value>,
    /// Events for watches: the version, the kind of the event, the object.
    history: Vec<(u64, &'static str, Value)>,
    /// Lines of the log: nanoseconds, and the text with its line end.
    log: Vec<(i64, String)>,
    is_log_ended: bool,
    faults: VecDeque<(Verb, Fault)>,
    requests: Vec<RecordedRequest>,
    problems: Vec<String>,
}

/// A cluster with one Job at a time.
#[derive(Debug)]
pub struct Cluster {
    shared: Arc<Shared>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let result = act(&mut self.lock());
        self.changes.send_modify(|count| *count += 1);
        result
    }
}

impl State {
    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn record_event(&mut self, kind: &'static str, mut object: Value) {
        let version = self.next_version();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        if let Some(name) = object["metadata"]["name"].as_str() {
            match kind {
                "DELETED" => self.pods.remove(name),
                _ => self.pods.insert(name.to_owned(), object.clone()),
            };
        }
        self.history.push((version, kind, object));
    }

    fn fault(&mut self, verb: Verb) -> Option<Fault> {
        let place = self.faults.iter().position(|(of, _)| *of == verb)?;
        self.faults.remove(place).map(|(_, fault)| fault)
    }
}

impl Cluster {
    /// Starts the server on a free port of the loopback interface.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        let app = answers::router(Arc::clone(&shared));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            shared,
            address,
            serving,
        }
    }

    /// A kubeconfig for it.
    pub fn kubeconfig(&self) -> String {
        let server = format!("http://{}", self.address);
        serde_json::to_string(&json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "runner"}}],
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "users": [{"name": "runner", "user": {"token": TOKEN}}],
        }))
        .unwrap()
    }

    /// The next request of this kind fails.
    pub fn fail_next(&self, verb: Verb, fault: Fault) {
        self.shared
            .change(|state| state.faults.push_back((verb, fault)));
    }

    /// Waits until the faults have been used up.
    pub async fn faults_used(&self) {
        self.wait("the faults are used", |state| {
            state.faults.is_empty().then_some(())
        })
        .await;
    }

    /// Waits for the Job and returns its name.
    pub async fn job(&self) -> String {
        self.wait("there is a job", |state| state.jobs.keys().next().cloned())
            .await
    }

    /// Waits until a request of this kind was received so many times.
    pub async fn until_requested(&self, verb: Verb, times: usize) -> Vec<RecordedRequest> {
        self.wait("the request", |state| {
            let found: Vec<_> = state
                .requests
                .iter()
                .filter(|request| request.verb == verb)
                .cloned()
                .collect();
            (found.len() >= times).then_some(found)
        })
        .await
    }

    /// The recorded requests of this kind.
    pub fn requests(&self, verb: Verb) -> Vec<RecordedRequest> {
        let state = self.shared.lock();
        let of_kind = state.requests.iter().filter(|request| request.verb == verb);
        of_kind.cloned().collect()
    }

    /// The Job's pod now has this status; it is made where there is none.
    pub async fn pod(&self, status: Value) {
        let job = self.job().await;
        self.shared.change(|state| {
            let uid = state.jobs[&job].metadata.uid.clone().unwrap();
            let name = format!("{job}-x7k2p");
            let kind = if state.pods.contains_key(&name) {
                "MODIFIED"
            } else {
                "ADDED"
            };
            let pod = state.pods.get(&name).cloned();
            let mut pod = pod.unwrap_or_else(|| {
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
                    "name": name, "namespace": NAMESPACE,
                    "labels": {"batch.kubernetes.io/job-name": job, "batch.kubernetes.io/controller-uid": uid},
                }})
            });
            pod["status"] = status;
            state.record_event(kind, pod);
        });
    }

    /// The Job's pod is being deleted.
    pub fn mark_pod_deleted(&self) {
        self.shared.change(|state| {
            let mut pod = state.pods.values().next().cloned().unwrap();
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-31T12:00:00Z");
            state.record_event("MODIFIED", pod);
        });
    }

    /// The Job's pod is gone.
    pub fn delete_pod(&self) {
        self.shared.change(|state| {
            let pod = state.pods.values().next().cloned().unwrap();
            state.record_event("DELETED", pod);
        });
    }

    /// Deletes the Job, as an outside client would.
    pub fn delete_job(&self) {
        self.shared.change(|state| state.jobs.clear());
    }

    /// Creates a Job, as an outside client would.
    pub fn put_job(&self, job: Job) {
        let name = job.metadata.name.clone().unwrap();
        self.shared.change(|state| state.jobs.insert(name, job));
    }

    /// The Job has failed.
    pub fn fail_job(&self, reason: &str) {
        let condition = json!({"type": "Failed", "status": "True", "reason": reason, "message": "Job was active longer"});
        let status = json!({"conditions": [condition]});
        self.shared.change(|state| {
            let job = state.jobs.values_mut().next().unwrap();
            job.status = Some(serde_json::from_value(status).unwrap());
        });
    }

    /// The program writes a line at this time.
    pub fn log(&self, nanoseconds: i64, line: &str) {
        self.shared
            .change(|state| state.log.push((nanoseconds, line.to_owned())));
    }

    /// The program writes nothing more.
    pub fn end_log(&self) {
        self.shared.change(|state| state.is_log_ended = true);
    }

    /// The program ended.
    pub async fn end(&self, exit_code: i32, reason: &str) {
        self.end_log();
        let phase = if exit_code == 0 {
            "Succeeded"
        } else {
            "Failed"
        };
        self.pod(status(
            phase,
            json!({"terminated": {"exitCode": exit_code, "reason": reason}}),
        ))
        .await;
    }

    /// Sends a bookmark to every watch.
    pub fn bookmark(&self) -> u64 {
        self.shared.change(|state| {
            let bookmark =
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"creationTimestamp": null}});
            state.record_event("BOOKMARK", bookmark);
            state.version
        })
    }

    /// Every watch ends.
    pub fn end_watches(&self) {
        self.shared.change(|state| state.watch_epoch += 1);
    }

    /// No client can watch from a version before the present one any more.
    pub fn forget(&self) {
        self.shared.change(|state| {
            state.next_version();
            state.oldest = state.version;
        });
    }

    async fn wait<T>(&self, what: &str, mut find: impl FnMut(&State) -> Option<T>) -> T {
        let mut changes = self.shared.changes.subscribe();
        let waiting = async {
            loop {
                if let Some(found) = find(&self.shared.lock()) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await;
        found.unwrap_or_else(|_| panic!("not in time: {what}: {:?}", self.shared.lock().requests))
    }

    /// Fails the test if any request would be refused by the real API.
    pub fn assert_requests_valid(&self) {
        assert_eq!(self.shared.lock().problems, Vec::<String>::new());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.serving.abort();
        if !std::thread::panicking() {
            self.assert_requests_valid();
        }
    }
}

/// The status of a pod whose program is in this state.
pub fn status(phase: &str, container: Value) -> Value {
    json!({"phase": phase, "containerStatuses": [{
        "name": "program", "image": "busybox:1", "imageID": "", "ready": false, "restartCount": 0, "state": container,
    }]})
}
