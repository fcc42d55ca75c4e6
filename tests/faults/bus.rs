//! NATS itself: killed, restarted, frozen, while jobs are in flight.

use crate::cluster::{Cluster, names};

const JOBS: usize = 600;

#[tokio::test]
async fn nats_is_killed_restarted_and_frozen_under_load_and_nothing_is_lost() {
    let mut cluster = Cluster::start().await;
    let _schedulers = [cluster.scheduler(), cluster.scheduler()];
    let (_edge, api) = cluster.edge().await;
    let _agent = cluster.agent("one", 16);
    api.until_agent("one", "IDLE").await;
    let names = names(JOBS);
    for (number, part) in names.chunks(JOBS / 3).enumerate() {
        cluster.submit(&api, part).await;
        match number {
            0 => cluster.nats.kill().await.unwrap(),
            1 => cluster.nats.stop().await.unwrap(),
            _ => {
                // Until every timeout has passed, the edge's last of all.
                cluster.nats.pause().await.unwrap();
                cluster.until_not_ready(&api).await;
                cluster.nats.resume().await.unwrap();
                continue;
            }
        }
        cluster.nats.restart().await.unwrap();
    }
    cluster.all_ran_once(&api, &names).await;
}
