//! Streams and buckets as data: what must exist on the bus before a service can work.
//!
//! At start a service creates what is missing and verifies what it finds against this list; the bus crate
//! does the work, replicas come from configuration.

use std::time::Duration;

use crate::bucket::{Access, Agents, Bucket, Frames, Jobs, Keys, Leases, Runs, Secrets, Templates};
use crate::subject::Prefix;

/// How much a class of data survives; stated by `quintet doctor` and `/ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Lost with the process that holds it.
    Volatile,
    /// Survives the death of any process.
    ProcessSafe,
    /// Survives the loss of power of a machine.
    PowerSafe,
}

/// A stream that must exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: &'static str,
    /// What it captures.
    pub subjects: Vec<String>,
    /// Where captured messages are republished for plain subscribers: source, destination.
    pub republish: Option<(String, String)>,
    /// How long messages stay.
    pub max_age: Duration,
    /// Most messages of one subject; older ones make room.
    pub max_messages_per_subject: i64,
    /// Whether a message may bring its own time to live.
    pub per_message_ttl: bool,
    /// When messages leave it.
    pub keeps: RetentionPolicy,
    /// What its messages are.
    pub holds: StreamContent,
}

/// What the messages of a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamContent {
    /// Each is what its sender wrote.
    Messages,
    /// Amounts, of which the server adds up those of one subject.
    Counters,
}

/// When messages leave a stream, apart from its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionPolicy {
    /// When they are too old or too many.
    Limits,
    /// When a worker has acknowledged them.
    WorkQueue,
}

/// How long what is kept stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Output and events of jobs; as long as ended jobs themselves.
    pub jobs: Duration,
    /// Logs of runs; as long as ended runs themselves.
    pub runs: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let week = Duration::from_secs(7 * 24 * 3600);
        Self {
            jobs: week,
            runs: week,
        }
    }
}

/// A bucket that must exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketSpec {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: &'static str,
    /// For how long watchers can see that a key expired or was deleted; also switches per-key expiry on.
    pub marker_ttl: Duration,
}

/// A store of values that are too large for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobStoreSpec {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: &'static str,
    /// How long a value stays.
    pub max_age: Duration,
}

/// Offers that one agent's queue holds at most: more than any agent has slots.
const ASSIGNMENTS_PER_AGENT: i64 = 4096;
/// How long an offer stays in the stream; longer than any sensible acknowledgement time.
const ASSIGNMENT_AGE: Duration = Duration::from_secs(120);
/// Log messages and events kept per job and kind.
const EVENTS_PER_SUBJECT: i64 = 10_000;

/// How long a count of requests stays; longer than the longest window.
const RATE_AGE: Duration = Duration::from_secs(2 * 3600);

/// For streams that must not lose their oldest messages to newer ones.
const NO_LIMIT: i64 = -1;

/// How long deletions stay visible.
const MARKER_TTL: Duration = Duration::from_secs(60);

/// Names of the streams that [`streams`] lists.
pub mod stream {
    use crate::subject::Prefix;

    /// Queues of agents.
    pub fn assignments(prefix: &Prefix) -> String {
        name(prefix, "assignments")
    }

    /// Logs and events.
    pub fn events(prefix: &Prefix) -> String {
        name(prefix, "events")
    }

    /// Logs of runs.
    pub fn run_logs(prefix: &Prefix) -> String {
        name(prefix, "runlogs")
    }

    /// Queues of run workers.
    pub fn tasks(prefix: &Prefix) -> String {
        name(prefix, "tasks")
    }

    /// Large values; the stream itself is called `OBJ_` and this.
    pub fn blobs(prefix: &Prefix) -> String {
        name(prefix, "blobs")
    }

    /// Counts of requests.
    pub fn rates(prefix: &Prefix) -> String {
        name(prefix, "rates")
    }

    fn name(prefix: &Prefix, what: &str) -> String {
        format!("{}_{what}", prefix.as_str().replace('.', "_"))
    }
}

/// Every stream.
pub fn streams(prefix: &Prefix, retention: Retention) -> Vec<StreamSpec> {
    vec![
        StreamSpec {
            name: stream::assignments(prefix),
            description: "offers of jobs to agents, one subject per agent",
            subjects: vec![format!("{prefix}.assign.*")],
            republish: Some((
                format!("{prefix}.assign.*"),
                format!("{prefix}.assigned.{{{{wildcard(1)}}}}"),
            )),
            max_age: ASSIGNMENT_AGE,
            max_messages_per_subject: ASSIGNMENTS_PER_AGENT,
            per_message_ttl: true,
            keeps: RetentionPolicy::Limits,
            holds: StreamContent::Messages,
        },
        StreamSpec {
            name: stream::events(prefix),
            description: "log lines and events of jobs",
            subjects: vec![format!("{prefix}.evt.job.>")],
            republish: Some((
                format!("{prefix}.evt.job.>"),
                format!("{prefix}.live.job.>"),
            )),
            max_age: retention.jobs,
            max_messages_per_subject: EVENTS_PER_SUBJECT,
            per_message_ttl: false,
            keeps: RetentionPolicy::Limits,
            holds: StreamContent::Messages,
        },
        StreamSpec {
            name: stream::run_logs(prefix),
            description: "logs of runs: statuses, nodes, checkpoints, output",
            subjects: vec![format!("{prefix}.evt.run.>")],
            republish: Some((
                format!("{prefix}.evt.run.>"),
                format!("{prefix}.live.run.>"),
            )),
            max_age: retention.runs,
            max_messages_per_subject: NO_LIMIT,
            per_message_ttl: false,
            keeps: RetentionPolicy::Limits,
            holds: StreamContent::Messages,
        },
        StreamSpec {
            name: stream::tasks(prefix),
            description: "queues of run workers, one subject and one durable consumer per queue",
            subjects: vec![format!("{prefix}.task.*")],
            republish: None,
            max_age: retention.runs,
            max_messages_per_subject: NO_LIMIT,
            per_message_ttl: false,
            keeps: RetentionPolicy::WorkQueue,
            holds: StreamContent::Messages,
        },
        StreamSpec {
            name: stream::rates(prefix),
            description: "requests about runs that were let through, one subject per caller and window",
            subjects: vec![format!("{prefix}.rate.*.*")],
            republish: None,
            max_age: RATE_AGE,
            max_messages_per_subject: 1,
            per_message_ttl: false,
            keeps: RetentionPolicy::Limits,
            holds: StreamContent::Counters,
        },
    ]
}

/// Every store of large values.
pub fn blob_stores(prefix: &Prefix, retention: Retention) -> Vec<BlobStoreSpec> {
    vec![BlobStoreSpec {
        name: stream::blobs(prefix),
        description: "data of checkpoints that is too large for messages, by the id of the checkpoint",
        max_age: retention.runs,
    }]
}

/// Every bucket.
pub fn buckets(prefix: &Prefix) -> Vec<BucketSpec> {
    let bucket = |name, description| BucketSpec {
        name,
        description,
        marker_ttl: MARKER_TTL,
    };
    vec![
        bucket(
            Jobs::bucket(prefix),
            "jobs by id; the watch of this bucket is the live feed of every status",
        ),
        bucket(Agents::bucket(prefix), "agents by id"),
        bucket(Templates::bucket(prefix), "job templates by id"),
        bucket(
            Keys::bucket(prefix),
            "idempotency keys and the job each stands for",
        ),
        bucket(
            Runs::bucket(prefix),
            "runs by shard and id, each up to an entry of its log",
        ),
        bucket(
            Frames::bucket(prefix),
            "the desired state of frames: the active worker, the rate, and each worker's settings",
        ),
        bucket(Leases::bucket(prefix), "leases, renewed by their holders"),
        bucket(
            Access::bucket(prefix),
            "API keys by name: what each allows, and its digest",
        ),
        bucket(
            Secrets::bucket(prefix),
            "secrets that the parts of a system share; only the edge reads them",
        ),
    ]
}
