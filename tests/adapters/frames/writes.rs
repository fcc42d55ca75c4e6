//! Writes that NATS rejects.

use quintet_bus::RequestError;
use quintet_contract::error::{ErrorCode, Retry};
use quintet_contract::frame_api::{ConfigureFrameWorker, FrameWorkerRef, GetFramesStatus};
use quintet_contract::subject::{ConfigureFrameWorkers, FramesStatus, GetFrameWorkerSettings};
use quintet_testkit::Nats;
use serde_json::{Value, json};

use super::fixture::{Fixture, TIMEOUT, frame, id};

#[tokio::test]
async fn a_change_that_nats_rejects_fails_alone() {
    let nats = Nats::options().config("max_payload: 65536\n");
    let fixture = Fixture::on(nats.start().await.unwrap()).await;
    let service = fixture.serve("one", |_| {}).await;
    fixture.status().await;
    fixture.send("dot", frame(0, 0)).await.unwrap();
    fixture.activate(Some("dot")).await.unwrap();
    // Each fits a message, both together do not.
    let configure = async |field: &str| {
        let settings = json!({ field: "x".repeat(40_000) });
        let configure = ConfigureFrameWorker {
            id: id("dot"),
            settings: settings.as_object().unwrap().clone(),
        };
        let subject = ConfigureFrameWorkers {};
        fixture.bus.request(&subject, &configure, TIMEOUT).await
    };
    configure("first").await.unwrap();
    let rejected = configure("second").await.unwrap_err();
    assert!(
        matches!(&rejected, RequestError::Refused(reply)
            if reply.code == ErrorCode::PayloadTooLarge && reply.retry == Retry::Never),
        "{rejected}"
    );
    // Everything else is answered, at the first attempt, and holds.
    let status = fixture
        .bus
        .request(&FramesStatus {}, &GetFramesStatus {}, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(status.stats.active, Some(id("dot")));
    let subject = GetFrameWorkerSettings {};
    let asked = FrameWorkerRef { id: id("dot") };
    let found = fixture
        .bus
        .request(&subject, &asked, TIMEOUT)
        .await
        .unwrap();
    let names: Vec<&String> = found.settings.keys().collect();
    assert_eq!(names, ["first"]);
    fixture.set_fps(9.0).await;
    let small = json!({"speed": Value::from(1)});
    let configure = ConfigureFrameWorker {
        id: id("other"),
        settings: small.as_object().unwrap().clone(),
    };
    let subject = ConfigureFrameWorkers {};
    fixture
        .bus
        .request(&subject, &configure, TIMEOUT)
        .await
        .unwrap();
    service.end().await;
}
