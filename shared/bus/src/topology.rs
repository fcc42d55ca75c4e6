//! Topology: the streams and buckets that must exist on the server, created when missing, checked when there.
//!
//! Any number of processes may do this at once: creating what already exists in the same form succeeds, and
//! a process that comes second with another form gets the differences named. Nothing that exists is ever changed but
//! what no process can want otherwise: the subjects that a stream captures and where it republishes them. A role that
//! may not create only verifies.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, Republish, RetentionPolicy as NatsRetentionPolicy, StorageType,
};
use quintet_contract::topology::{
    BlobStoreSpec, BucketSpec, Durability, RetentionPolicy, StreamContent, StreamSpec, blob_stores,
    buckets, streams,
};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::connect::Bus;
use crate::error::{Cause, TopologyError};
use crate::kv::stream_of;

/// How long a server or cluster that is starting is waited for.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Wait between two polls of a server that is not ready.
const RETRY: Duration = Duration::from_millis(200);

/// The status of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There, as it should be.
    Ok,
    /// There, but not as it should be; one phrase per difference.
    Differs(Vec<String>),
    /// There, but without a leader: it can neither be written nor read. It passes within seconds, or most of the cluster
    /// is out of reach. A server that is cut off reports it of every stream if it led the cluster before; others report
    /// nothing.
    Leaderless,
    /// Not there.
    Missing,
}

/// What was found of one stream or bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamReport {
    /// The stream; a bucket's begins with `KV_`.
    pub name: String,
    /// Its status.
    pub condition: Condition,
    /// Copies that it has; zero when missing.
    pub replicas: usize,
    /// What its messages survive.
    pub durability: Durability,
}

/// What was found of everything that must exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyReport {
    /// Streams, then the streams of buckets.
    pub streams: Vec<StreamReport>,
}

impl TopologyReport {
    /// Whether everything is there as it should be.
    pub fn is_ok(&self) -> bool {
        self.streams
            .iter()
            .all(|stream| stream.condition == Condition::Ok)
    }

    /// Whether everything is there and has a leader, be it different: enough to work.
    pub fn is_usable(&self) -> bool {
        self.streams.iter().all(|stream| match stream.condition {
            Condition::Ok | Condition::Differs(_) => true,
            Condition::Leaderless | Condition::Missing => false,
        })
    }

    /// One sentence per thing that is not as it should be.
    pub fn problems(&self) -> Vec<String> {
        let of = |stream: &StreamReport| match &stream.condition {
            Condition::Ok => Vec::new(),
            Condition::Leaderless => {
                vec![format!(
                    "stream {} has no leader at the moment",
                    stream.name
                )]
            }
            Condition::Missing => vec![format!("stream {} is missing", stream.name)],
            Condition::Differs(differences) => differences
                .iter()
                .map(|difference| format!("stream {}: {difference}", stream.name))
                .collect(),
        };
        self.streams.iter().flat_map(of).collect()
    }
}

impl Bus {
    /// Creates what is missing and reports the status of everything.
    ///
    /// # Errors
    /// [`TopologyError::Create`] for what is missing and cannot be created, [`TopologyError::Inspect`] for what cannot be read.
    pub async fn ensure_topology(&self) -> Result<TopologyReport, TopologyError> {
        let mut reports = Vec::new();
        for wanted in self.wanted() {
            let found = match self.inspect(&wanted.name).await? {
                Some(found) if captures_others(&wanted, &found.config) => {
                    self.capture(&wanted, found.config).await?
                }
                Some(found) => found,
                None => self.create(&wanted).await?,
            };
            let report = report(&wanted, Some(&found));
            if let Condition::Differs(differences) = &report.condition {
                warn!(stream = %report.name, ?differences, "a stream is not as configured");
            }
            reports.push(report);
        }
        Ok(TopologyReport { streams: reports })
    }

    /// Reports the status of everything and creates nothing.
    ///
    /// # Errors
    /// [`TopologyError::Inspect`] for what cannot be read.
    pub async fn verify_topology(&self) -> Result<TopologyReport, TopologyError> {
        let mut reports = Vec::new();
        for wanted in self.wanted() {
            let found = self.inspect(&wanted.name).await?;
            reports.push(report(&wanted, found.as_ref()));
        }
        Ok(TopologyReport { streams: reports })
    }

    fn wanted(&self) -> Vec<Config> {
        let replicas = self.config().replicas.max(1);
        let streams = streams(self.prefix(), self.config().retention).into_iter();
        let buckets = buckets(self.prefix()).into_iter();
        let blobs = blob_stores(self.prefix(), self.config().retention).into_iter();
        streams
            .map(|spec| stream_config(spec, replicas))
            .chain(buckets.map(|spec| bucket_config(spec, replicas)))
            .chain(blobs.map(|spec| blob_store_config(spec, replicas)))
            .collect()
    }

    async fn inspect(&self, name: &str) -> Result<Option<Info>, TopologyError> {
        let inspect = |source: Cause| TopologyError::Inspect {
            stream: name.to_owned(),
            source,
        };
        let end = Instant::now() + TIMEOUT;
        loop {
            let error = match self.jetstream().get_stream(name).await {
                Ok(stream) => return Ok(Some(stream.cached_info().clone())),
                Err(error) => error,
            };
            match error.kind() {
                GetStreamErrorKind::JetStream(reason)
                    if reason.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    return Ok(None);
                }
                GetStreamErrorKind::JetStream(_) | GetStreamErrorKind::Request
                    if Instant::now() < end =>
                {
                    debug!(stream = name, %error, "cannot inspect a stream yet");
                    sleep(RETRY).await;
                }
                GetStreamErrorKind::JetStream(_)
                | GetStreamErrorKind::Request
                | GetStreamErrorKind::EmptyName
                | GetStreamErrorKind::InvalidStreamName => return Err(inspect(error.into())),
            }
        }
    }

    async fn create(&self, wanted: &Config) -> Result<Info, TopologyError> {
        let refused = |source: Cause| TopologyError::Create {
            stream: wanted.name.clone(),
            source,
        };
        let end = Instant::now() + TIMEOUT;
        loop {
            let error = match self.jetstream().create_stream(wanted.clone()).await {
                Ok(stream) => {
                    info!(stream = %wanted.name, replicas = wanted.num_replicas, "created a stream");
                    return Ok(stream.cached_info().clone());
                }
                Err(error) => error,
            };
            match error.kind() {
                // Another process was faster with another form: what exists now decides.
                CreateStreamErrorKind::JetStream(reason)
                    if reason.error_code() == ErrorCode::STREAM_NAME_EXIST =>
                {
                    if let Some(found) = self.inspect(&wanted.name).await? {
                        return Ok(found);
                    }
                }
                CreateStreamErrorKind::JetStream(reason) if !may_pass(reason.error_code()) => {
                    return Err(refused(error.into()));
                }
                _ => {}
            }
            if Instant::now() >= end {
                return Err(refused(error.into()));
            }
            debug!(stream = %wanted.name, %error, "cannot create a stream yet");
            sleep(RETRY).await;
        }
    }
}

impl Bus {
    /// Gives a stream of an older version the subjects of this one. All the rest stays as it was found.
    async fn capture(&self, wanted: &Config, found: Config) -> Result<Info, TopologyError> {
        let config = Config {
            subjects: wanted.subjects.clone(),
            republish: wanted.republish.clone(),
            ..found
        };
        let updated = self.jetstream().update_stream(config).await;
        info!(stream = %wanted.name, subjects = ?wanted.subjects, "changed the subjects of a stream");
        updated.map_err(|error| TopologyError::Create {
            stream: wanted.name.clone(),
            source: error.into(),
        })
    }
}

/// Whether a stream captures other subjects than it should, or republishes them elsewhere.
fn captures_others(wanted: &Config, found: &Config) -> bool {
    let to = |config: &Config| {
        let republish = config.republish.as_ref();
        republish.map(|republish| (republish.source.clone(), republish.destination.clone()))
    };
    wanted.subjects != found.subjects || to(wanted) != to(found)
}

/// Whether a refusal is that of a cluster which is still starting.
fn may_pass(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CLUSTER_NOT_AVAILABLE
            | ErrorCode::CLUSTER_NO_PEERS
            | ErrorCode::INSUFFICIENT_RESOURCES
    )
}

fn stream_config(spec: StreamSpec, replicas: usize) -> Config {
    Config {
        name: spec.name,
        description: Some(spec.description.to_owned()),
        subjects: spec.subjects,
        republish: spec.republish.map(|(source, destination)| Republish {
            source,
            destination,
            headers_only: false,
        }),
        max_age: spec.max_age,
        max_messages_per_subject: spec.max_messages_per_subject,
        max_messages: -1,
        max_bytes: -1,
        allow_message_ttl: spec.per_message_ttl,
        allow_message_counter: matches!(spec.holds, StreamContent::Counters),
        allow_direct: true,
        storage: StorageType::File,
        retention: match spec.keeps {
            RetentionPolicy::Limits => NatsRetentionPolicy::Limits,
            RetentionPolicy::WorkQueue => NatsRetentionPolicy::WorkQueue,
        },
        discard: DiscardPolicy::Old,
        num_replicas: replicas,
        ..Config::default()
    }
}

/// The form in which every NATS client knows a bucket.
fn bucket_config(spec: BucketSpec, replicas: usize) -> Config {
    Config {
        name: stream_of(&spec.name),
        description: Some(spec.description.to_owned()),
        subjects: vec![format!("$KV.{}.>", spec.name)],
        max_messages_per_subject: 1,
        max_messages: -1,
        max_bytes: -1,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(spec.marker_ttl),
        storage: StorageType::File,
        retention: NatsRetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        num_replicas: replicas,
        ..Config::default()
    }
}

/// The form in which every NATS client knows an object store.
fn blob_store_config(spec: BlobStoreSpec, replicas: usize) -> Config {
    Config {
        name: format!("OBJ_{}", spec.name),
        description: Some(spec.description.to_owned()),
        subjects: vec![
            format!("$O.{}.C.>", spec.name),
            format!("$O.{}.M.>", spec.name),
        ],
        max_age: spec.max_age,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_bytes: -1,
        allow_rollup: true,
        allow_direct: true,
        storage: StorageType::File,
        retention: NatsRetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        num_replicas: replicas,
        ..Config::default()
    }
}

fn report(wanted: &Config, found: Option<&Info>) -> StreamReport {
    let name = wanted.name.clone();
    let Some(found) = found else {
        return StreamReport {
            name,
            condition: Condition::Missing,
            replicas: 0,
            durability: Durability::Volatile,
        };
    };
    let differences = differences(wanted, &found.config);
    let cluster = found.cluster.as_ref();
    let condition = if cluster.is_some_and(|cluster| cluster.leader.is_none()) {
        Condition::Leaderless
    } else if differences.is_empty() {
        Condition::Ok
    } else {
        Condition::Differs(differences)
    };
    StreamReport {
        name,
        condition,
        replicas: found.config.num_replicas,
        durability: durability(&found.config),
    }
}

/// A single copy is written to the file at once but synced to the disk by the server's interval only.
fn durability(config: &Config) -> Durability {
    match config.storage {
        StorageType::Memory => Durability::Volatile,
        StorageType::File if config.num_replicas >= 3 => Durability::PowerSafe,
        StorageType::File => Durability::ProcessSafe,
    }
}

fn differences(wanted: &Config, found: &Config) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, wanted: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
        let (wanted, found) = (format!("{wanted:?}"), format!("{found:?}"));
        if wanted != found {
            differences.push(format!("{what} is {found}, should be {wanted}"));
        }
    };
    let republish = |config: &Config| {
        config
            .republish
            .as_ref()
            .map(|republish| format!("{} to {}", republish.source, republish.destination))
    };
    compare("subjects", &wanted.subjects, &found.subjects);
    compare("replicas", &wanted.num_replicas, &found.num_replicas);
    compare("storage", &wanted.storage, &found.storage);
    compare("retention", &wanted.retention, &found.retention);
    compare("max age", &wanted.max_age, &found.max_age);
    compare("max messages", &wanted.max_messages, &found.max_messages);
    compare("max bytes", &wanted.max_bytes, &found.max_bytes);
    compare(
        "max messages per subject",
        &wanted.max_messages_per_subject,
        &found.max_messages_per_subject,
    );
    compare("discard policy", &wanted.discard, &found.discard);
    compare("republish", &republish(wanted), &republish(found));
    compare("direct get", &wanted.allow_direct, &found.allow_direct);
    compare("rollup", &wanted.allow_rollup, &found.allow_rollup);
    compare(
        "per-message expiry",
        &wanted.allow_message_ttl,
        &found.allow_message_ttl,
    );
    compare(
        "counters",
        &wanted.allow_message_counter,
        &found.allow_message_counter,
    );
    compare(
        "life of delete markers",
        &wanted.subject_delete_marker_ttl,
        &found.subject_delete_marker_ttl,
    );
    differences
}
