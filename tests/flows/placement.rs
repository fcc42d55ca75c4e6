//! Placement as users see it: requirements, dry runs, explanations, lists.

use quintet_testkit::wait_for;
use quintet_tests::{Agent, Stack, TIMEOUT};
use serde_json::{Value, json};

fn hello(id: &str, capabilities: Value) -> Value {
    let mut hello = Agent::hello(id);
    hello["capabilities"] = capabilities;
    hello
}

#[tokio::test]
async fn a_job_goes_to_an_agent_that_meets_its_requirements() {
    let stack = Stack::without_agents().await;
    let _small = Agent::join(
        &stack.api,
        hello("small", json!({"slots": 8, "maxResolution": "720p"})),
    )
    .await;
    let large = json!({"slots": 1, "maxResolution": "1440p", "labels": {"zone": "eu"}, "tags": ["gpu", "hdr"]});
    let mut large = Agent::join(&stack.api, hello("large", large)).await;
    let requirements = json!({"maxResolution": "1080p", "labels": {"zone": "eu"}, "tags": ["gpu"]});
    let body = json!({"inlineConfig": {}, "requirements": requirements});
    let dry = stack
        .api
        .post("/v1/jobs?dryRun=true", body.clone())
        .await
        .expect(200);
    assert_eq!(dry.body["placement"], json!({"agentId": "large"}));
    assert_eq!(dry.body["refused"][0]["agentId"], "small");
    assert_eq!(
        stack.api.get("/v1/jobs").await.body,
        json!([]),
        "a dry run stores nothing"
    );
    let job = stack.api.submit(body.clone()).await;
    large.accept().await;
    let id = job["id"].as_str().unwrap();
    stack.api.until(id, "ACCEPTED").await;
    let dry = stack
        .api
        .post("/v1/jobs?dryRun=true", body.clone())
        .await
        .expect(200);
    assert_eq!(dry.body["placement"], Value::Null);
    let second = stack.api.submit(body).await;
    let path = format!("/v1/jobs/{}/explain", second["id"].as_str().unwrap());
    let why = stack.api.get(&path).await.expect(200).body;
    assert_eq!(
        (&why["gate"], &why["status"]),
        (&json!("noFreeSlot"), &json!("PENDING"))
    );
    assert_eq!(why["agents"].as_array().unwrap().len(), 2);
    assert!(why["waitingMs"].is_u64() && why["message"].is_string());
    let impossible = json!({"inlineConfig": {}, "requirements": {"fenced": true}});
    let third = stack.api.submit(impossible).await;
    let why = stack
        .api
        .get(&format!(
            "/v1/jobs/{}/explain",
            third["id"].as_str().unwrap()
        ))
        .await
        .body;
    assert_eq!(why["gate"], "requirementNotMet");
    assert!(
        why["agents"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("fenced")
    );
}

#[tokio::test]
async fn without_an_agent_the_explanation_names_that() {
    let stack = Stack::without_agents().await;
    let id = stack.api.submit_noop().await;
    let why = stack
        .api
        .get(&format!("/v1/jobs/{id}/explain"))
        .await
        .expect(200)
        .body;
    assert_eq!(why["gate"], "noAgentOnline");
    assert_eq!(stack.api.get("/v1/jobs/unknown/explain").await.status, 404);
}

#[tokio::test]
async fn a_job_that_no_agent_can_serve_blocks_no_other_and_higher_priority_goes_first() {
    let stack = Stack::without_agents().await;
    let submit = |body: Value| stack.api.submit(body);
    submit(json!({"inlineConfig": {}, "priority": 9, "requirements": {"tags": ["tpu"]}})).await;
    let low = submit(json!({"inlineConfig": {}, "priority": -1})).await;
    let old = submit(json!({"inlineConfig": {}})).await;
    let urgent = submit(json!({"inlineConfig": {}, "priority": 5})).await;
    let mut agent = Agent::join(&stack.api, Agent::hello("one")).await;
    for job in [urgent, old, low] {
        let offer = agent.accept().await;
        assert_eq!(offer["jobId"], job["id"]);
        let id = job["id"].as_str().unwrap();
        agent.update(id, "RUNNING").await;
        agent.stopped(id, "STOPPED").await;
    }
}

#[tokio::test]
async fn lists_are_filtered_paged_and_in_order_of_creation() {
    let stack = Stack::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(
            stack
                .api
                .submit(json!({"inlineConfig": {"durationMs": 1}}))
                .await["id"]
                .clone(),
        );
    }
    for id in &ids {
        stack.api.until(id.as_str().unwrap(), "STOPPED").await;
    }
    let waiting = stack
        .api
        .submit(json!({"inlineConfig": {}, "notBefore": "2100-01-01T00:00:00Z"}))
        .await;
    let ids_of = |body: &Value| {
        body.as_array()
            .unwrap()
            .iter()
            .map(|job| job["id"].clone())
            .collect::<Vec<_>>()
    };
    let all = stack.api.get("/v1/jobs").await.expect(200);
    assert_eq!(all.body.as_array().unwrap().len(), 6);
    assert_eq!(ids_of(&all.body)[..5], ids[..]);
    assert_eq!(
        ids_of(&stack.api.get("/v1/jobs?status=CREATED").await.body),
        [waiting["id"].clone()]
    );
    assert_eq!(
        ids_of(&stack.api.get("/v1/jobs?agentId=agent-1").await.body),
        ids
    );
    assert_eq!(stack.api.get("/v1/jobs?status=DANCING").await.status, 422);
    assert_eq!(stack.api.get("/v1/jobs?limit=none").await.status, 422);
    let (mut seen, mut path) = (Vec::new(), "/v1/jobs?limit=4".to_owned());
    loop {
        let page = stack.api.get(&path).await.expect(200);
        seen.extend(ids_of(&page.body));
        let Some(cursor) = page.header("x-next-cursor") else {
            break;
        };
        assert!(page.header("link").unwrap().contains("rel=\"next\""));
        path = format!("/v1/jobs?limit=4&cursor={cursor}");
    }
    assert_eq!(seen, ids_of(&all.body));
}

#[tokio::test]
async fn a_refused_job_is_offered_to_others_at_once() {
    let stack = Stack::without_agents().await;
    let mut shy = Agent::join(&stack.api, Agent::hello("shy")).await;
    let id = stack.api.submit_noop().await;
    let offer = shy.socket.envelope_of("orchestrator.assign.start").await;
    let mut willing = Agent::join(&stack.api, Agent::hello("willing")).await;
    let refusal = json!({"jobId": id, "accepted": false, "reason": "no camera"});
    shy.socket
        .answer("agent.assign.ack", refusal, offer["msgId"].as_str())
        .await;
    assert_eq!(willing.accept().await["jobId"], json!(id));
    let job = stack.api.until(&id, "ACCEPTED").await;
    assert_eq!(
        (&job["agentId"], &job["attempt"]),
        (&json!("willing"), &json!(2))
    );
    let reasons = job["timeline"].to_string();
    assert!(reasons.contains("no camera"), "{reasons}");
    let free = wait_for("the shy agent to be idle", TIMEOUT, async || {
        let agent = stack.api.get("/v1/agents/shy").await.body;
        if agent["jobs"] == json!([]) {
            Ok(())
        } else {
            Err(agent.to_string())
        }
    });
    free.await.unwrap();
}
