//! Wrong input: every answer names the problem, under the right status, with the request's id.

use quintet_tests::{Plan, Stack};
use reqwest::Method;
use serde_json::json;

/// A request and the answer it deserves.
struct Case {
    method: Method,
    path: &'static str,
    kind: Option<&'static str>,
    body: &'static str,
    status: u16,
    code: &'static str,
}

fn case(
    method: Method,
    path: &'static str,
    body: &'static str,
    status: u16,
    code: &'static str,
) -> Case {
    let kind = (!body.is_empty()).then_some("application/json");
    Case {
        method,
        path,
        kind,
        body,
        status,
        code,
    }
}

#[tokio::test]
async fn every_wrong_request_gets_its_status_its_code_and_a_sentence() {
    let stack = Stack::without_agents().await;
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    let cases = vec![
        case(get.clone(), "/nowhere", "", 404, "NOT_FOUND"),
        case(get.clone(), "/v1/jobs/none", "", 404, "NOT_FOUND"),
        case(get.clone(), "/v1/jobs/none/logs", "", 404, "NOT_FOUND"),
        case(get.clone(), "/v1/jobs/none/events", "", 404, "NOT_FOUND"),
        case(get.clone(), "/v1/jobs/none/metadata", "", 404, "NOT_FOUND"),
        case(
            put.clone(),
            "/v1/jobs/none/metadata",
            "{}",
            404,
            "NOT_FOUND",
        ),
        case(post.clone(), "/v1/jobs/none/stop", "", 404, "NOT_FOUND"),
        case(post.clone(), "/v1/jobs/none/mute", "", 404, "NOT_FOUND"),
        case(post.clone(), "/v1/jobs/none/unmute", "", 404, "NOT_FOUND"),
        case(
            post.clone(),
            "/v1/jobs/none/control",
            r#"{"command":"x"}"#,
            404,
            "NOT_FOUND",
        ),
        case(get.clone(), "/v1/agents/none", "", 404, "NOT_FOUND"),
        case(delete.clone(), "/v1/agents/none", "", 404, "NOT_FOUND"),
        case(get.clone(), "/v1/templates/none", "", 404, "NOT_FOUND"),
        case(delete.clone(), "/v1/jobs", "", 405, "METHOD_NOT_ALLOWED"),
        case(
            get.clone(),
            "/v1/jobs/none/stop",
            "",
            405,
            "METHOD_NOT_ALLOWED",
        ),
        case(Method::OPTIONS, "/v1/jobs", "", 405, "METHOD_NOT_ALLOWED"),
        case(post.clone(), "/healthz", "", 405, "METHOD_NOT_ALLOWED"),
        case(post.clone(), "/v1/jobs", "{", 400, "BAD_REQUEST"),
        case(post.clone(), "/v1/jobs/batch", "[{]", 400, "BAD_REQUEST"),
        case(
            put.clone(),
            "/v1/templates/t",
            "nonsense",
            400,
            "BAD_REQUEST",
        ),
        case(post.clone(), "/v1/jobs", "{}", 422, "VALIDATION_FAILED"),
        case(post.clone(), "/v1/jobs", "null", 422, "VALIDATION_FAILED"),
        case(post.clone(), "/v1/jobs", "[]", 422, "VALIDATION_FAILED"),
        case(
            post.clone(),
            "/v1/jobs",
            r#"{"templateId":"a","inlineConfig":{}}"#,
            422,
            "VALIDATION_FAILED",
        ),
        case(
            post.clone(),
            "/v1/jobs",
            r#"{"templateId":7}"#,
            422,
            "VALIDATION_FAILED",
        ),
        case(
            post.clone(),
            "/v1/jobs",
            r#"{"inlineConfig":"x"}"#,
            422,
            "VALIDATION_FAILED",
        ),
        case(
            post.clone(),
            "/v1/jobs",
            r#"{"inlineConfig":{},"restartPolicy":"maybe"}"#,
            422,
            "VALIDATION_FAILED",
        ),
        case(
            post.clone(),
            "/v1/jobs",
            r#"{"inlineConfig":{},"priority":"high"}"#,
            422,
            "VALIDATION_FAILED",
        ),
        case(
            post.clone(),
            "/v1/jobs",
            r#"{"inlineConfig":{},"notBefore":"soon"}"#,
            422,
            "VALIDATION_FAILED",
        ),
        case(
            post.clone(),
            "/v1/jobs",
            r#"{"inlineConfig":{},"idempotencyKey":""}"#,
            422,
            "VALIDATION_FAILED",
        ),
        case(
            post.clone(),
            "/v1/jobs",
            r#"{"inlineConfig":{},"requirements":{"maxResolution":"8k"}}"#,
            422,
            "VALIDATION_FAILED",
        ),
        case(
            post.clone(),
            "/v1/jobs/batch",
            "{}",
            422,
            "VALIDATION_FAILED",
        ),
        case(
            post.clone(),
            "/v1/agents/a/drain",
            r#"{"drain":1}"#,
            422,
            "VALIDATION_FAILED",
        ),
        Case {
            kind: Some("text/plain"),
            ..case(
                post.clone(),
                "/v1/jobs",
                "{}",
                415,
                "UNSUPPORTED_MEDIA_TYPE",
            )
        },
        Case {
            kind: None,
            ..case(
                post.clone(),
                "/v1/jobs",
                "{}",
                415,
                "UNSUPPORTED_MEDIA_TYPE",
            )
        },
    ];
    for case in cases {
        let mut request = stack.api.request(case.method.clone(), case.path);
        if let Some(kind) = case.kind {
            request = request.header("content-type", kind);
        }
        let answer = stack.api.send(request.body(case.body)).await;
        let what = format!(
            "{} {} {} -> {} {}",
            case.method, case.path, case.body, answer.status, answer.text
        );
        assert_eq!(answer.status, case.status, "{what}");
        assert_eq!(answer.body["code"], case.code, "{what}");
        assert!(
            answer.body["error"]
                .as_str()
                .is_some_and(|error| !error.is_empty()),
            "{what}"
        );
        assert_eq!(
            answer.body["requestId"].as_str(),
            answer.header("x-request-id"),
            "{what}"
        );
    }
    let wrong = stack.api.delete("/v1/jobs").await;
    let allowed = wrong.header("allow").unwrap();
    assert!(
        allowed.contains("GET") && allowed.contains("POST"),
        "{allowed}"
    );
    let named = stack
        .api
        .post("/v1/jobs", json!({"inlineConfig": {}, "priority": "high"}))
        .await;
    assert!(named.text.contains("priority"), "{}", named.text);
    assert_eq!(
        stack.api.get("/v1/jobs").await.body,
        json!([]),
        "nothing of this was stored"
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_one_below_it_is_not() {
    let stack = Stack::without_agents().await;
    let body = |bytes: usize| json!({"inlineConfig": {"note": "x".repeat(bytes)}});
    let answer = stack
        .api
        .post("/v1/jobs", body(1024 * 1024))
        .await
        .expect(413);
    assert_eq!(answer.body["code"], "PAYLOAD_TOO_LARGE");
    let answer = stack
        .api
        .post("/v1/jobs", body(400 * 1024))
        .await
        .expect(201);
    let id = answer.body["id"].as_str().unwrap();
    assert_eq!(
        stack.api.job(id).await["inlineConfig"]["note"]
            .as_str()
            .unwrap()
            .len(),
        400 * 1024
    );
}

#[tokio::test]
async fn a_request_id_is_taken_over_when_it_is_sane_and_given_when_it_is_not() {
    let stack = Stack::without_agents().await;
    let ask = |id: &str| {
        let request = stack
            .api
            .request(Method::GET, "/v1/jobs")
            .header("x-request-id", id);
        stack.api.send(request)
    };
    assert_eq!(ask("mine-1").await.header("x-request-id"), Some("mine-1"));
    let long = "x".repeat(5000);
    assert_ne!(ask(&long).await.header("x-request-id"), Some(long.as_str()));
    assert!(
        stack
            .api
            .get("/healthz")
            .await
            .header("x-request-id")
            .is_some()
    );
}

#[tokio::test]
async fn health_readiness_metrics_and_documents_are_there_from_the_start() {
    let stack = Stack::start().await;
    let healthz = stack.api.get("/healthz").await.expect(200);
    assert_eq!(healthz.body["ok"], true);
    assert_eq!(stack.api.get("/ready").await.status, 200);
    let health = stack.api.get("/health").await.expect(200).body;
    assert_eq!(
        (&health["ok"], &health["service"]),
        (&json!(true), &json!("orchestrator"))
    );
    assert!(
        health["uptime"].is_u64() && health["components"].is_object(),
        "{health}"
    );
    let metrics = stack.api.get("/metrics").await.expect(200);
    assert!(
        metrics.text.contains("http_requests_total"),
        "{}",
        metrics.text
    );
    let document = stack.api.get("/openapi.json").await.expect(200).body;
    for path in [
        "/v1/jobs",
        "/v1/jobs/{id}",
        "/v1/jobs/batch",
        "/v1/agents/{id}/drain",
        "/v1/templates/{id}",
    ] {
        assert!(document["paths"][path].is_object(), "{path} is documented");
    }
    let docs = stack.api.get("/docs").await.expect(200);
    assert!(
        docs.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    let dashboard = stack.api.get("/").await.expect(200);
    assert!(
        dashboard
            .header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
}

#[tokio::test]
async fn with_api_keys_set_each_role_may_do_its_part() {
    let plan = Plan {
        agents: 0,
        edge: |config| {
            config.api_keys =
                quintet_edge::parse_api_keys("eve:viewer:look,oz:operator:work").unwrap();
        },
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    let (viewer, operator) = (stack.api.with_key("look"), stack.api.with_key("work"));
    let body = || json!({"inlineConfig": {}});
    assert_eq!(
        stack.api.get("/v1/jobs").await.expect(401).body["code"],
        "UNAUTHORIZED"
    );
    assert_eq!(
        stack.api.with_key("wrong").get("/v1/jobs").await.status,
        401
    );
    assert_eq!(viewer.get("/v1/jobs").await.status, 200);
    assert_eq!(
        viewer.post("/v1/jobs", body()).await.expect(403).body["code"],
        "FORBIDDEN"
    );
    let job = operator.post("/v1/jobs", body()).await.expect(201).body;
    assert_eq!(job["requestedBy"], "oz");
    let header = stack
        .api
        .request(Method::GET, "/v1/jobs")
        .header("x-api-key", "look");
    assert_eq!(stack.api.send(header).await.status, 200);
    assert_eq!(
        stack.api.get("/healthz").await.status,
        200,
        "health is open"
    );
    let id = job["id"].as_str().unwrap();
    let path = format!("/v1/jobs/{id}/events?token=look");
    let mut stream = stack.api.events(&path, None).await;
    assert!(stream.next_of("job.status").await.is_some());
}

#[tokio::test]
async fn a_caller_over_the_rate_gets_retry_after() {
    let plan = Plan {
        agents: 0,
        edge: |config| config.rate_limit = Some(20),
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    let answers = futures::future::join_all((0..60).map(|_| stack.api.get("/v1/agents"))).await;
    let refused: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 429)
        .collect();
    assert!(!refused.is_empty());
    assert_eq!(refused[0].body["code"], "RATE_LIMITED");
    assert!(refused[0].header("retry-after").is_some());
    assert_eq!(
        stack.api.get("/healthz").await.status,
        200,
        "health is not limited"
    );
}

#[tokio::test]
async fn pages_of_allowed_origins_may_use_the_interface_and_others_may_not() {
    let plan = Plan {
        agents: 0,
        edge: |config| config.cors_origins = vec!["https://studio.example".to_owned()],
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    let preflight = async |origin: &str| {
        let request = stack.api.request(Method::OPTIONS, "/v1/jobs");
        let request = request
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        stack.api.send(request).await
    };
    let allowed = preflight("https://studio.example").await;
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        Some("https://studio.example")
    );
    assert!(
        allowed
            .header("access-control-allow-methods")
            .unwrap()
            .contains("POST")
    );
    assert_eq!(
        preflight("https://elsewhere.example")
            .await
            .header("access-control-allow-origin"),
        None
    );
}
