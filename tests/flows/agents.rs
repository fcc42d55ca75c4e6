//! Agents over REST: list, get, drain, forget.

use quintet_tests::{Agent, Stack};
use serde_json::json;

#[tokio::test]
async fn agents_are_listed_in_order_of_registration_and_stay_when_offline() {
    let stack = Stack::without_agents().await;
    for id in ["zeta", "alpha", "mid"] {
        drop(Agent::join(&stack.api, Agent::hello(id)).await);
        stack.api.until_agent(id, "OFFLINE").await;
    }
    let list = stack.api.get("/v1/agents").await.expect(200).body;
    let ids: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|agent| agent["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["zeta", "alpha", "mid"]);
    let agent = &list[0];
    assert_eq!(
        (&agent["name"], &agent["version"]),
        (&json!("zeta by name"), &json!("1.0.0"))
    );
    assert_eq!(
        (&agent["capabilities"]["slots"], &agent["drain"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(
        (&agent["currentJobId"], &agent["jobs"], &agent["error"]),
        (&json!(null), &json!([]), &json!(null))
    );
    assert!(agent["lastSeenAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        stack.api.get("/v1/agents/unknown").await.expect(404).body["error"],
        "Not Found"
    );
}

#[tokio::test]
async fn a_draining_agent_finishes_gets_nothing_more_and_is_back_at_once() {
    let stack = Stack::start().await;
    let running = stack.api.submit_noop().await;
    stack.api.until(&running, "RUNNING").await;
    let drain = |flag: serde_json::Value| {
        stack
            .api
            .post("/v1/agents/agent-1/drain", json!({"drain": flag}))
    };
    let answer = drain(json!(true)).await.expect(200).body;
    assert_eq!(
        (&answer["ok"], &answer["agent"]["state"]),
        (&json!(true), &json!("DRAINING"))
    );
    let waiting = stack.api.submit_noop().await;
    let why = stack
        .api
        .get(&format!("/v1/jobs/{waiting}/explain"))
        .await
        .body;
    assert_eq!(why["gate"], "draining");
    stack
        .api
        .order(&format!("/v1/jobs/{running}/stop"))
        .await
        .expect(202);
    let agent = stack.api.until_agent("agent-1", "IDLE").await;
    assert_eq!(agent["drain"], true);
    drain(json!(false)).await.expect(200);
    stack.api.until(&waiting, "RUNNING").await;
    assert_eq!(drain(json!("yes")).await.status, 422);
    assert_eq!(
        stack
            .api
            .post("/v1/agents/agent-1/drain", json!({}))
            .await
            .status,
        422
    );
    assert_eq!(
        stack
            .api
            .post("/v1/agents/unknown/drain", json!({"drain": true}))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn only_an_offline_agent_can_be_forgotten() {
    let stack = Stack::without_agents().await;
    let agent = Agent::join(&stack.api, Agent::hello("gone soon")).await;
    let refused = stack.api.delete("/v1/agents/gone%20soon").await.expect(409);
    assert_eq!(refused.body["code"], "AGENT_ONLINE");
    drop(agent);
    stack.api.until_agent("gone%20soon", "OFFLINE").await;
    assert_eq!(
        stack
            .api
            .delete("/v1/agents/gone%20soon")
            .await
            .expect(200)
            .body["ok"],
        true
    );
    assert_eq!(stack.api.delete("/v1/agents/gone%20soon").await.status, 404);
    assert_eq!(stack.api.get("/v1/agents").await.body, json!([]));
}
