//! Buckets: compare and swap, markers, expiry, loads and watches over restarts.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use quintet_bus::{BucketHandle, Change, KvError, Revision, Watch, WatchFrom};
use quintet_contract::bucket::{Bucket, Templates};

use crate::nats::{Nats, soon, template, template_id};

async fn next(watch: &mut Watch<Templates>) -> Change<Templates> {
    soon("a change", watch.next())
        .await
        .expect("a watch continues")
        .unwrap()
}

/// The next change as text, so that a failure shows what came instead.
async fn next_change(watch: &mut Watch<Templates>) -> String {
    match next(watch).await {
        Change::Put { key, .. } => format!("put {key}"),
        Change::Gone { key, .. } => format!("gone {key}"),
        Change::UpToDate => "up to date".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_writers_of_one_revision_exactly_one_wins() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let key = template_id("raced");
    let race = async |expected: Revision| {
        let writers = (0..20).map(|writer| {
            let bucket = bus.bucket::<Templates>();
            let (key, record) = (key.clone(), template(&format!("writer-{writer}")));
            tokio::spawn(async move { bucket.update(&key, &record, expected, None).await })
        });
        let outcomes: Vec<_> = join_all(writers)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let lost = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Err(KvError::Conflict { .. })))
            .count();
        let won: Vec<_> = outcomes.into_iter().filter_map(Result::ok).collect();
        assert_eq!((won.len(), lost), (1, 19));
        won[0]
    };
    let created = race(Revision(0)).await;
    let updated = race(created).await;
    let found = bus.bucket::<Templates>().get(&key).await.unwrap().unwrap();
    assert_eq!(found.revision, updated);
}

#[tokio::test]
async fn a_record_can_be_created_again_after_it_was_deleted_or_expired() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let bucket: BucketHandle<Templates> = bus.bucket();
    let key = template_id("again");
    assert!(bucket.get(&key).await.unwrap().is_none());

    let first = bucket.create(&key, &template("1"), None).await.unwrap();
    assert!(matches!(
        bucket.create(&key, &template("2"), None).await,
        Err(KvError::Conflict { .. })
    ));
    assert!(matches!(
        bucket.delete(&key, Some(Revision(first.0 + 7))).await,
        Err(KvError::Conflict { .. })
    ));
    bucket.delete(&key, Some(first)).await.unwrap();
    assert!(bucket.get(&key).await.unwrap().is_none());

    let mut watch = bucket.watch(WatchFrom::New).await.unwrap();
    let second = bucket
        .create(&key, &template("2"), Some(Duration::from_secs(1)))
        .await
        .unwrap();
    assert!(matches!(next(&mut watch).await, Change::Put { revision, .. } if revision == second));
    assert!(
        matches!(next(&mut watch).await, Change::Gone { key: gone, revision } if gone == key && revision > second)
    );
    bucket.create(&key, &template("3"), None).await.unwrap();
    assert_eq!(
        bucket.get(&key).await.unwrap().unwrap().record,
        template("3")
    );
}

#[tokio::test]
async fn an_update_without_a_time_to_live_makes_a_record_permanent() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let bucket: BucketHandle<Templates> = bus.bucket();
    let second = Some(Duration::from_secs(1));
    let kept = bucket
        .create(&template_id("kept"), &template("kept"), second)
        .await
        .unwrap();
    bucket
        .update(&template_id("kept"), &template("kept"), kept, None)
        .await
        .unwrap();
    bucket
        .create(&template_id("ended"), &template("ended"), second)
        .await
        .unwrap();
    let mut watch = bucket.watch(WatchFrom::New).await.unwrap();
    assert_eq!(next_change(&mut watch).await, "gone ended");
    assert!(bucket.get(&template_id("kept")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_watch_goes_on_without_gaps_when_the_server_is_killed_and_restarted() {
    let mut nats = Nats::start().await;
    let bus = nats.bus().await;
    let bucket: BucketHandle<Templates> = bus.bucket();
    bucket
        .create(&template_id("a"), &template("a"), None)
        .await
        .unwrap();
    let mut watch = bucket.watch(WatchFrom::Start).await.unwrap();
    assert_eq!(next_change(&mut watch).await, "put a");
    assert_eq!(next_change(&mut watch).await, "up to date");
    bucket
        .create(&template_id("b"), &template("b"), None)
        .await
        .unwrap();

    nats.kill().await;
    nats.start_again().await;
    // Another process writes while ours may not be back yet.
    let other = nats.connect().await.bucket::<Templates>();
    other
        .create(&template_id("c"), &template("c"), None)
        .await
        .unwrap();
    other.delete(&template_id("a"), None).await.unwrap();
    for expected in ["put b", "put c", "gone a"] {
        assert_eq!(next_change(&mut watch).await, expected);
    }
    soon("our own write", async {
        while bucket
            .create(&template_id("d"), &template("d"), None)
            .await
            .is_err()
        {}
    })
    .await;
    assert_eq!(next_change(&mut watch).await, "put d");
}

#[tokio::test]
async fn a_server_without_room_does_not_blame_the_record() {
    let nats = Nats::start_with("jetstream { max_file_store: 1MB }").await;
    let bucket: BucketHandle<Templates> = nats.bus().await.bucket();
    for number in 0..50 {
        let mut large = template("large");
        let text = "x".repeat(200_000).into();
        large.config.insert("text".to_owned(), text);
        let key = template_id(&format!("t{number}"));
        match bucket.create(&key, &large, None).await {
            Ok(_) => {}
            Err(error) => {
                return assert!(matches!(error, KvError::Unanswered { .. }), "{error:?}");
            }
        }
    }
    panic!("10 MB were stored in 1 MB");
}

#[tokio::test]
async fn an_empty_bucket_is_up_to_date_at_once() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let mut watch = bus
        .bucket::<Templates>()
        .watch(WatchFrom::Start)
        .await
        .unwrap();
    assert_eq!(next_change(&mut watch).await, "up to date");
    assert!(
        bus.bucket::<Templates>()
            .load()
            .await
            .unwrap()
            .entries
            .is_empty()
    );
}

/// More writes are begun than async-nats lets be in flight by default: a group commit must not wait for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_records_are_written_in_one_go_and_loaded_while_they_change() {
    const RECORDS: usize = 6_000;
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let bucket: BucketHandle<Templates> = bus.bucket();
    let mut writes = Vec::new();
    for number in 0..RECORDS {
        let name = format!("t-{number}");
        let write = bucket
            .begin(&template_id(&name), &template(&name), Revision(0), None)
            .await
            .unwrap();
        writes.push(write);
    }
    let mut revisions = Vec::new();
    for write in writes {
        revisions.push(soon("a confirmation", write).await.unwrap());
    }
    assert!(revisions.is_sorted());
    bucket.delete(&template_id("t-0"), None).await.unwrap();
    let raw = async_nats::jetstream::new(nats.raw().await);
    let unreadable = format!("$KV.{}.t-1", Templates::bucket(bus.prefix()));
    raw.publish(unreadable, "garbage".into())
        .await
        .unwrap()
        .await
        .unwrap();

    let changing = async {
        let mut newest = revisions[2];
        for _ in 0..50 {
            newest = bucket
                .update(&template_id("t-2"), &template("changed"), newest, None)
                .await
                .unwrap();
        }
    };
    let (loaded, ()) = tokio::join!(bucket.load(), changing);
    let loaded = loaded.unwrap();
    let keys: HashSet<_> = loaded
        .entries
        .iter()
        .map(|(key, _)| key.as_str().to_owned())
        .collect();
    assert_eq!(
        (loaded.entries.len(), keys.len()),
        (RECORDS - 2, RECORDS - 2)
    );
    assert!(keys.contains("t-2") && !keys.contains("t-0") && !keys.contains("t-1"));

    let mut watch = bucket.watch(WatchFrom::After(loaded.last)).await.unwrap();
    bucket
        .create(&template_id("t-0"), &template("back"), None)
        .await
        .unwrap();
    soon("the record that came after the load", async {
        loop {
            match next_change(&mut watch).await.as_str() {
                "put t-2" => {}
                other => break assert_eq!(other, "put t-0"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_missing_bucket_is_an_error_and_not_an_empty_one() {
    let nats = Nats::start().await;
    let bus = nats.connect().await;
    let bucket: BucketHandle<Templates> = bus.bucket();
    assert!(matches!(
        bucket.get(&template_id("a")).await,
        Err(KvError::NoBucket { .. })
    ));
    assert!(matches!(
        bucket.create(&template_id("a"), &template("a"), None).await,
        Err(KvError::NoBucket { .. })
    ));
    assert!(matches!(bucket.load().await, Err(KvError::NoBucket { .. })));
}
