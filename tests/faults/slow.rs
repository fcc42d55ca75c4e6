//! Listeners that do not read: they cost the edge bounded memory, and nobody else notices.

use std::fs;

use quintet_testkit::Process;
use quintet_tests::{Frame, PATIENCE, Socket};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Listeners of each kind.
const LISTENERS: usize = 20;
/// Jobs that they are told of, six times each.
const JOBS: usize = 2_000;
/// Told in full and kept, this would be more than 200 MiB.
const MEMORY_MIB: u64 = 96;

/// Resident memory in MiB.
fn resident(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    kib / 1024
}

#[tokio::test]
async fn listeners_that_do_not_read_cost_little_and_disturb_nobody() {
    let cluster = Cluster::start().await;
    let _scheduler = cluster.scheduler();
    let (edge, api) = cluster.edge().await;
    let _agent = cluster.agent("one", 64);
    api.until_agent("one", "IDLE").await;
    // Says more than a follower's buffers hold, and then goes on until it is stopped.
    let script = "i=0; while [ $i -lt 3000 ]; do echo \"$i $0\"; i=$((i+1)); done; exec sleep 1000";
    let command = json!(["sh", "-c", script, "x".repeat(1000)]);
    let loud = api
        .submit(json!({"inlineConfig": {"command": command}}))
        .await;
    let loud = loud["id"].as_str().unwrap().to_owned();
    api.until(&loud, "RUNNING").await;
    let (mut sockets, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..LISTENERS {
        sockets.push(Socket::connect(&api, "/ui").await.unwrap());
        for path in ["events", "logs?follow=true"] {
            let request = api.request(Method::GET, &format!("/v1/jobs/{loud}/{path}"));
            streams.push(request.send().await.unwrap());
        }
    }
    let mut reader = Socket::connect(&api, "/ui").await.unwrap();
    let before = resident(&edge);
    let long = "y".repeat(500);
    let batch: Value = (0..100)
        .map(|_| json!({"inlineConfig": {"executor": "noop", "durationMs": 0, "note": long}}))
        .collect();
    let mut ended = 0;
    for _ in 0..JOBS / 100 {
        api.post("/v1/jobs/batch", batch.clone()).await.expect(207);
        // The one that reads is told of every end while the others stand still.
        let told = async {
            let wanted = ended + 100;
            while ended < wanted {
                let job = reader.next_of("ui.job.update").await;
                ended += usize::from(job["status"] == "STOPPED");
            }
        };
        tokio::time::timeout(PATIENCE, told).await.unwrap();
    }
    let grown = resident(&edge).saturating_sub(before);
    println!("the edge grew by {grown} MiB");
    assert!(grown < MEMORY_MIB, "the edge grew by {grown} MiB");
    // Who begins to read again is told how things are now.
    let mut late = sockets.pop().unwrap();
    let job = api.submit(json!({"inlineConfig": {"executor": "noop", "durationMs": 0}}));
    let job = job.await["id"].clone();
    let told = async {
        loop {
            match late.next().await {
                Frame::Json(envelope) => {
                    let payload = &envelope["payload"];
                    let one = std::slice::from_ref(payload);
                    let jobs = payload.as_array().map_or(one, Vec::as_slice);
                    let ended = |found: &&Value| found["id"] == job && found["status"] == "STOPPED";
                    if jobs.iter().any(|found| ended(&found)) {
                        return;
                    }
                }
                // A client that stood still for too long is sent away, and connects again.
                Frame::Closed(..) | Frame::Gone => {
                    late = Socket::connect(&api, "/ui").await.unwrap();
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    drop((sockets, streams));
    api.order(&format!("/v1/jobs/{loud}/stop"))
        .await
        .expect(202);
    api.until(&loud, "STOPPED").await;
}
