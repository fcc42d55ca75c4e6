//! Buckets: which records are kept under which keys. One record, one key, one owner.

use std::fmt;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::access::{AccessKey, SecretRecord};
use crate::agent::AgentRecord;
use crate::frame_api::FramesRecord;
use crate::id::{
    AgentId, HolderId, IdempotencyKey, JobId, KeyName, PoolName, RunId, RunShard, TemplateId,
    Token, WorkerId, escape, unescape,
};
use crate::job::{JobRecord, KeyRecord};
use crate::run::RunRecord;
use crate::subject::Prefix;
use crate::template::Template;
use crate::time::Timestamp;

/// A bucket with typed keys and records.
pub trait Bucket: Send + Sync + 'static {
    /// What a record is found by.
    type Key: Send + Sync;
    /// What is kept.
    type Record: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;
    /// The bucket's name after the prefix.
    const NAME: &'static str;
    /// The key as stored in the bucket.
    fn render_key(key: &Self::Key) -> String;
    /// Reads a key back; `None` for a key that this version does not write.
    fn parse_key(text: &str) -> Option<Self::Key>;

    /// The bucket's whole name. Dots of the prefix become `_`, since bucket names hold none.
    fn bucket(prefix: &Prefix) -> String {
        format!("{}_{}", prefix.as_str().replace('.', "_"), Self::NAME)
    }
}

/// The key of probes, in every bucket. No record has it: in the spelling of keys, "=" is followed by two digits.
pub const PROBE_KEY: &str = "=probe";

macro_rules! bucket {
    ($(#[$doc:meta])* $name:ident = $text:literal, $key:ty => $record:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl Bucket for $name {
            type Key = $key;
            type Record = $record;
            const NAME: &'static str = $text;

            fn render_key(key: &Self::Key) -> String {
                key.to_token().map(|token| token.into_owned()).unwrap_or_default()
            }

            fn parse_key(text: &str) -> Option<Self::Key> {
                <$key>::from_token(Some(text))
            }
        }
    };
}

bucket!(
    /// Jobs, written by the pool's leading scheduler; ended ones expire.
    Jobs = "jobs", JobId => JobRecord
);
bucket!(
    /// Agents, written by the pool's leading scheduler.
    Agents = "agents", AgentId => AgentRecord
);
bucket!(
    /// Job templates, written by any scheduler.
    Templates = "templates", TemplateId => Template
);
bucket!(
    /// Idempotency keys, written by the pool's leading scheduler.
    Keys = "keys", IdempotencyKey => KeyRecord
);
bucket!(
    /// Leases, each written by its holder.
    Leases = "leases", LeaseKey => Lease
);

bucket!(
    /// Runs, written by the runner that owns their shard; ended ones expire.
    Runs = "runs", RunKey => RunRecord
);

bucket!(
    /// The desired state of frames, written by the leading frames service.
    Frames = "frames", FramesKey => FramesRecord
);

bucket!(
    /// API keys of the interface, written by any edge.
    Access = "access", KeyName => AccessKey
);
bucket!(
    /// Secrets that the parts of a system share, created once by the part that needs one first. Only the edge may read them.
    Secrets = "secrets", SecretKey => SecretRecord
);

/// What a secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecretKey {
    /// Signing tickets and sessions of the edge.
    EdgeSigning,
}

impl Token for SecretKey {
    fn to_token(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Self::EdgeSigning => Some("edge.signing".into()),
        }
    }

    fn from_token(token: Option<&str>) -> Option<Self> {
        match token? {
            "edge.signing" => Some(Self::EdgeSigning),
            _ => None,
        }
    }
}

/// What of frames is kept under a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FramesKey {
    /// What was set for all.
    State,
    /// What was set for one worker.
    Worker(WorkerId),
}

impl Token for FramesKey {
    fn to_token(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Self::State => Some("state".into()),
            Self::Worker(worker) => Some(format!("worker.{}", escape(worker.as_str())).into()),
        }
    }

    fn from_token(token: Option<&str>) -> Option<Self> {
        match token? {
            "state" => Some(Self::State),
            token => {
                let worker = unescape(token.strip_prefix("worker.")?)?;
                WorkerId::parse(worker).ok().map(Self::Worker)
            }
        }
    }
}

/// The key of a run: its shard comes first, so that a runner can read what is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunKey(pub RunId);

impl RunKey {
    /// The keys of a shard, as a filter.
    pub fn filter(shard: RunShard) -> String {
        format!("{shard}.*")
    }
}

impl Token for RunKey {
    fn to_token(&self) -> Option<std::borrow::Cow<'_, str>> {
        Some(format!("{}.{}", RunShard::of(self.0), self.0).into())
    }

    fn from_token(token: Option<&str>) -> Option<Self> {
        let token = token?;
        let (_, run) = token.split_once('.')?;
        let key = Self(RunId::from_token(Some(run))?);
        (key.to_token()? == token).then_some(key)
    }
}

/// What a lease is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LeaseKey {
    /// Leading a pool's agents and jobs.
    Scheduler(PoolName),
    /// Owning a part of all runs.
    Runner(RunShard),
    /// Driving the display.
    Frames,
}

impl Token for LeaseKey {
    fn to_token(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Self::Scheduler(pool) => Some(format!("scheduler.{}", escape(pool.as_str())).into()),
            Self::Runner(shard) => Some(format!("runner.{shard}").into()),
            Self::Frames => Some("frames".into()),
        }
    }

    fn from_token(token: Option<&str>) -> Option<Self> {
        let token = token?;
        if token == "frames" {
            return Some(Self::Frames);
        }
        if let Some(shard) = token.strip_prefix("runner.") {
            return RunShard::from_token(Some(shard)).map(Self::Runner);
        }
        let pool = token.strip_prefix("scheduler.")?;
        PoolName::parse(unescape(pool)?).ok().map(Self::Scheduler)
    }
}

/// As the key of its record, for people.
impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Leases::render_key(self))
    }
}

/// The holder of a lease. It expires on its own unless renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The process that holds it.
    pub holder: HolderId,
    /// Since when without interruption.
    pub since: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_what_they_wrote() {
        let key = LeaseKey::Scheduler(PoolName::default());
        assert_eq!(Leases::render_key(&key), "scheduler.default");
        assert_eq!(key.to_string(), "scheduler.default");
        assert_eq!(Leases::parse_key("scheduler.default"), Some(key));
        let worker = FramesKey::Worker(WorkerId::parse("a.b").unwrap());
        assert_eq!(Frames::render_key(&worker), "worker.a=2Eb");
        for key in [worker, FramesKey::State] {
            assert_eq!(Frames::parse_key(&Frames::render_key(&key)), Some(key));
        }
        assert_eq!(Leases::parse_key("frames"), Some(LeaseKey::Frames));
        let signing = SecretKey::EdgeSigning;
        assert_eq!(Secrets::render_key(&signing), "edge.signing");
        assert_eq!(Secrets::parse_key("edge.signing"), Some(signing));
        let agent = AgentId::parse("a b").unwrap();
        assert_eq!(Agents::render_key(&agent), "a=20b");
        assert_eq!(Agents::parse_key("a=20b"), Some(agent));
        assert_eq!(
            Agents::bucket(&Prefix::parse("lab.one").unwrap()),
            "lab_one_agents"
        );
    }
}
