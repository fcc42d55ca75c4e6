//! Workers on the bus.

use bytes::Bytes;
use futures::StreamExt;
use quintet_bus::RequestError;
use quintet_contract::error::ErrorCode;
use quintet_contract::frame_api::{ConfigureFrameWorker, FrameWorkerMessage, GetFramesStatus};
use quintet_contract::subject::{
    ConfigureFrameWorkers, FormerFramesStatus, FrameStatsPublished, FrameWorkerMessages,
    IngestFrame, Subject, WorkerFrame,
};
use serde_json::json;

use super::fixture::{Fixture, TIMEOUT, frame, id, next_message, next_tick};

#[tokio::test]
async fn a_worker_on_the_bus_is_greeted_ticked_and_shown() {
    let fixture = Fixture::open().await;
    let service = fixture.serve("one", |_| {}).await;
    fixture.status().await;
    let mut messages = fixture.listen("dot").await;
    fixture.beat("dot", "1", false).await;
    assert!(matches!(
        next_message(&mut messages).await,
        FrameWorkerMessage::Hello { .. }
    ));
    assert!(
        matches!(next_message(&mut messages).await, FrameWorkerMessage::Config { data } if data.is_empty())
    );
    fixture.activate(Some("dot")).await.unwrap();
    assert_eq!(next_message(&mut messages).await, FrameWorkerMessage::Start);
    let first = next_tick(&mut messages).await;
    assert!(next_tick(&mut messages).await > first);
    let settings = json!({"speed": 3}).as_object().unwrap().clone();
    let configure = ConfigureFrameWorker {
        id: id("dot"),
        settings: settings.clone(),
    };
    let done = fixture
        .bus
        .request_until(&ConfigureFrameWorkers {}, &configure, TIMEOUT);
    done.await.unwrap();
    let data = loop {
        if let FrameWorkerMessage::Config { data } = next_message(&mut messages).await {
            break data;
        }
    };
    assert_eq!(data, settings);
    // Published, and asked.
    fixture
        .bus
        .publish_raw(&WorkerFrame { worker: id("dot") }, frame(5, 5))
        .await
        .unwrap();
    fixture.until_shown(5, 5).await;
    fixture.send("dot", frame(6, 6)).await.unwrap();
    fixture.until_shown(6, 6).await;
    let short = fixture
        .send("dot", Bytes::from_static(b"RB\x01\x00"))
        .await
        .unwrap_err();
    assert!(
        matches!(&short, RequestError::Refused(reply)
        if reply.error == "short rbm header" && reply.code == ErrorCode::BadRequest),
        "{short}"
    );
    let unknown = fixture.activate(Some("unknown")).await.unwrap_err();
    assert!(matches!(&unknown, RequestError::Refused(reply) if reply.error == "unknown worker id"));
    service.end().await;
}

#[tokio::test]
async fn ticks_are_json_for_every_subscriber_and_stats_are_published_every_second() {
    let fixture = Fixture::open().await;
    let service = fixture.serve("one", |_| {}).await;
    fixture.status().await;
    fixture.send("script", frame(1, 1)).await.unwrap();
    let prefix = fixture.bus.prefix().clone();
    let mut tapped = fixture
        .bus
        .tap(
            &FrameWorkerMessages {
                worker: id("script"),
            }
            .render(&prefix),
        )
        .await
        .unwrap();
    fixture.bus.flush().await.unwrap();
    fixture.activate(Some("script")).await.unwrap();
    let first = tokio::time::timeout(TIMEOUT, tapped.next())
        .await
        .unwrap()
        .unwrap();
    assert!(
        first.body.starts_with(b"{\"type\":\"hello\""),
        "{:?}",
        first.body
    );
    let mut messages = fixture
        .bus
        .subscribe::<FrameStatsPublished>(FrameStatsPublished::filter(&prefix))
        .await
        .unwrap();
    for _ in 0..3 {
        let stats = tokio::time::timeout(TIMEOUT, messages.next())
            .await
            .unwrap()
            .unwrap()
            .message;
        assert_eq!(
            (stats.active, stats.sources),
            (Some(id("script")), vec![id("script")])
        );
    }
    service.end().await;
}

#[tokio::test]
async fn a_full_display_refuses_a_frame_that_is_sent_straight_to_it_and_answers_for_how_long() {
    let fixture = Fixture::open().await;
    let service = fixture
        .serve("one", |config| {
            config.display.buffer = std::time::Duration::from_millis(100)
        })
        .await;
    fixture.status().await;
    let ingest = async |x: u16| {
        let mut bytes = frame(x, 0).to_vec();
        bytes[12..14].copy_from_slice(&60_000_u16.to_be_bytes());
        fixture
            .bus
            .request_raw(&IngestFrame {}, bytes.into(), TIMEOUT)
            .await
    };
    // One is shown for a minute, three wait.
    let mut sizes = Vec::new();
    let refused = loop {
        match ingest(sizes.len() as u16).await {
            Ok(reply) => sizes.push((reply.size, reply.capacity, reply.seq)),
            Err(RequestError::Refused(reply)) => break reply,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(sizes.len(), 4, "{sizes:?}");
    assert_eq!(sizes[3], (3, 3, 1));
    assert_eq!(refused.code, ErrorCode::RateLimited);
    let ms = refused.details["retryAfterMs"].as_u64().unwrap();
    assert!((1..=60_000).contains(&ms), "{ms}");
    service.end().await;
}

#[tokio::test]
async fn the_status_is_served_under_its_former_subject_as_well() {
    let fixture = Fixture::open().await;
    let service = fixture.serve("one", |_| {}).await;
    let status = fixture.status().await;
    let former = FormerFramesStatus {};
    let request = GetFramesStatus {};
    let reply = fixture.bus.request_until(&former, &request, TIMEOUT).await;
    assert_eq!(reply.unwrap().config, status.config);
    service.end().await;
}
