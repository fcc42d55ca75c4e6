//! Third-party agents: the `/agent` socket, message by message.

use std::time::Duration;

use quintet_testkit::wait_for;
use quintet_tests::{Agent, Plan, Socket, Stack, TIMEOUT};
use serde_json::{Value, json};

#[tokio::test]
async fn a_good_run() {
    let stack = Stack::without_agents().await;
    let mut agent = Agent::join(&stack.api, Agent::hello("a")).await;
    assert_eq!(
        agent.welcome,
        json!({"heartbeatIntervalMs": 3000, "heartbeatTimeoutMs": 10000, "stopGraceMs": 10000, "killAfterMs": 5000})
    );
    agent
        .socket
        .send("agent.heartbeat", json!({"metrics": {"cpu": 0.5}}))
        .await;
    let body = json!({"inlineConfig": {"any": "thing"}, "idempotencyKey": "k",
        "streamMetadata": {"title": "t"}});
    let job = stack.api.submit(body).await;
    let id = job["id"].as_str().unwrap();
    let offer = agent.accept().await;
    assert_eq!(
        (&offer["jobId"], &offer["config"]),
        (&job["id"], &json!({"any": "thing"}))
    );
    assert_eq!(
        (&offer["idempotencyKey"], &offer["attempt"]),
        (&json!("k"), &json!(1))
    );
    assert_eq!(offer["metadata"], json!({"requestedBy": "anonymous"}));
    assert_eq!(offer["streamMetadata"], json!({"title": "t"}));
    assert!(offer["expiresAt"].is_string());
    agent.update(id, "RUNNING").await;
    let running = stack.api.until(id, "RUNNING").await;
    assert_eq!(running["agentId"], "a");
    let shown = stack.api.until_agent("a", "RUNNING").await;
    assert_eq!(
        (&shown["currentJobId"], &shown["jobs"]),
        (&job["id"], &json!([id]))
    );
    agent
        .socket
        .send(
            "agent.job.log",
            json!({"jobId": id, "line": "one", "stream": "stdout"}),
        )
        .await;
    agent
        .socket
        .send(
            "agent.job.log",
            json!({"jobId": id, "lines": ["two", "three"], "stream": "stderr"}),
        )
        .await;
    let logs = wait_for("three lines", TIMEOUT, async || {
        let text = stack.api.get(&format!("/v1/jobs/{id}/logs")).await.text;
        if text.lines().count() == 3 {
            Ok(text)
        } else {
            Err(text)
        }
    });
    assert_eq!(logs.await.unwrap(), "one\ntwo\nthree\n");
    stack
        .api
        .order(&format!("/v1/jobs/{id}/stop"))
        .await
        .expect(202);
    let stop = agent.socket.next_of("orchestrator.job.stop").await;
    assert_eq!(
        (&stop["jobId"], &stop["deadlineMs"]),
        (&job["id"], &json!(10000))
    );
    agent.update(id, "RUNNING").await;
    agent.stopped(id, "STOPPED").await;
    stack.api.until(id, "STOPPED").await;
    let story = stack.api.story(id).await.join(" ");
    assert_eq!(
        story,
        "CREATED PENDING ASSIGNED ACCEPTED RUNNING STOPPING STOPPED"
    );
}

#[tokio::test]
async fn frames_may_be_binary_and_what_makes_no_sense_is_ignored() {
    let stack = Stack::without_agents().await;
    let mut socket = Socket::connect(&stack.api, "/agent").await.unwrap();
    for text in [
        "",
        "hello",
        "null",
        "[]",
        "7",
        "{}",
        r#"{"type":"agent.hello"}"#,
        r#"{"type":"agent.hello","payload":null}"#,
    ] {
        socket.send_text(text).await;
    }
    socket.send_bytes(&[0xff, 0x00]).await;
    socket.send("what.is.this", json!({})).await;
    let hello = json!({"type": "agent.hello", "payload": Agent::hello("a")});
    socket.send_bytes(hello.to_string().as_bytes()).await;
    socket.next_of("orchestrator.hello.ok").await;
    socket.send("agent.job.update", json!({"jobId": 5})).await;
    socket
        .send(
            "agent.job.update",
            json!({"jobId": "unknown", "status": "STOPPED"}),
        )
        .await;
    socket.send("agent.heartbeat", json!({})).await;
    assert_eq!(stack.api.until_agent("a", "IDLE").await["jobs"], json!([]));
    assert_eq!(
        Socket::connect(&stack.api, "/agent/").await.unwrap_err(),
        404,
        "the path is exact"
    );
}

#[tokio::test]
async fn a_wrong_token_closes_4001_and_registers_nothing() {
    let stack = Stack::without_agents().await;
    for auth in [json!({"token": "wrong"}), json!({}), Value::Null] {
        let mut hello = Agent::hello("intruder");
        hello["auth"] = auth;
        let mut socket = Socket::connect(&stack.api, "/agent").await.unwrap();
        socket.send("agent.hello", hello).await;
        assert_eq!(socket.closed().await, (4001, "Unauthorized".to_owned()));
    }
    assert_eq!(stack.api.get("/v1/agents").await.body, json!([]));
}

#[tokio::test]
async fn a_second_socket_replaces_the_first_whose_close_changes_nothing() {
    let stack = Stack::without_agents().await;
    let mut first = Agent::join(&stack.api, Agent::hello("a")).await;
    let id = stack.api.submit_noop().await;
    first.accept().await;
    first.update(&id, "RUNNING").await;
    stack.api.until(&id, "RUNNING").await;
    let mut hello = Agent::hello("a");
    hello["activeJob"] = json!({"jobId": id, "status": "RUNNING"});
    let mut second = Agent::join(&stack.api, hello).await;
    assert_eq!(
        first.socket.closed().await,
        (1000, "Replaced by new connection".to_owned())
    );
    drop(first);
    stack
        .api
        .order(&format!("/v1/jobs/{id}/stop"))
        .await
        .expect(202);
    assert_eq!(
        second.socket.next_of("orchestrator.job.stop").await["jobId"],
        json!(id)
    );
    second.stopped(&id, "STOPPED").await;
    stack.api.until(&id, "STOPPED").await;
    let story = stack.api.story(&id).await.join(" ");
    assert_eq!(
        story,
        "CREATED PENDING ASSIGNED ACCEPTED RUNNING STOPPING STOPPED"
    );
}

#[tokio::test]
async fn a_closed_socket_is_an_offline_agent_and_its_return_brings_the_job_back() {
    let stack = Stack::without_agents().await;
    let mut agent = Agent::join(&stack.api, Agent::hello("a")).await;
    let id = stack.api.submit_noop().await;
    agent.accept().await;
    agent.update(&id, "RUNNING").await;
    stack.api.until(&id, "RUNNING").await;
    drop(agent);
    stack.api.until(&id, "UNKNOWN").await;
    stack.api.until_agent("a", "OFFLINE").await;
    let mute = stack
        .api
        .order(&format!("/v1/jobs/{id}/mute"))
        .await
        .expect(409);
    assert_eq!(mute.body["error"], "Agent not available");
    let mut hello = Agent::hello("a");
    hello["activeJobs"] = json!([{"jobId": id, "status": "RUNNING"}]);
    let mut agent = Agent::join(&stack.api, hello).await;
    stack.api.until(&id, "RUNNING").await;
    agent.stopped(&id, "FAILED").await;
    let job = stack.api.until(&id, "FAILED").await;
    assert!(job["error"]["code"].is_string(), "{job}");
}

#[tokio::test]
async fn an_agent_that_returns_without_its_job_ends_it() {
    let stack = Stack::without_agents().await;
    let mut agent = Agent::join(&stack.api, Agent::hello("a")).await;
    let id = stack.api.submit_noop().await;
    agent.accept().await;
    stack.api.until(&id, "ACCEPTED").await;
    drop(agent);
    stack.api.until(&id, "UNKNOWN").await;
    let _agent = Agent::join(&stack.api, Agent::hello("a")).await;
    assert_eq!(
        stack.api.until(&id, "FAILED").await["error"]["code"],
        "LOST"
    );
}

#[tokio::test]
async fn a_silent_agent_is_offline_after_its_timeout_and_its_job_fails_when_it_stays_away() {
    let plan = Plan {
        agents: 0,
        scheduler: |config| {
            config.heartbeat_interval = Duration::from_millis(200);
            config.heartbeat_timeout = Duration::from_millis(600);
        },
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    let mut agent = Agent::join(&stack.api, Agent::hello("a")).await;
    assert_eq!(agent.welcome["heartbeatIntervalMs"], 200);
    let id = stack.api.submit_noop().await;
    agent.accept().await;
    stack.api.until(&id, "UNKNOWN").await;
    assert_eq!(
        stack.api.until(&id, "FAILED").await["error"]["code"],
        "AGENT_OFFLINE"
    );
    stack.api.until_agent("a", "OFFLINE").await;
}

#[tokio::test]
async fn a_stop_that_is_ignored_becomes_a_kill_and_then_a_failure_that_keeps_the_slot() {
    let plan = Plan {
        agents: 0,
        scheduler: |config| {
            config.stop_grace = Duration::from_millis(200);
            config.kill_after = Duration::from_millis(200);
        },
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    let mut agent = Agent::join(&stack.api, Agent::hello("a")).await;
    let id = stack.api.submit_noop().await;
    agent.accept().await;
    agent.update(&id, "RUNNING").await;
    stack.api.until(&id, "RUNNING").await;
    stack
        .api
        .order(&format!("/v1/jobs/{id}/stop"))
        .await
        .expect(202);
    assert_eq!(
        agent.socket.next_of("orchestrator.job.stop").await["deadlineMs"],
        200
    );
    assert_eq!(
        agent.socket.next_of("orchestrator.job.kill").await["jobId"],
        json!(id)
    );
    assert_eq!(
        stack.api.until(&id, "FAILED").await["error"]["code"],
        "KILL_TIMEOUT"
    );
    let next = stack.api.submit_noop().await;
    let why = stack
        .api
        .get(&format!("/v1/jobs/{next}/explain"))
        .await
        .body;
    assert_eq!(why["gate"], "noFreeSlot");
    agent.stopped(&id, "STOPPED").await;
    assert_eq!(
        agent.accept().await["jobId"],
        json!(next),
        "the slot is free when the agent confirms"
    );
}

#[tokio::test]
async fn mute_goes_to_the_agent_and_its_answer_into_the_metadata() {
    let stack = Stack::without_agents().await;
    let mut agent = Agent::join(&stack.api, Agent::hello("a")).await;
    let id = stack.api.submit_noop().await;
    agent.accept().await;
    agent.update(&id, "RUNNING").await;
    stack.api.until(&id, "RUNNING").await;
    for (verb, muted) in [("mute", true), ("unmute", false)] {
        let path = format!("/v1/jobs/{id}/{verb}");
        let asked = {
            let api = stack.api.clone();
            tokio::spawn(async move { api.order(&path).await })
        };
        assert_eq!(
            agent
                .socket
                .next_of(&format!("orchestrator.job.{verb}"))
                .await["jobId"],
            json!(id)
        );
        agent
            .socket
            .send(
                &format!("agent.job.{verb}"),
                json!({"jobId": id, "success": true}),
            )
            .await;
        assert_eq!(asked.await.unwrap().expect(202).body["ok"], true);
        let shown = wait_for("isMuted", TIMEOUT, async || {
            let job = stack.api.job(&id).await;
            if job["streamMetadata"]["isMuted"] == muted {
                Ok(())
            } else {
                Err(job.to_string())
            }
        });
        shown.await.unwrap();
    }
}

#[tokio::test]
async fn an_agents_error_keeps_jobs_away_until_it_is_well_again() {
    let stack = Stack::without_agents().await;
    let mut agent = Agent::join(&stack.api, Agent::hello("a")).await;
    agent
        .socket
        .send(
            "agent.error",
            json!({"code": "DISK", "message": "disk full"}),
        )
        .await;
    let shown = stack.api.until_agent("a", "ERROR").await;
    assert_eq!(
        shown["error"],
        json!({"code": "DISK", "message": "disk full"})
    );
    let id = stack.api.submit_noop().await;
    let why = stack.api.get(&format!("/v1/jobs/{id}/explain")).await.body;
    assert_eq!(why["gate"], "agentError");
    agent
        .socket
        .send("agent.heartbeat", json!({"metrics": {"ok": true}}))
        .await;
    assert_eq!(agent.accept().await["jobId"], json!(id));
}

#[tokio::test]
async fn an_unknown_job_is_recorded_as_recovered() {
    let stack = Stack::without_agents().await;
    let mut hello = Agent::hello("a");
    hello["activeJob"] = json!({"jobId": "brought along", "status": "RUNNING"});
    let mut agent = Agent::join(&stack.api, hello).await;
    let job = stack.api.until("brought%20along", "RUNNING").await;
    assert_eq!(
        (&job["requestedBy"], &job["agentId"]),
        (&json!("recovered"), &json!("a"))
    );
    agent.stopped("brought along", "STOPPED").await;
    stack.api.until("brought%20along", "STOPPED").await;
}

#[tokio::test]
async fn a_template_that_the_store_does_not_know_is_passed_on_by_its_name() {
    let stack = Stack::without_agents().await;
    let mut agent = Agent::join(&stack.api, Agent::hello("a")).await;
    stack.api.submit(json!({"templateId": "theirs"})).await;
    assert_eq!(
        agent.accept().await["config"],
        json!({"templateId": "theirs"})
    );
}

#[tokio::test]
async fn a_socket_without_a_hello_is_closed_4002() {
    let plan = Plan {
        agents: 0,
        edge: |config| config.hello_timeout = Duration::from_millis(200),
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    let mut socket = Socket::connect(&stack.api, "/agent").await.unwrap();
    socket.send("agent.heartbeat", json!({"metrics": {}})).await;
    assert_eq!(socket.closed().await.0, 4002);
}
