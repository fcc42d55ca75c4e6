//! The disk of NATS is full, under load.

use quintet_testkit::{Nats, Process, wait_for};
use quintet_tests::{Api, TIMEOUT};
use reqwest::Method;
use serde_json::Value;

use crate::cluster::{Cluster, names};

/// The disk, and what is left of it when the load begins.
const DISK_BYTES: u64 = 64 * 1024 * 1024;
const ROOM_BYTES: u64 = 1024 * 1024;
/// Jobs before the disk is short of room.
const BEFORE: usize = 100;
/// Bytes of metadata that each job carries then.
const NOTE_BYTES: usize = 8 * 1024;
/// Far more than fit.
const TOO_MANY: usize = 2_000;
/// Jobs that are refused while nothing can be stored.
const REFUSED: usize = 20;

/// Sends a job with much metadata: the status, how long to wait, the answer.
async fn send(cluster: &Cluster, api: &Api, name: &str) -> (u16, Option<String>, Value) {
    let mut job = cluster.job(name);
    job["metadata"] = serde_json::json!({"note": "x".repeat(NOTE_BYTES)});
    let sent = api
        .request(Method::POST, "/v1/jobs")
        .json(&job)
        .send()
        .await;
    let answer = sent.unwrap();
    let wait = answer.headers().get("retry-after");
    let wait = wait.map(|wait| wait.to_str().unwrap().to_owned());
    (answer.status().as_u16(), wait, answer.json().await.unwrap())
}

/// Sends jobs until one is not taken; returns those that were, and the one that was not.
async fn send_until_full(cluster: &Cluster, api: &Api) -> (Vec<String>, String) {
    let mut taken = Vec::new();
    for number in 0..TOO_MANY {
        let name = format!("heavy-{number}");
        match send(cluster, api, &name).await {
            (201, ..) => taken.push(name),
            (status, wait, body) => {
                // A request that was in flight at that moment may have waited in vain for an answer.
                assert!(status == 503 || status == 504, "{status} {wait:?} {body}");
                return (taken, name);
            }
        }
    }
    panic!("{TOO_MANY} jobs of {NOTE_BYTES} bytes were taken on a disk of {ROOM_BYTES}");
}

/// Clock ticks of processor time that a process has used.
fn ticks(process: &Process) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    let of = |field: usize| fields[field].parse::<u64>().unwrap();
    of(11) + of(12)
}

#[tokio::test]
async fn a_full_disk_is_reported_at_once_and_with_room_again_everything_goes_on() {
    let nats = Nats::options().disk(DISK_BYTES).start().await.unwrap();
    let mut cluster = Cluster::on(nats);
    let schedulers = [cluster.scheduler(), cluster.scheduler()];
    let (edge, api) = cluster.edge().await;
    let agent = cluster.agent("one", 16);
    api.until_agent("one", "IDLE").await;
    let mut names = names(BEFORE);
    cluster.submit(&api, &names).await;
    cluster.nats.disk().unwrap().fill(ROOM_BYTES).unwrap();
    let (taken, indeterminate) = send_until_full(&cluster, &api).await;
    println!("{} jobs fitted", taken.len());
    names.extend(taken);
    let reason = cluster.until_not_ready(&api).await;
    assert!(reason.contains("its disk is full (make room"), "{reason}");
    let mut parts: Vec<Process> = schedulers.into_iter().chain([edge, agent]).collect();
    let before: Vec<u64> = parts.iter().map(ticks).collect();
    let mut refused = vec![indeterminate];
    for number in 0..REFUSED {
        let name = format!("refused-{number}");
        let began = std::time::Instant::now();
        let (status, wait, body) = send(&cluster, &api, &name).await;
        assert_eq!((status, wait.as_deref()), (503, Some("10")), "{body}");
        let error = body["error"].as_str().unwrap();
        assert!(
            error.contains("make room, then restart that nats-server"),
            "{error}"
        );
        // The edge's own timeout is ten seconds: the write was rejected, and the edge did not wait.
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
        refused.push(name);
    }
    for (part, before) in parts.iter_mut().zip(before) {
        assert!(part.exited().unwrap().is_none(), "it continues");
        let used = ticks(part) - before;
        assert!(used < 300, "{used} ticks for {REFUSED} refusals");
    }
    // With room alone NATS does not store again, which the interface keeps reporting; with a restart it does.
    cluster.nats.disk().unwrap().make_room().unwrap();
    cluster.nats.restart().await.unwrap();
    cluster.until_ready(&api).await;
    for name in refused {
        let taken = wait_for("a refused job to be taken", TIMEOUT, async || {
            match send(&cluster, &api, &name).await {
                (200 | 201, ..) => Ok(()),
                (status, _, body) => Err(format!("{status} {body}")),
            }
        });
        taken.await.unwrap();
        names.push(name);
    }
    cluster.all_ran_once(&api, &names).await;
}
