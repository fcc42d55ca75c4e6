//! Streams and buckets: created by the process that comes first, checked by every process, differences named.

use futures::future::join_all;
use quintet_bus::{Condition, TopologyReport};
use quintet_contract::topology::{Durability, blob_stores, buckets, streams};

use crate::nats::Nats;

#[tokio::test]
async fn many_processes_make_the_topology_at_once_and_all_find_it_right() {
    let nats = Nats::start().await;
    let buses = join_all((0..8).map(|_| nats.connect())).await;
    let missing = buses[0].verify_topology().await.unwrap();
    assert!(
        !missing.is_usable()
            && missing
                .streams
                .iter()
                .all(|one| one.condition == Condition::Missing)
    );

    for report in join_all(buses.iter().map(|bus| bus.ensure_topology())).await {
        assert_eq!(report.unwrap().problems(), Vec::<String>::new());
    }
    let report = buses[1].verify_topology().await.unwrap();
    let config = nats.config();
    let wanted = streams(&config.prefix, config.retention).len()
        + buckets(&config.prefix).len()
        + blob_stores(&config.prefix, config.retention).len();
    assert!(report.is_ok() && report.streams.len() == wanted);
    assert!(
        report
            .streams
            .iter()
            .all(|one| one.replicas == 1 && one.durability == Durability::ProcessSafe)
    );
}

#[tokio::test]
async fn a_stream_of_an_older_version_gets_the_subjects_of_this_one() {
    let nats = Nats::start().await;
    let raw = async_nats::jetstream::new(nats.raw().await);
    let older = async_nats::jetstream::stream::Config {
        name: "quintet_events".to_owned(),
        subjects: vec!["quintet.evt.>".to_owned()],
        ..Default::default()
    };
    raw.create_stream(older).await.unwrap();
    let bus = nats.connect().await;
    let report = bus.ensure_topology().await.unwrap();
    assert!(report.is_usable(), "{:?}", report.problems());
    let found = raw.get_stream("quintet_events").await.unwrap();
    assert_eq!(found.cached_info().config.subjects, ["quintet.evt.job.>"]);
    raw.get_stream("quintet_runlogs").await.unwrap();
}

#[tokio::test]
async fn a_difference_is_named_and_left_alone() {
    let nats = Nats::start().await;
    nats.bus().await;
    let raw = async_nats::jetstream::new(nats.raw().await);
    let mut config = raw
        .get_stream("KV_quintet_jobs")
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    config.max_messages_per_subject = 5;
    raw.update_stream(config).await.unwrap();

    let problems = |report: TopologyReport| report.problems();
    let expected = ["stream KV_quintet_jobs: max messages per subject is 5, should be 1"];
    let bus = nats.connect().await;
    assert_eq!(problems(bus.ensure_topology().await.unwrap()), expected);
    assert_eq!(problems(bus.verify_topology().await.unwrap()), expected);
}

#[tokio::test]
async fn a_bucket_is_one_that_every_nats_client_knows() {
    let nats = Nats::start().await;
    nats.bus().await;
    let raw = async_nats::jetstream::new(nats.raw().await);
    let bucket = raw.get_key_value("quintet_templates").await.unwrap();
    bucket.put("a", "{}".into()).await.unwrap();
    assert_eq!(bucket.get("a").await.unwrap().unwrap(), "{}");
    assert_eq!(bucket.status().await.unwrap().history(), 1);
}
