//! Listeners and agents that do not read: they cost the edge bounded memory, and no other client notices.

use std::fs;
use std::time::Duration;

use quintet_testkit::{Process, wait_for};
use quintet_tests::{Agent, Api, Frame, Socket, TIMEOUT};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Listeners of each kind.
const LISTENERS: usize = 20;
/// Jobs that they receive updates about, six times each.
const JOBS: usize = 2_000;
/// Sent in full and kept, this would be more than 200 MiB.
const MEMORY_MIB: u64 = 96;

/// Resident memory in MiB.
pub(crate) fn resident(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    kib / 1024
}

#[tokio::test]
async fn listeners_that_do_not_read_cost_little_and_disturb_no_other_client() {
    let cluster = Cluster::start().await;
    let _scheduler = cluster.scheduler();
    let (edge, api) = cluster.edge().await;
    let _agent = cluster.agent("one", 64);
    api.until_agent("one", "IDLE").await;
    // Prints more than a follower's buffers hold, and then continues until it is stopped.
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
        // The one that reads receives every end while the others stand still.
        let received = async {
            let wanted = ended + 100;
            while ended < wanted {
                let job = reader.next_of("ui.job.update").await;
                ended += usize::from(job["status"] == "STOPPED");
            }
        };
        tokio::time::timeout(TIMEOUT, received).await.unwrap();
    }
    let grown = resident(&edge).saturating_sub(before);
    println!("the edge grew by {grown} MiB");
    assert!(grown < MEMORY_MIB, "the edge grew by {grown} MiB");
    // A client that begins to read again receives the present state.
    let mut late = sockets.pop().unwrap();
    let job = api.submit(json!({"inlineConfig": {"executor": "noop", "durationMs": 0}}));
    let job = job.await["id"].clone();
    let received = async {
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
    tokio::time::timeout(TIMEOUT, received).await.unwrap();
    drop((sockets, streams));
    api.order(&format!("/v1/jobs/{loud}/stop"))
        .await
        .expect(202);
    api.until(&loud, "STOPPED").await;
}

/// Jobs that are offered to an agent that does not read, with as many bytes each.
const OFFERS: usize = 600;
const OFFER_BYTES: usize = 64 * 1024;
/// Kept, all offers would take more than 700 MiB: while no agent answers they are repeated every second and a half, for
/// as long as the test waits. What passes through a busy edge in the meantime takes 30 to 70 of them.
const AGENT_MEMORY_MIB: u64 = 128;

/// Submits the jobs that only the silent agent can take, and between them one for the agent that reads, which must end.
async fn offer(api: &Api) -> Vec<String> {
    let long = "y".repeat(OFFER_BYTES);
    let pile = json!({"inlineConfig": {"executor": "noop", "durationMs": 0, "note": long},
        "requirements": {"labels": {"pile": "yes"}}});
    let quick = json!({"inlineConfig": {"executor": "noop", "durationMs": 0},
        "requirements": {"labels": {"pile": "no"}}});
    let mut ids = Vec::new();
    while ids.len() < OFFERS {
        let batch: Value = (0..10).map(|_| pile.clone()).collect();
        let answer = api.post("/v1/jobs/batch", batch).await.expect(207);
        for entry in answer.body.as_array().unwrap() {
            ids.push(entry["job"]["id"].as_str().unwrap().to_owned());
        }
        let job = api.submit(quick.clone()).await;
        api.until(job["id"].as_str().unwrap(), "STOPPED").await;
    }
    ids
}

/// How many agent sockets were closed because they did not read.
async fn closed_agents(api: &Api) -> usize {
    let text = api.get("/metrics").await.expect(200).text;
    let line = text.lines().find(|line| {
        line.starts_with("edge_slow_clients_total") && line.contains("kind=\"agent\"")
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0)
}

#[tokio::test]
async fn an_agent_that_does_not_read_is_closed_and_its_jobs_go_to_others() {
    let cluster = Cluster::start().await;
    let _scheduler = cluster.scheduler();
    let (edge, api) = cluster.edge().await;
    let _reader = cluster.labelled_agent("reader", "pile=no");
    api.until_agent("reader", "IDLE").await;
    let mut hello = Agent::hello("silent");
    hello["capabilities"] = json!({"slots": 10 * OFFERS, "labels": {"pile": "yes"}});
    let mut silent = Agent::join(&api, hello).await;
    let before = resident(&edge);
    // From here on it sends heartbeats, and reads nothing.
    let beats = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        loop {
            ticks.tick().await;
            if !silent.socket.try_send("agent.heartbeat", json!({})).await {
                return std::future::pending().await;
            }
        }
    };
    let closed = async {
        let ids = offer(&api).await;
        let closed =
            wait_for(
                "the silent socket to be closed",
                TIMEOUT,
                async || match closed_agents(&api).await {
                    0 => Err(format!("{} MiB", resident(&edge))),
                    _ => Ok(()),
                },
            );
        closed.await.unwrap();
        ids
    };
    let ids = tokio::select! {
        () = beats => unreachable!("it beats for ever"),
        ids = closed => ids,
    };
    let grown = resident(&edge).saturating_sub(before);
    println!("the edge grew by {grown} MiB");
    assert!(grown < AGENT_MEMORY_MIB, "the edge grew by {grown} MiB");
    api.until_agent("silent", "OFFLINE").await;
    let _heir = cluster.labelled_agent("heir", "pile=yes");
    for id in &ids {
        let job = api.until(id, "STOPPED").await;
        assert_eq!(job["agentId"], "heir", "{job}");
    }
    drop(silent);
}
