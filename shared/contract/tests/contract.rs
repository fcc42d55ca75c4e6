//! The committed schemas match the code, and stored samples can still be read.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot continue")]

use std::fs;
use std::path::{Path, PathBuf};

use quintet_contract::access::{AccessKey, SecretRecord};
use quintet_contract::agent::{AgentRecord, AgentReports, Assignment};
use quintet_contract::bucket::Lease;
use quintet_contract::event::{JobEvent, JobLog};
use quintet_contract::frame_api::{FrameWorkerHeartbeat, FrameWorkerMessage, FramesRecord};
use quintet_contract::job::{JobRecord, KeyRecord};
use quintet_contract::run::{RunLogBatch, RunRecord};
use quintet_contract::schema::files;
use quintet_contract::template::Template;
use quintet_contract::worker::WorkerHeartbeat;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_generated_documents_are_up_to_date() {
    let mut stale = Vec::new();
    for file in files() {
        let path = root().join(&file.path);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &file.content).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != file.content {
            stale.push(file.path);
        }
    }
    assert!(
        stale.is_empty(),
        "out of date, run `make schemas` and review the change: {stale:?}"
    );
}

/// Reads a sample in JSON, and again from the MessagePack that is written of it.
fn reads<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str) {
    let path = root()
        .join("schemas/samples/v1")
        .join(format!("{name}.json"));
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let sample: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut bytes = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut bytes)
        .with_struct_map()
        .with_human_readable();
    sample.serialize(&mut serializer).unwrap();
    let mut deserializer = rmp_serde::Deserializer::new(bytes.as_slice()).with_human_readable();
    assert_eq!(T::deserialize(&mut deserializer).unwrap(), sample, "{name}");
}

#[test]
fn samples_of_every_past_version_can_be_read() {
    reads::<JobRecord>("JobRecord");
    reads::<JobRecord>("JobRecordOfNode");
    reads::<KeyRecord>("KeyRecord");
    reads::<AgentRecord>("AgentRecord");
    reads::<AgentReports>("AgentReports");
    reads::<Assignment>("Assignment");
    reads::<Template>("Template");
    reads::<Lease>("Lease");
    reads::<AccessKey>("AccessKey");
    reads::<SecretRecord>("SecretRecord");
    reads::<JobLog>("JobLog");
    reads::<JobEvent>("JobEvent");
    reads::<RunRecord>("RunRecord");
    reads::<RunRecord>("RunRecordWithTrace");
    reads::<RunLogBatch>("RunLogBatch");
    reads::<FramesRecord>("FramesRecord");
    reads::<FramesRecord>("FramesRecordOfWorker");
    reads::<FrameWorkerHeartbeat>("FrameWorkerHeartbeat");
    reads::<WorkerHeartbeat>("FrameWorkerHeartbeat");
    reads::<FrameWorkerHeartbeat>("FrameWorkerHeartbeatOfEffect");
    reads::<WorkerHeartbeat>("FrameWorkerHeartbeatOfEffect");
    reads::<WorkerHeartbeat>("WorkerHeartbeat");
    reads::<FrameWorkerMessage>("FrameWorkerMessage");
}
