//! Runs over HTTP: every status and body that is promised.

use quintet_testkit::wait_for;
use quintet_tests::{Answer, Api, Runs, TIMEOUT};
use reqwest::Method;
use serde_json::{Value, json};

/// A plan that waits for a person.
fn gate() -> Value {
    json!({"nodes": [{"id": "go", "kind": "gate"}]})
}

/// Makes a run and returns its id.
pub(crate) async fn make(api: &Api, body: Value) -> String {
    let made = api.post("/runs?mode=queue", body).await.expect(201);
    made.body["runId"].as_str().unwrap().to_owned()
}

/// Waits until the run has this status.
pub(crate) async fn until(api: &Api, id: &str, status: &str) -> Value {
    let run = wait_for("a status of a run", TIMEOUT, async || {
        let run = api.get(&format!("/runs/{id}")).await.body["run"].clone();
        if run["status"] == status {
            Ok(run)
        } else {
            Err(run.to_string())
        }
    });
    run.await.unwrap()
}

/// The body of an answer without its code, its hint and the id of the request.
pub(crate) fn error_body(answer: &Answer) -> Value {
    let mut body = answer.body.clone();
    let fields = body.as_object_mut().unwrap();
    for name in ["code", "requestId", "hint"] {
        fields.remove(name);
    }
    body
}

#[tokio::test]
async fn a_run_is_planned_or_created_by_the_mode() {
    let runs = Runs::start(1).await;
    let api = runs.api();
    for path in ["/runs", "/runs?mode=plan", "/v1/runs?mode=plan"] {
        let planned = api
            .post(path, json!({"plan": gate()}))
            .await
            .expect(200)
            .body;
        assert_eq!(planned["mode"], "plan");
        assert_eq!(planned["plan"]["layers"], json!([["go"]]));
    }
    for (path, location) in [
        ("/runs?mode=queue", "/runs/"),
        ("/runs?mode=redis", "/runs/"),
        ("/v1/runs", "/v1/runs/"),
        ("/v1/runs?mode=queue", "/v1/runs/"),
    ] {
        let body = json!({"plan": gate(), "name": "n", "metadata": {"a": 1}, "inputs": {"b": 2}});
        let request = api
            .request(Method::POST, path)
            .json(&body)
            .header("x-actor-id", "ada");
        let made = api.send(request).await.expect(201);
        let id = made.body["runId"].as_str().unwrap();
        assert_eq!(made.body["id"], made.body["runId"]);
        assert_eq!(made.body["status"], made.body["run"]["status"]);
        assert_eq!(
            made.header("location"),
            Some(format!("{location}{id}").as_str())
        );
        let run = api.get(&format!("/runs/{id}")).await.expect(200).body["run"].take();
        assert_eq!((&run["owner"], &run["name"]), (&json!("ada"), &json!("n")));
        assert_eq!(
            (&run["metadata"], &run["inputs"]),
            (&json!({"a": 1}), &json!({"b": 2}))
        );
        assert!(run["nodes"]["go"]["status"].is_string(), "{run}");
    }
    let wrong = api.post("/runs?mode=fast", json!({})).await.expect(400);
    assert!(
        wrong.text.contains("plan, queue, redis, k8s"),
        "{}",
        wrong.text
    );
    let none = api.post("/runs", json!({})).await.expect(422);
    assert_eq!(none.body["error"], "invalid plan");
    api.post("/runs?mode=k8s", json!({"plan": gate()}))
        .await
        .expect(503);
    api.post("/runs?mode=queue", json!({"name": 7}))
        .await
        .expect(422);
    api.post("/runs?mode=queue", json!([])).await.expect(422);
}

#[tokio::test]
async fn every_problem_of_a_plan_is_reported_at_once() {
    let runs = Runs::start(1).await;
    let plan = json!({
        "nodes": [
            {"id": "a", "kind": "gate"}, {"id": "a", "kind": "gate"}, {"id": "b", "kind": "dance"},
            {"id": "c", "kind": "gate", "needs": ["d"]}, {"id": "d", "kind": "gate", "needs": ["c"]},
        ],
        "edges": [{"from": "a", "to": "nowhere"}]
    });
    for path in ["/runs", "/runs?mode=queue", "/v1/runs"] {
        let refused = runs
            .api()
            .post(path, json!({"plan": plan}))
            .await
            .expect(422);
        assert_eq!(refused.body["error"], "invalid plan");
        let problems = refused.body["problems"].as_array().unwrap();
        let codes: Vec<&str> = problems
            .iter()
            .map(|one| one["code"].as_str().unwrap())
            .collect();
        for code in ["duplicateId", "unknownKind", "danglingEdge", "cycle"] {
            assert!(codes.contains(&code), "{code}: {problems:?}");
        }
    }
}

#[tokio::test]
async fn a_run_of_an_outside_program_gets_checkpoints_and_an_end() {
    let runs = Runs::start(1).await;
    let api = runs.api();
    let id = make(api, json!({})).await;
    let path = format!("/runs/{id}");
    let checkpoints = format!("{path}/checkpoints");
    let added = api
        .post(
            &checkpoints,
            json!({"type": " half ", "data": {"x": 1}, "id": "mine"}),
        )
        .await
        .expect(201);
    let listed = api.get(&checkpoints).await.expect(200).body;
    assert_eq!(listed["runId"], json!(id));
    let one = &listed["checkpoints"][0];
    assert_eq!(
        (&one["id"], &one["type"]),
        (&added.body["checkpointId"], &json!("half"))
    );
    assert_eq!(
        (&one["runId"], &one["data"]),
        (&json!(id), &json!({"x": 1}))
    );
    assert!(one["ts"].is_string());
    for (body, error) in [
        (json!({}), "invalid checkpoint type"),
        (json!({"type": "  "}), "invalid checkpoint type"),
        (json!({"type": "x".repeat(257)}), "invalid checkpoint type"),
        (json!([1]), "validation failed"),
    ] {
        let refused = api.post(&checkpoints, body.clone()).await.expect(400);
        assert_eq!(refused.body["error"], error, "{body}");
    }
    let refused = api.post(&checkpoints, json!("x")).await.expect(400);
    assert!(refused.body["details"].is_array());
    let large = json!({"type": "large", "data": "x".repeat(1024 * 1024)});
    assert_eq!(
        api.post(&checkpoints, large).await.expect(413).body["code"],
        "PAYLOAD_TOO_LARGE"
    );
    for wrong in [
        json!({}),
        json!({"status": "running"}),
        json!({"status": 7}),
        json!([]),
    ] {
        let refused = api
            .post(&format!("{path}/complete"), wrong.clone())
            .await
            .expect(400);
        assert_eq!(refused.body["error"], "validation failed", "{wrong}");
        assert!(!refused.body["details"].as_array().unwrap().is_empty());
    }
    let done = api
        .post(
            &format!("{path}/complete"),
            json!({"status": "completed", "output": {"y": 2}}),
        )
        .await
        .expect(200);
    assert_eq!(
        (&done.body["status"], &done.body["run"]["output"]),
        (&json!("completed"), &json!({"y": 2}))
    );
    let run = api.get(&path).await.expect(200).body["run"].take();
    assert_eq!(run["status"], "completed");
    assert!(run["endedAt"].is_string());
    api.post(&checkpoints, json!({"type": "late"}))
        .await
        .expect(409);
    api.post(&format!("{path}/complete"), json!({"status": "failed"}))
        .await
        .expect(409);
    let refused = api.delete(&path).await.expect(409);
    let expected =
        json!({"error": "invalid status transition", "from": "completed", "to": "canceled"});
    assert_eq!(error_body(&refused), expected);
    assert_eq!(
        api.get(&checkpoints).await.expect(200).body["checkpoints"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_large_checkpoint_is_stored_apart_and_shown_whole() {
    let runs = Runs::start(1).await;
    let api = runs.api();
    let id = make(api, json!({})).await;
    let path = format!("/runs/{id}/checkpoints");
    let mut live = api.events(&format!("/runs/{id}/events"), Some("0")).await;
    // Half a million small numbers, which are larger on the bus than as text; and almost a mebibyte of text.
    let numbers = json!(vec![0.5; 140_000]);
    let text = json!("x".repeat(1_000_000));
    for data in [&numbers, &text] {
        api.post(&path, json!({"type": "large", "data": data}))
            .await
            .expect(201);
    }
    let small = json!("x".repeat(500_000));
    api.post(&path, json!({"type": "small", "data": small}))
        .await
        .expect(201);
    let expected = [&numbers, &text, &small];
    let listed = api.get(&path).await.expect(200).body;
    for (one, data) in listed["checkpoints"]
        .as_array()
        .unwrap()
        .iter()
        .zip(expected)
    {
        assert_eq!((&one["data"], &one["blob"]), (data, &Value::Null));
    }
    for data in expected {
        assert_eq!(
            &live.next_of("checkpoint").await.unwrap().data["data"],
            data
        );
    }
    let mut late = api
        .events(&format!("/runs/{id}/events?replay=3"), None)
        .await;
    for data in expected {
        assert_eq!(
            &late.next_of("checkpoint").await.unwrap().data["data"],
            data
        );
    }
    let ended = api.delete(&format!("/runs/{id}")).await;
    ended.expect(200);
    api.post(&path, json!({"type": "large", "data": text}))
        .await
        .expect(409);
}

#[tokio::test]
async fn a_run_is_canceled_once_and_an_unknown_one_not_at_all() {
    let runs = Runs::start(1).await;
    let api = runs.api();
    let id = make(api, json!({"plan": gate()})).await;
    let path = format!("/v1/runs/{id}");
    assert_eq!(
        api.delete(&path).await.expect(200).body,
        json!({"ok": true, "status": "canceled"})
    );
    let again = api.delete(&path).await.expect(409);
    assert_eq!(
        error_body(&again),
        json!({"error": "invalid status transition", "from": "canceled", "to": "canceled"})
    );
    for id in [
        quintet_bus::new_run_id().to_string(),
        "7".to_owned(),
        "x%20y".to_owned(),
    ] {
        let path = format!("/runs/{id}");
        let answers = [
            api.get(&path).await,
            api.delete(&path).await,
            api.get(&format!("{path}/checkpoints")).await,
            api.get(&format!("{path}/events")).await,
            api.post(&format!("{path}/checkpoints"), json!({"type": "t"}))
                .await,
            api.post(&format!("{path}/complete"), json!({"status": "failed"}))
                .await,
            api.order(&format!("{path}/retry")).await,
            api.order(&format!("{path}/nodes/go/approve")).await,
            api.order(&format!("{path}/nodes/go/reject")).await,
        ];
        for answer in answers {
            assert_eq!(
                error_body(&answer.expect(404)),
                json!({"error": "run not found"})
            );
        }
    }
}

#[tokio::test]
async fn a_gate_is_decided_once() {
    let runs = Runs::start(1).await;
    let api = runs.api();
    let waiting = async |verb: &str| {
        let id = make(api, json!({"plan": gate()})).await;
        let path = format!("/runs/{id}/nodes/go/{verb}");
        let answer = wait_for("a gate that waits", TIMEOUT, async || {
            let answer = api.order(&path).await;
            if answer.status == 409 {
                Err(answer.text)
            } else {
                Ok(answer)
            }
        });
        answer.await.unwrap().expect(200);
        (id, path)
    };
    let (approved, path) = waiting("approve").await;
    until(api, &approved, "completed").await;
    api.order(&path).await.expect(409);
    let (rejected, _) = waiting("reject").await;
    until(api, &rejected, "failed").await;
    let other = make(api, json!({"plan": gate()})).await;
    api.order(&format!("/runs/{other}/nodes/stay/approve"))
        .await
        .expect(409);
    api.order(&format!("/runs/{other}/nodes/%00/approve"))
        .await
        .expect(409);
}

#[tokio::test]
async fn an_ended_run_is_continued_in_a_new_one() {
    let runs = Runs::start(1).await;
    let api = runs.api();
    let plan = json!({"nodes": [
        {"id": "nap", "kind": "sleep", "for": "1ms"}, {"id": "go", "kind": "gate", "needs": ["nap"]},
    ]});
    let body = json!({"plan": plan, "name": "again", "metadata": {"m": 1}});
    let request = api
        .request(Method::POST, "/runs?mode=queue&owner=ada")
        .json(&body);
    let id = api.send(request).await.expect(201).body["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let retry = format!("/runs/{id}/retry");
    assert_eq!(
        api.order(&retry).await.expect(409).body["error"],
        "invalid status transition"
    );
    let reject = format!("/runs/{id}/nodes/go/reject");
    let rejected = wait_for("the gate", TIMEOUT, async || {
        api.order(&reject).await.status == 200
    });
    rejected.await.unwrap();
    let old = until(api, &id, "failed").await;
    let new = api.order(&retry).await.expect(201);
    let run = &new.body["run"];
    assert_ne!(new.body["runId"], json!(id));
    assert_eq!(
        (&run["retryOf"], &run["owner"], &run["name"]),
        (&json!(id), &json!("ada"), &json!("again"))
    );
    assert_eq!(
        (&run["metadata"], &run["plan"]),
        (&old["metadata"], &old["plan"])
    );
    assert_eq!(
        run["nodes"]["nap"], old["nodes"]["nap"],
        "it is not done again"
    );
    let approve = format!("/runs/{}/nodes/go/approve", run["id"].as_str().unwrap());
    let approved = wait_for("the gate", TIMEOUT, async || {
        api.order(&approve).await.status == 200
    });
    approved.await.unwrap();
    until(api, run["id"].as_str().unwrap(), "completed").await;
}

#[tokio::test]
async fn runs_are_listed_newest_first_page_by_page() {
    let runs = Runs::start(1).await;
    let api = runs.api();
    assert_eq!(api.get("/runs").await.expect(200).body, json!({"runs": []}));
    let mut ids = Vec::new();
    for n in 0..23 {
        let request = api
            .request(Method::POST, "/runs?mode=queue")
            .json(&json!({}));
        let owner = if n % 2 == 0 { "ada" } else { "bob" };
        let made = api
            .send(request.header("x-actor-id", owner))
            .await
            .expect(201);
        ids.insert(0, made.body["id"].as_str().unwrap().to_owned());
        if n % 3 == 0 {
            api.delete(&format!("/runs/{}", ids[0])).await.expect(200);
        }
    }
    let all = async |filter: &str| {
        let (mut listed, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = api
                .get(&format!("/v1/runs?limit=4{filter}{cursor}"))
                .await
                .expect(200)
                .body;
            let runs = page["runs"].as_array().unwrap();
            assert!(runs.len() <= 4);
            listed.extend(
                runs.iter()
                    .map(|run| run["id"].as_str().unwrap().to_owned()),
            );
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return listed,
            }
        }
    };
    assert_eq!(all("").await, ids);
    let of = |wanted: &dyn Fn(usize) -> bool| -> Vec<String> {
        let numbered = ids
            .iter()
            .enumerate()
            .filter(|(place, _)| wanted(22 - place));
        numbered.map(|(_, id)| id.clone()).collect()
    };
    assert_eq!(all("&owner=bob").await, of(&|n| n % 2 == 1));
    assert_eq!(all("&status=canceled").await, of(&|n| n % 3 == 0));
    assert_eq!(
        api.get("/runs").await.body["runs"]
            .as_array()
            .unwrap()
            .len(),
        23
    );
    for wrong in ["limit=0", "limit=101", "limit=x", "cursor=x", "status=done"] {
        api.get(&format!("/runs?{wrong}")).await.expect(422);
    }
}
