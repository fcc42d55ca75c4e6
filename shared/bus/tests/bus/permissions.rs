//! The permissions that the bus needs, shown by a user with only those.

use std::time::Duration;

use futures::StreamExt;
use quintet_bus::{Bus, Credentials, KvError, Revision, Secret, WatchFrom};
use quintet_contract::bucket::{LeaseKey, Leases, Templates};
use quintet_contract::id::{HolderId, PoolName};
use quintet_contract::subject::JobLogged;
use quintet_contract::topology::stream;

use crate::messages::{job, log};
use crate::nats::{Nats, soon, template, template_id};

/// The owner may do everything. The service may not create streams, call the account, or see foreign inboxes.
const USERS: &str = r#"
authorization { users = [
  { user: owner, password: secret }
  { user: service, password: secret, permissions: {
    publish: { allow: [
      "quintet.>", "$KV.quintet_templates.>", "$KV.quintet_leases.>", "_REPLY.owner.>"
      "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*", "$JS.API.DIRECT.GET.>"
      "$JS.API.CONSUMER.CREATE.*.*", "$JS.API.CONSUMER.DELETE.*.*", "$JS.FC.>"
    ] }
    subscribe: { allow: [ "quintet.>", "$SRV.>", "_REPLY.service.>" ] }
  } }
] }
"#;

async fn connect(nats: &Nats, user: &str) -> Bus {
    let mut config = nats.config();
    config.credentials = Credentials::UserPassword {
        user: user.to_owned(),
        password: Secret::new("secret"),
    };
    Bus::connect(config).await.unwrap()
}

#[tokio::test]
async fn a_service_works_with_the_few_permissions_it_needs() {
    let nats = Nats::start_with(USERS).await;
    let owner = connect(&nats, "owner").await;
    assert!(owner.ensure_topology().await.unwrap().is_ok());
    let bus = connect(&nats, "service").await;
    assert!(bus.ensure_topology().await.unwrap().is_ok());
    assert!(bus.verify_topology().await.unwrap().is_ok());

    let bucket = bus.bucket::<Templates>();
    let mut watch = bucket.watch(WatchFrom::New).await.unwrap();
    let key = template_id("a");
    let first = bucket.create(&key, &template("a"), None).await.unwrap();
    soon("the change", watch.next()).await.unwrap().unwrap();
    bucket.delete(&key, Some(first)).await.unwrap();
    bucket
        .create(&key, &template("a"), Some(Duration::from_secs(60)))
        .await
        .unwrap();
    assert_eq!(bucket.load().await.unwrap().entries.len(), 1);
    let lost = bucket.update(&key, &template("b"), Revision(1), None).await;
    assert!(matches!(lost, Err(KvError::Conflict { .. })));

    let lease = LeaseKey::Scheduler(PoolName::default());
    let holder = HolderId::parse("service").unwrap();
    let held = bus
        .lease(lease.clone(), holder, Duration::from_secs(2))
        .acquire()
        .await
        .unwrap();
    held.release().await;
    assert!(bus.bucket::<Leases>().get(&lease).await.unwrap().is_none());

    let mine = JobLogged { job: job("mine") };
    bus.store(&mine, &log("mine", "x"), None)
        .await
        .unwrap()
        .await
        .unwrap();
    let events = stream::events(bus.prefix());
    assert_eq!(
        bus.replay_last(events, &mine, 1, usize::MAX)
            .await
            .unwrap()
            .messages
            .len(),
        1
    );
}

#[tokio::test]
async fn a_read_of_several_copies_asks_the_leader() {
    let nats = Nats::start().await;
    nats.bus().await;
    let mut config = nats.config();
    config.replicas = 3;
    let bucket = Bus::connect(config).await.unwrap().bucket::<Templates>();
    let key = template_id("a");
    assert!(bucket.get(&key).await.unwrap().is_none());
    let first = bucket.create(&key, &template("a"), None).await.unwrap();
    assert_eq!(bucket.get(&key).await.unwrap().unwrap().revision, first);
    bucket.delete(&key, None).await.unwrap();
    assert!(bucket.get(&key).await.unwrap().is_none());
    let again = bucket.create(&key, &template("b"), None).await.unwrap();
    assert!(again > first);
}
