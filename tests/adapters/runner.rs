//! Runners on a real NATS, and writes that it rejects.

use std::collections::BTreeMap;
use std::time::Duration;

use quintet_bus::{Bus, BusConfig, RequestError, new_checkpoint_id, new_run_id};
use quintet_contract::error::{ErrorCode, Retry};
use quintet_contract::id::{HolderId, RunId, RunShard};
use quintet_contract::run::RunMode;
use quintet_contract::run_api::{AddCheckpoint, CreateRun};
use quintet_contract::subject::{AddRunCheckpoint, CreateRuns};
use quintet_runner::{RunnerConfig, run};
use quintet_service::health::Health;
use quintet_testkit::Nats;
use serde_json::json;
use tokio_util::sync::CancellationToken;

const TIMEOUT: Duration = Duration::from_secs(20);

async fn create(bus: &Bus) -> RunId {
    let create = CreateRun {
        run_id: new_run_id(),
        mode: RunMode::Queue,
        plan: None,
        inputs: None,
        name: None,
        metadata: None,
        owner: None,
        retry_of: None,
        finished: BTreeMap::new(),
    };
    let shard = RunShard::of(create.run_id);
    let subject = CreateRuns { shard };
    let created = bus.request_until(&subject, &create, TIMEOUT);
    created.await.unwrap().run.id
}

async fn checkpoint(bus: &Bus, run: RunId, bytes: usize) -> Result<(), RequestError> {
    let add = AddCheckpoint {
        run_id: run,
        checkpoint_id: new_checkpoint_id(),
        kind: "step".to_owned(),
        data: Some(json!("x".repeat(bytes))),
        blob: None,
    };
    let shard = RunShard::of(run);
    let subject = AddRunCheckpoint { shard };
    let added = bus.request(&subject, &add, TIMEOUT);
    added.await.map(drop)
}

#[tokio::test]
async fn a_checkpoint_that_nats_rejects_is_refused_alone_and_nothing_is_reloaded() {
    let nats = Nats::options().config("max_payload: 65536\n");
    let nats = nats.start().await.unwrap();
    let bus = Bus::connect(BusConfig::open(nats.url(), "test"))
        .await
        .unwrap();
    bus.ensure_topology().await.unwrap();
    let config = RunnerConfig::new(HolderId::parse("one").unwrap());
    let health = Health::new("test").component("runner");
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(run(config, bus.clone(), health, shutdown.clone()));
    let first = create(&bus).await;
    checkpoint(&bus, first, 40_000).await.unwrap();
    // The largest request that fits a message makes an entry of the log that does not.
    let mut rejected = None;
    for bytes in (64_000..65_536).rev().step_by(16) {
        match checkpoint(&bus, first, bytes).await {
            Err(RequestError::Refused(reply)) if reply.error.contains("does not store") => {
                rejected = Some(reply);
                break;
            }
            // It does not even leave.
            Err(RequestError::Refused(reply)) if reply.code == ErrorCode::PayloadTooLarge => {}
            other => panic!("{bytes} bytes: {other:?}"),
        }
    }
    let rejected = rejected.unwrap();
    assert_eq!(
        (rejected.code, rejected.retry),
        (ErrorCode::PayloadTooLarge, Retry::Never)
    );
    // Answered at the first attempt: a runner that reloads answers nothing.
    checkpoint(&bus, first, 10).await.unwrap();
    let second = create(&bus).await;
    checkpoint(&bus, second, 10).await.unwrap();
    shutdown.cancel();
    running.await.unwrap().unwrap();
}
