//! Jobs over REST: submit, read, stop, metadata, live commands, logs, restarts, idempotency.

use std::time::Duration;

use quintet_testkit::wait_for;
use quintet_tests::{Plan, Stack, TIMEOUT};
use serde_json::{Value, json};

#[tokio::test]
async fn a_submitted_job_is_shown_with_every_documented_field_and_runs_to_its_end() {
    let stack = Stack::start().await;
    let body =
        json!({"inlineConfig": {"command": ["sh", "-c", "echo out; echo err >&2"]}, "priority": 3});
    let answer = stack.api.post("/v1/jobs", body).await.expect(201);
    let job = &answer.body;
    let id = job["id"].as_str().unwrap();
    assert_eq!(
        answer.header("location"),
        Some(format!("/v1/jobs/{id}").as_str())
    );
    assert_eq!(
        (&job["status"], &job["attempt"], &job["restartPolicy"]),
        (&json!("PENDING"), &json!(0), &json!("never"))
    );
    for field in ["templateId", "agentId", "startedAt", "endedAt", "error"] {
        assert_eq!(
            job.get(field),
            Some(&Value::Null),
            "{field} is there and null"
        );
    }
    let created = job["createdAt"].as_str().unwrap();
    assert!(created.len() == 24 && created.ends_with('Z'), "{created}");
    let job = stack.api.until(id, "STOPPED").await;
    assert_eq!(
        (&job["agentId"], &job["attempt"], &job["error"]),
        (&json!("agent-1"), &json!(1), &Value::Null)
    );
    assert!(job["startedAt"].is_string() && job["endedAt"].is_string());
    let story = stack.api.story(id).await;
    assert_eq!(story[..4], ["CREATED", "PENDING", "ASSIGNED", "ACCEPTED"]);
    assert_eq!(story[story.len() - 2..], ["RUNNING", "STOPPED"]);
    let logs = stack
        .api
        .get(&format!("/v1/jobs/{id}/logs"))
        .await
        .expect(200);
    assert!(
        logs.header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    let mut lines: Vec<&str> = logs.text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out"]);
}

#[tokio::test]
async fn a_failing_program_fails_the_job_with_its_exit_status() {
    let stack = Stack::start().await;
    let job = stack
        .api
        .submit(json!({"inlineConfig": {"command": ["sh", "-c", "echo bad; exit 3"]}}))
        .await;
    let job = stack.api.until(job["id"].as_str().unwrap(), "FAILED").await;
    assert!(
        job["error"]["code"].is_string() && job["error"]["message"].as_str().unwrap().contains('3'),
        "{job}"
    );
}

#[tokio::test]
async fn a_stop_cancels_what_waits_stops_what_runs_and_changes_nothing_that_ended() {
    let stack = Stack::start().await;
    let later = json!({"inlineConfig": {"executor": "noop"}, "notBefore": "2100-01-01T00:00:00Z"});
    let waiting = stack.api.submit(later).await;
    assert_eq!(waiting["status"], "CREATED");
    let path = format!("/v1/jobs/{}/stop", waiting["id"].as_str().unwrap());
    let answer = stack.api.order(&path).await.expect(202);
    assert_eq!(
        (&answer.body["ok"], &answer.body["job"]["status"]),
        (&json!(true), &json!("CANCELED"))
    );
    let id = stack.api.submit_noop().await;
    stack.api.until(&id, "RUNNING").await;
    let answer = stack
        .api
        .order(&format!("/v1/jobs/{id}/stop"))
        .await
        .expect(202);
    assert_eq!(answer.body["job"]["status"], "STOPPING");
    let ended = stack.api.until(&id, "STOPPED").await;
    let again = stack
        .api
        .order(&format!("/v1/jobs/{id}/stop"))
        .await
        .expect(202);
    assert_eq!(again.body["job"], ended);
}

#[tokio::test]
async fn a_program_that_ignores_the_stop_is_killed_after_the_grace() {
    let plan = Plan {
        scheduler: |config| config.stop_grace = Duration::from_millis(300),
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let job = stack
        .api
        .submit(json!({"inlineConfig": {"command": ["sh", "-c", script]}}))
        .await;
    let id = job["id"].as_str().unwrap();
    let ready = wait_for("the program's line", TIMEOUT, async || {
        let logs = stack.api.get(&format!("/v1/jobs/{id}/logs")).await.text;
        if logs.contains("ready") {
            Ok(())
        } else {
            Err(logs)
        }
    });
    ready.await.unwrap();
    stack
        .api
        .order(&format!("/v1/jobs/{id}/stop"))
        .await
        .expect(202);
    stack.api.until(id, "STOPPED").await;
}

#[tokio::test]
async fn a_batch_is_answered_entry_by_entry_in_order() {
    let stack = Stack::start().await;
    let good = json!({"inlineConfig": {"executor": "noop", "durationMs": 1}});
    let batch =
        json!([good, {"templateId": "a", "inlineConfig": {}}, {"inlineConfig": 5}, 7, good]);
    let answer = stack.api.post("/v1/jobs/batch", batch).await.expect(207);
    let entries = answer.body.as_array().unwrap();
    let statuses: Vec<u64> = entries
        .iter()
        .map(|entry| entry["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [201, 422, 422, 422, 201]);
    assert_eq!(
        entries[1]["error"]["error"],
        "Exactly one of templateId or inlineConfig is required"
    );
    assert_ne!(entries[0]["job"]["id"], entries[4]["job"]["id"]);
    for entry in [&entries[0], &entries[4]] {
        stack
            .api
            .until(entry["job"]["id"].as_str().unwrap(), "STOPPED")
            .await;
    }
    let keyed = stack.api.request(reqwest::Method::POST, "/v1/jobs/batch");
    let keyed = keyed.header("idempotency-key", "one").json(&[&good, &good]);
    let keyed = stack.api.send(keyed).await.expect(422);
    assert_eq!(
        keyed.body["field"], "idempotencyKey",
        "one key would be one job"
    );
    let many: Vec<Value> = (0..1000).map(|_| good.clone()).collect();
    let answer = stack
        .api
        .post("/v1/jobs/batch", json!(many))
        .await
        .expect(207);
    assert!(
        answer
            .body
            .as_array()
            .unwrap()
            .iter()
            .all(|entry| entry["status"] == 201)
    );
    let more: Vec<Value> = (0..1001).map(|_| good.clone()).collect();
    assert_eq!(
        stack.api.post("/v1/jobs/batch", json!(more)).await.status,
        422
    );
}

#[tokio::test]
async fn one_key_is_one_job_also_when_twenty_clients_send_it_at_once() {
    let stack = Stack::start().await;
    let keyed = |ms: u32| json!({"inlineConfig": {"durationMs": ms}, "idempotencyKey": "take 1"});
    let clients = (0..20).map(|_| stack.api.post("/v1/jobs", keyed(1)));
    let answers = futures::future::join_all(clients).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    let known = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((created, known), (1, 19));
    let id = answers[0].body["id"].as_str().unwrap();
    assert!(answers.iter().all(|answer| answer.body["id"] == id));
    stack.api.until(id, "STOPPED").await;
    let again = stack.api.post("/v1/jobs", keyed(1)).await.expect(200);
    assert_eq!(
        (&again.body["id"], &again.body["status"]),
        (&json!(id), &json!("STOPPED")),
        "as it is now"
    );
    assert_eq!(
        stack.api.post("/v1/jobs", keyed(2)).await.status,
        200,
        "a different body is the key's job too"
    );
    let strict = |ms| {
        let request = stack
            .api
            .request(reqwest::Method::POST, "/v1/jobs")
            .header("idempotency-strict", "true");
        stack.api.send(request.json(&keyed(ms)))
    };
    let refused = strict(2).await.expect(409);
    assert_eq!(refused.body["code"], "IDEMPOTENCY_MISMATCH");
    assert_eq!(strict(1).await.status, 200);
}

#[tokio::test]
async fn metadata_is_merged_shallowly_and_known_fields_are_checked() {
    let stack = Stack::without_agents().await;
    let id = stack.api.submit_noop().await;
    let path = format!("/v1/jobs/{id}/metadata");
    assert_eq!(
        stack.api.get(&path).await.expect(200).body,
        json!({"metadata": {}})
    );
    let first = json!({"title": "a", "viewers": 3, "own": {"x": 1}});
    let answer = stack.api.put(&path, first.clone()).await.expect(200);
    assert_eq!(answer.body, json!({"ok": true, "metadata": first}));
    let answer = stack
        .api
        .put(&path, json!({"title": null, "own": {"y": 2}}))
        .await
        .expect(200);
    assert_eq!(
        answer.body["metadata"],
        json!({"viewers": 3, "own": {"y": 2}})
    );
    let refused = stack
        .api
        .put(&path, json!({"viewers": "many"}))
        .await
        .expect(422);
    assert!(
        refused.body["error"].as_str().unwrap().contains("viewers"),
        "{}",
        refused.text
    );
    assert_eq!(stack.api.put(&path, json!([1])).await.status, 422);
    assert_eq!(stack.api.get(&path).await.body["metadata"]["viewers"], 3);
    assert_eq!(
        stack.api.job(&id).await["streamMetadata"]["own"],
        json!({"y": 2})
    );
}

#[tokio::test]
async fn live_commands_are_answered_by_the_program() {
    let stack = Stack::start().await;
    // The program echoes its input.
    let config = json!({"command": ["sh", "-c", "echo ready; cat"], "stdinCommands": true});
    let job = stack.api.submit(json!({"inlineConfig": config})).await;
    let id = job["id"].as_str().unwrap();
    assert_eq!(stack.api.until(id, "RUNNING").await["agentId"], "agent-1");
    let answer = stack
        .api
        .order(&format!("/v1/jobs/{id}/mute"))
        .await
        .expect(202);
    assert_eq!(answer.body["ok"], true);
    let muted = wait_for("isMuted", TIMEOUT, async || {
        let job = stack.api.job(id).await;
        if job["streamMetadata"]["isMuted"].is_boolean() {
            Ok(job)
        } else {
            Err(job.to_string())
        }
    });
    muted.await.unwrap();
    let path = format!("/v1/jobs/{id}/control");
    let unknown = stack
        .api
        .post(&path, json!({"command": "dance"}))
        .await
        .expect(422);
    assert_eq!(unknown.body["code"], "UNKNOWN_COMMAND");
    assert!(
        unknown.body["commands"]
            .as_array()
            .unwrap()
            .contains(&json!("mute")),
        "{}",
        unknown.text
    );
    assert_eq!(stack.api.post(&path, json!({})).await.status, 422);
    let unplaced = stack
        .api
        .submit(json!({"inlineConfig": {}, "notBefore": "2100-01-01T00:00:00Z"}))
        .await;
    let path = format!("/v1/jobs/{}/mute", unplaced["id"].as_str().unwrap());
    let refused = stack.api.order(&path).await.expect(409);
    assert_eq!(refused.body["error"], "Agent not available");
}

#[tokio::test]
async fn a_program_that_takes_no_commands_reports_why_it_cannot_be_muted() {
    let stack = Stack::start().await;
    let job = stack
        .api
        .submit(json!({"inlineConfig": {"command": ["sleep", "60"]}}))
        .await;
    let id = job["id"].as_str().unwrap();
    stack.api.until(id, "RUNNING").await;
    let answer = stack
        .api
        .post(
            &format!("/v1/jobs/{id}/control"),
            json!({"command": "mute"}),
        )
        .await
        .expect(202);
    let outcome = &answer.body["answer"];
    assert_eq!(outcome["success"], false, "{}", answer.text);
    assert!(outcome["reason"].is_string(), "{}", answer.text);
}

#[tokio::test]
async fn a_failing_job_is_tried_again_and_its_last_error_stays() {
    let stack = Stack::start().await;
    let body =
        json!({"inlineConfig": {"failAfterMs": 1}, "restartPolicy": "onFailure", "maxRestarts": 1});
    let job = stack.api.submit(body).await;
    let job = stack.api.until(job["id"].as_str().unwrap(), "FAILED").await;
    assert_eq!((&job["attempt"], &job["restarts"]), (&json!(2), &json!(1)));
    assert!(job["error"]["code"].is_string());
}

#[tokio::test]
async fn ended_jobs_and_their_keys_go_when_their_time_is_over() {
    let plan = Plan {
        scheduler: |config| config.job_retention = Duration::from_secs(1),
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    let keyed = json!({"inlineConfig": {"durationMs": 1}, "idempotencyKey": "short"});
    let id = stack.api.submit(keyed.clone()).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let gone = wait_for("the job to be gone", TIMEOUT, async || {
        let answer = stack.api.get(&format!("/v1/jobs/{id}")).await;
        if answer.status == 404 {
            Ok(())
        } else {
            Err(answer.text)
        }
    });
    gone.await.unwrap();
    let fresh = wait_for("the key to be free", TIMEOUT, async || {
        let answer = stack.api.post("/v1/jobs", keyed.clone()).await;
        if answer.status == 201 {
            Ok(answer.body)
        } else {
            Err(answer.text)
        }
    });
    assert_ne!(fresh.await.unwrap()["id"], json!(id));
}

#[tokio::test]
async fn logs_can_be_cut_to_their_tail_and_followed_to_the_end() {
    let stack = Stack::start().await;
    let script = "for i in 1 2 3 4 5; do echo line $i; done; read go; echo last";
    let config = json!({"command": ["sh", "-c", script], "stdinCommands": true});
    let job = stack.api.submit(json!({"inlineConfig": config})).await;
    let id = job["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/jobs/{id}/logs");
    let five = wait_for("five lines", TIMEOUT, async || {
        let text = stack.api.get(&path).await.text;
        if text.lines().count() == 5 {
            Ok(())
        } else {
            Err(text)
        }
    });
    five.await.unwrap();
    assert_eq!(
        stack.api.get(&format!("{path}?tail=2")).await.text,
        "line 4\nline 5\n"
    );
    let follow = {
        let api = stack.api.clone();
        let path = format!("{path}?follow=true&tail=1");
        tokio::spawn(async move { api.get(&path).await.text })
    };
    let mut feed = stack.api.events(&format!("{path}?follow=true"), None).await;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(feed.next_of("log").await.unwrap());
    }
    // Any command is a line on the program's standard input.
    stack
        .api
        .order(&format!("/v1/jobs/{id}/mute"))
        .await
        .expect(202);
    stack.api.until(&id, "STOPPED").await;
    assert_eq!(follow.await.unwrap(), "line 5\nlast\n");
    let rest = feed.rest_of("log").await;
    assert_eq!(rest.last().unwrap().data["line"], "last");
    let resumed = stack
        .api
        .events(&format!("{path}?follow=true"), Some(&seen[1].id))
        .await
        .rest_of("log")
        .await;
    let lines: Vec<&Value> = resumed
        .iter()
        .map(|message| &message.data["line"])
        .collect();
    assert_eq!(
        lines,
        ["line 3", "line 4", "line 5", "last"],
        "resumed after the second line"
    );
}
