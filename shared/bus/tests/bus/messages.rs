//! Plain messages, stored messages and the connection itself.

use futures::StreamExt;
use quintet_bus::{Bus, ConnectError, LinkState, new_message_id, now};
use quintet_contract::agent::Assignment;
use quintet_contract::event::{JobLog, LogLine, LogStream};
use quintet_contract::id::{AgentId, IdempotencyKey, JobId};
use quintet_contract::job::Attempt;
use quintet_contract::subject::{AssignQueue, Assigned, JobLogged, LiveJobLog, Subject};

use crate::nats::{Nats, soon};

pub(crate) fn job(name: &str) -> JobId {
    JobId::parse(name).unwrap()
}

pub(crate) fn log(name: &str, line: &str) -> JobLog {
    let line = LogLine {
        at: now(),
        stream: LogStream::Stdout,
        line: line.to_owned(),
    };
    JobLog {
        job_id: job(name),
        attempt: None,
        lines: vec![line],
    }
}

fn assignment(name: &str) -> Assignment {
    Assignment {
        job_id: job(name),
        attempt: Attempt(1),
        config: Default::default(),
        idempotency_key: IdempotencyKey::parse(name).unwrap(),
        expires_at: now(),
        restartable: false,
        requested_by: "test".to_owned(),
        stream_metadata: Default::default(),
    }
}

#[tokio::test]
async fn a_message_brings_its_id_and_cause_and_malformed_ones_are_skipped() {
    let nats = Nats::start().await;
    let bus = nats.connect().await;
    let mut received = bus
        .subscribe::<LiveJobLog>(LiveJobLog::filter(bus.prefix(), None))
        .await
        .unwrap();
    let subject = LiveJobLog {
        job: job("camera 1"),
    };
    let raw = nats.raw().await;
    bus.flush().await.unwrap();
    raw.publish(subject.render(bus.prefix()), "garbage".into())
        .await
        .unwrap();
    raw.flush().await.unwrap();

    let cause = new_message_id();
    bus.caused_by(Some(cause))
        .publish(&subject, &log("camera 1", "hello"))
        .await
        .unwrap();
    let delivery = soon("the message", received.next()).await.unwrap();
    assert_eq!(
        (&delivery.subject, delivery.message.lines[0].line.as_str()),
        (&subject, "hello")
    );
    assert_eq!(delivery.meta.cause, Some(cause));
    assert!(delivery.meta.message_id.is_some() && delivery.meta.sequence.is_none());
}

#[tokio::test]
async fn a_stored_message_is_republished_with_its_sequences() {
    let nats = Nats::start().await;
    let bus = nats.bus().await;
    let agent = AgentId::parse("a").unwrap();
    let mut queue = bus
        .subscribe::<Assigned>(Assigned::filter(bus.prefix(), Some(&agent)))
        .await
        .unwrap();
    let mut logs = bus
        .subscribe::<LiveJobLog>(LiveJobLog::filter(bus.prefix(), None))
        .await
        .unwrap();
    bus.flush().await.unwrap();

    let ttl = Some(std::time::Duration::from_secs(30));
    let other = AssignQueue {
        agent: AgentId::parse("b").unwrap(),
    };
    let first = bus
        .store(
            &AssignQueue {
                agent: agent.clone(),
            },
            &assignment("1"),
            ttl,
        )
        .await
        .unwrap();
    let between = bus.store(&other, &assignment("2"), ttl).await.unwrap();
    let second = bus
        .store(&AssignQueue { agent }, &assignment("3"), ttl)
        .await
        .unwrap();
    let (first, _, second) = (
        first.await.unwrap(),
        between.await.unwrap(),
        second.await.unwrap(),
    );
    let one = soon("the first assignment", queue.next()).await.unwrap();
    let two = soon("the second assignment", queue.next()).await.unwrap();
    assert_eq!(
        (one.meta.sequence, one.meta.last_sequence),
        (Some(first), Some(0))
    );
    assert_eq!(
        (two.meta.sequence, two.meta.last_sequence),
        (Some(second), Some(first))
    );
    assert_eq!(two.message.job_id, job("3"));

    let stored = bus
        .store(&JobLogged { job: job("j") }, &log("j", "x"), None)
        .await
        .unwrap()
        .await
        .unwrap();
    assert_eq!(
        soon("the log", logs.next()).await.unwrap().meta.sequence,
        Some(stored)
    );
}

#[tokio::test]
async fn the_link_reports_when_the_server_is_away_and_back() {
    let mut nats = Nats::start().await;
    let bus = nats.connect().await;
    let mut link = bus.link();
    nats.kill().await;
    soon(
        "the loss",
        link.wait_for(|state| *state == LinkState::Disconnected),
    )
    .await
    .unwrap();
    nats.start_again().await;
    soon(
        "the return",
        link.wait_for(|state| *state == LinkState::Connected),
    )
    .await
    .unwrap();
    soon("a flush", bus.flush()).await.unwrap();
    bus.drain().await;
    soon(
        "the end",
        link.wait_for(|state| *state == LinkState::Disconnected),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn an_unreachable_server_is_named_without_its_password() {
    let mut nats = Nats::start().await;
    nats.kill().await;
    let mut config = nats.config();
    config.url = format!("nats://me:secret@127.0.0.1:{}", nats.port);
    let error = Bus::connect(config).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        format!("cannot connect to NATS at nats://127.0.0.1:{}", nats.port)
    );
}
