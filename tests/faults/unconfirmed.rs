//! A KV stream that confirms no writes for a while, on a connection that stands and with leases that are renewed: the owner
//! of the bucket rejects writes, and continues by itself as soon as writes are confirmed again.

use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::join_all;
use quintet_contract::bucket::{Bucket, Frames, Jobs, Runs};
use quintet_contract::subject::Prefix;
use quintet_testkit::wait_for;
use quintet_tests::{Api, TIMEOUT};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// A service that owns a bucket, and a request that makes it write there.
struct Owner {
    name: &'static str,
    bucket: String,
    path: &'static str,
    /// The body of a request; the number makes each one a change.
    body: fn(u32) -> Value,
}

fn owners() -> [Owner; 3] {
    let prefix = Prefix::default();
    [
        Owner {
            name: "scheduler",
            bucket: Jobs::bucket(&prefix),
            path: "/v1/jobs",
            body: |_| json!({"inlineConfig": {"executor": "noop", "durationMs": 0}}),
        },
        Owner {
            name: "runner",
            bucket: Runs::bucket(&prefix),
            path: "/runs?mode=queue",
            body: |_| json!({"plan": {"nodes": [{"id": "rest", "kind": "sleep", "for": "1ms"}]}}),
        },
        Owner {
            name: "frames",
            bucket: Frames::bucket(&prefix),
            path: "/fps",
            // Never the rate that a write without a confirmation has stored: that would be no change.
            body: |number| json!({"fps": 1.0 + f64::from(number) / 1000.0}),
        },
    ]
}

impl Owner {
    /// Sends the request: the status and the text of the response.
    async fn write(&self, api: &Api) -> (u16, String) {
        static SENT: AtomicU32 = AtomicU32::new(0);
        let body = (self.body)(SENT.fetch_add(1, Ordering::Relaxed));
        let request = api.request(Method::POST, self.path).json(&body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.text().await.unwrap())
    }

    /// Sends the request until it is done.
    async fn until_written(&self, api: &Api) -> Result<(), String> {
        let written = wait_for(self.name, TIMEOUT, async || match self.write(api).await {
            (200..300, _) => Ok(()),
            (status, text) => Err(format!("{status} {text}")),
        });
        written.await.map_err(|timeout| format!("{timeout:?}"))
    }

    /// Sends the request until it is rejected because writes are not confirmed.
    async fn until_rejected(&self, api: &Api) -> Result<(), String> {
        let rejected = wait_for(self.name, TIMEOUT, async || match self.write(api).await {
            (503 | 504, _) => Ok(()),
            (status, text) => Err(format!("{status} {text}")),
        });
        rejected.await.map_err(|timeout| format!("{timeout:?}"))
    }
}

#[tokio::test]
async fn owners_go_on_once_a_bucket_confirms_writes_again() {
    let cluster = Cluster::start().await;
    let _owners = [cluster.scheduler(), cluster.runner(), cluster.frames()];
    let (_edge, api) = cluster.edge().await;
    let owners = owners();
    let (api, nats) = (&api, &cluster.nats);
    for outcome in join_all(owners.iter().map(|owner| owner.until_written(api))).await {
        outcome.unwrap();
    }
    for owner in &owners {
        let stream = format!("KV_{}", owner.bucket);
        nats.withhold_acks(&stream).await.unwrap();
    }
    for outcome in join_all(owners.iter().map(|owner| owner.until_rejected(api))).await {
        outcome.unwrap();
    }
    for owner in &owners {
        let stream = format!("KV_{}", owner.bucket);
        nats.confirm_acks(&stream).await.unwrap();
    }
    let outcomes = join_all(owners.iter().map(|owner| owner.until_written(api))).await;
    let failed: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "still shut: {failed:#?}");
}
