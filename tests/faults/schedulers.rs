//! Schedulers that are killed or frozen while two thousand jobs are in flight.

use quintet_contract::time::Timestamp;
use serde_json::Value;

use crate::cluster::{Cluster, names};

const JOBS: usize = 2_000;

fn first_placed_after(moment: Timestamp, jobs: &[Value]) -> Option<Timestamp> {
    let entries = jobs.iter().filter_map(|job| job["timeline"].as_array());
    let placed = entries
        .flatten()
        .filter(|entry| entry["status"] == "ASSIGNED");
    let at = placed.filter_map(|entry| serde_json::from_value(entry["at"].clone()).ok());
    at.filter(|at: &Timestamp| *at > moment).min()
}

/// Half of the jobs are in when the leader goes; returns how long it took until a job was placed again.
async fn the_leader_goes(frozen: bool) {
    let cluster = Cluster::start().await;
    let mut schedulers = [cluster.scheduler(), cluster.scheduler()];
    let (_edge, api) = cluster.edge().await;
    let _agents = [cluster.agent("one", 32), cluster.agent("two", 32)];
    api.until_agent("one", "IDLE").await;
    api.until_agent("two", "IDLE").await;
    let names = names(JOBS);
    let (first, second) = names.split_at(JOBS / 2);
    cluster.submit(&api, first).await;
    let [one, two] = &schedulers;
    let leader = cluster.leader(&[one, two]).await;
    let gone = quintet_bus::now();
    match frozen {
        true => schedulers[leader].pause().await.unwrap(),
        false => schedulers[leader].kill().unwrap(),
    }
    cluster.submit(&api, second).await;
    let jobs = cluster.all_ran_once(&api, &names).await;
    let placed = first_placed_after(gone, &jobs).unwrap();
    // Printed, not judged: how fast this machine is must not decide a test.
    println!(
        "placement went on {} ms after the leader was gone",
        placed.since(gone).as_millis()
    );
    if frozen {
        schedulers[leader].resume().unwrap();
        let more = vec!["after the thaw".to_owned()];
        cluster.submit(&api, &more).await;
        let names = [names, more].concat();
        cluster.all_ran_once(&api, &names).await;
        assert!(
            schedulers[leader].exited().unwrap().is_none(),
            "it waits for its turn again"
        );
    }
}

#[tokio::test]
async fn when_the_leader_is_killed_no_job_is_lost_and_none_runs_twice() {
    the_leader_goes(false).await;
}

#[tokio::test]
async fn when_the_leader_is_frozen_another_leads_and_its_return_does_no_harm() {
    the_leader_goes(true).await;
}
