//! The desired state outlives every service, and another service takes over the display when one is gone.

use futures::future::join_all;
use quintet_contract::bucket::{Frames, FramesKey};
use quintet_contract::frame::{Fps, Thousandths};
use quintet_contract::frame_api::{
    FrameWorkerMessage, FrameWorkerSettings, FramesRecord, FramesState, SetFps,
};
use quintet_contract::subject::SetFrameRate;
use serde_json::json;

use super::fixture::{Fixture, TIMEOUT, frame, id, next_message, next_tick};

#[tokio::test]
async fn another_service_takes_over_with_the_desired_state() {
    let fixture = Fixture::open().await;
    let first = fixture.serve("first", |_| {}).await;
    fixture.status().await;
    fixture.send("dot", frame(0, 0)).await.unwrap();
    fixture.activate(Some("dot")).await.unwrap();
    fixture.set_fps(7.5).await;
    let second = fixture.serve("second", |_| {}).await;
    let mut messages = fixture.listen("dot").await;
    next_tick(&mut messages).await;
    first.end().await;
    let status = fixture
        .until("the other service", |status| {
            status.display.frames_received == 0
        })
        .await;
    assert_eq!(
        (status.stats.active, status.stats.fps.get(), status.manual),
        (Some(id("dot")), 7.5, true)
    );
    next_tick(&mut messages).await;
    fixture.send("dot", frame(3, 3)).await.unwrap();
    fixture.until_shown(3, 3).await;
    second.end().await;
    // No service is there, and then one is again.
    fixture.send("dot", frame(4, 4)).await.unwrap_err();
    let third = fixture.serve("third", |_| {}).await;
    let status = fixture.status().await;
    assert_eq!(
        (status.stats.active, status.stats.fps.get()),
        (Some(id("dot")), 7.5)
    );
    third.end().await;
}

#[tokio::test]
async fn what_another_writer_stores_holds_as_well_and_is_not_overwritten() {
    let fixture = Fixture::open().await;
    let service = fixture.serve("one", |_| {}).await;
    fixture.status().await;
    fixture.send("dot", frame(0, 0)).await.unwrap();
    fixture.activate(Some("dot")).await.unwrap();
    let bucket = fixture.bus.bucket::<Frames>();
    let found = bucket.get(&FramesKey::State).await.unwrap().unwrap();
    let state = FramesState {
        active: Some(id("other")),
        fps: Fps::new(5.0),
        ..FramesState::default()
    };
    let record = FramesRecord::State(state);
    bucket
        .update(&FramesKey::State, &record, found.revision, None)
        .await
        .unwrap();
    let status = fixture
        .until("the other one", |status| {
            status.stats.active == Some(id("other"))
        })
        .await;
    assert_eq!(status.stats.fps.get(), 5.0);
    // What the service writes next continues from there.
    fixture.set_fps(7.0).await;
    let found = bucket.get(&FramesKey::State).await.unwrap().unwrap();
    let FramesRecord::State(state) = found.record else {
        panic!("{found:?}");
    };
    assert_eq!(
        (state.active, state.fps),
        (Some(id("other")), Fps::new(7.0))
    );
    // A worker receives the settings that another writer has stored.
    let mut messages = fixture.listen("other").await;
    let settings = FrameWorkerSettings {
        settings: json!({"speed": 4}).as_object().unwrap().clone(),
    };
    let record = FramesRecord::Worker(settings.clone());
    let key = FramesKey::Worker(id("other"));
    bucket.create(&key, &record, None).await.unwrap();
    let data = settings.settings;
    while next_message(&mut messages).await != (FrameWorkerMessage::Config { data: data.clone() }) {
    }
    // Deleted, it is as if nothing had ever been set.
    bucket.delete(&FramesKey::State, None).await.unwrap();
    let status = fixture
        .until("no active worker", |status| status.stats.active.is_none())
        .await;
    assert_eq!((status.stats.fps.get(), status.manual), (30.0, false));
    fixture.set_fps(9.0).await;
    service.end().await;
}

/// Requests that are in flight when the service leaves.
const IN_FLIGHT: u32 = 200;

#[tokio::test]
async fn requests_in_flight_when_a_service_leaves_may_be_sent_again() {
    let fixture = Fixture::open().await;
    let service = fixture.serve("leaving", |_| {}).await;
    fixture.status().await;
    // Each is stored before it is answered, one after the other: most of them wait.
    let requests = (1..=IN_FLIGHT).map(|number| {
        let fps = Thousandths::of(1.0 + f64::from(number) / 10.0);
        let bus = fixture.bus.clone();
        async move {
            bus.request(&SetFrameRate {}, &SetFps { fps }, TIMEOUT)
                .await
        }
    });
    let (outcomes, ()) = tokio::join!(join_all(requests), service.end());
    for outcome in outcomes {
        let Err(error) = outcome else { continue };
        assert!(error.is_worth_retrying(), "{error:?}");
    }
}
