//! The UI's socket: snapshot, then every change.

use std::time::Duration;

use quintet_tests::{Frame, Plan, Socket, Stack};
use serde_json::{Value, json};

#[tokio::test]
async fn two_snapshots_then_every_status_of_every_job_in_order() {
    let stack = Stack::start().await;
    let before = stack
        .api
        .submit(json!({"inlineConfig": {}, "notBefore": "2100-01-01T00:00:00Z"}))
        .await;
    let mut ui = Socket::connect(&stack.api, "/ui").await.unwrap();
    let Frame::Json(agents) = ui.next().await else {
        panic!("no agents")
    };
    assert_eq!(
        (&agents["type"], &agents["payload"][0]["id"]),
        (&json!("ui.agent.update"), &json!("agent-1"))
    );
    assert!(agents["msgId"].is_string() && agents["ts"].is_string());
    let Frame::Json(jobs) = ui.next().await else {
        panic!("no jobs")
    };
    assert_eq!(
        (&jobs["type"], &jobs["payload"][0]["id"]),
        (&json!("ui.job.update"), &before["id"])
    );
    ui.send_text("not even JSON").await;
    ui.send("what.is.this", json!({})).await;
    let id = stack
        .api
        .submit(json!({"inlineConfig": {"durationMs": 20}}))
        .await["id"]
        .clone();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|status| status != "STOPPED") {
        let job = ui.next_of("ui.job.update").await;
        assert!(job.is_object(), "one object per change");
        if job["id"] == id {
            seen.push(job["status"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(seen, stack.api.story(id.as_str().unwrap()).await);
    stack
        .api
        .post("/v1/agents/agent-1/drain", json!({"drain": true}))
        .await
        .expect(200);
    while ui.next_of("ui.agent.update").await["drain"] != true {}
}

#[tokio::test]
async fn a_subscription_narrows_the_feed_to_its_jobs() {
    let stack = Stack::without_agents().await;
    let wanted = stack.api.submit_noop().await;
    let mut ui = Socket::connect(&stack.api, "/ui").await.unwrap();
    ui.next_of("ui.job.update").await;
    ui.send("ui.subscribe", json!({"jobs": [wanted]})).await;
    // A change of the job shows that the subscription was read.
    let path = format!("/v1/jobs/{wanted}/metadata");
    let mut round = 0;
    let narrowed = loop {
        round += 1;
        stack
            .api
            .put(&path, json!({"viewers": round}))
            .await
            .expect(200);
        let other = stack.api.submit_noop().await;
        stack
            .api
            .put(&path, json!({"title": other}))
            .await
            .expect(200);
        let mut ids: Vec<Value> = Vec::new();
        loop {
            let job = ui.next_of("ui.job.update").await;
            ids.push(job["id"].clone());
            if job["streamMetadata"]["title"] == json!(other) {
                break;
            }
        }
        if ids.iter().all(|id| *id == json!(wanted)) {
            break true;
        }
        assert!(round < 50, "the feed is never narrowed");
    };
    assert!(narrowed);
}

#[tokio::test]
async fn with_keys_set_a_socket_needs_a_token() {
    let plan = Plan {
        agents: 0,
        edge: |config| config.api_keys = quintet_edge::parse_api_keys("eve:viewer:look").unwrap(),
        scheduler: |config| config.heartbeat_interval = Duration::from_secs(1),
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    assert_eq!(Socket::connect(&stack.api, "/ui").await.unwrap_err(), 401);
    assert_eq!(
        Socket::connect(&stack.api, "/ui?token=wrong")
            .await
            .unwrap_err(),
        401
    );
    let mut ui = Socket::connect(&stack.api, "/ui?token=look").await.unwrap();
    assert_eq!(ui.next_of("ui.agent.update").await, json!([]));
}
