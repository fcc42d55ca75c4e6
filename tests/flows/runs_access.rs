//! Access to runs over HTTP: keys, origins and limits.

use std::num::NonZeroU32;
use std::time::Duration;

use quintet_edge::{ApiKey, EdgeConfig, Role, RunRateLimit};
use quintet_tests::Runs;
use reqwest::Method;
use serde_json::json;

use crate::runs_http::{error_body, make};

#[tokio::test]
async fn run_routes_require_a_key_and_answer_just_that() {
    let runs = Runs::with(1, |edge| {
        edge.api_keys = vec![
            ApiKey::new("orchestrator", Role::Operator, "secret"),
            ApiKey::new("eve", Role::Viewer, "look"),
        ];
    });
    let runs = runs.await;
    let api = runs.api();
    for path in ["/runs", "/v1/runs", "/runs/7", "/v1/runs/7/events"] {
        for api in [api, &api.with_key("wrong")] {
            let refused = api.get(path).await.expect(401);
            assert_eq!(
                error_body(&refused),
                json!({"error": "unauthorized"}),
                "{path}"
            );
            assert_eq!(refused.body["code"], "UNAUTHORIZED");
            assert_eq!(
                refused.body["requestId"].as_str(),
                refused.header("x-request-id")
            );
            assert!(refused.header("www-authenticate").is_some());
        }
    }
    let by_header = api
        .request(Method::GET, "/runs")
        .header("x-api-key", "secret");
    api.send(by_header).await.expect(200);
    let known = api.with_key("secret");
    known.get("/runs").await.expect(200);
    let id = make(&known, json!({})).await;
    api.with_key("look")
        .delete(&format!("/runs/{id}"))
        .await
        .expect(403);
    for path in ["/ready", "/health", "/healthz", "/metrics"] {
        api.get(path).await.expect(200);
    }
    assert_eq!(api.get("/ready").await.body["ok"], true);
    let health = api.get("/health").await.body;
    assert_eq!(
        (&health["ok"], &health["service"]),
        (&json!(true), &json!("orchestrator"))
    );
    let options = api.send(api.request(Method::OPTIONS, "/runs")).await;
    assert_eq!(options.status, 405, "it is not asked for a key");
    // A browser's event stream can send no header.
    let events = format!("/runs/{id}/events");
    let mut by_token = api.events(&format!("{events}?token=look"), None).await;
    assert_eq!(by_token.next().await.unwrap().event, "hello");
    let request = api.request(Method::GET, &format!("{events}?replay=x"));
    let by_cookie = api
        .send(request.header("cookie", "quintet_token=look"))
        .await;
    assert_eq!(
        by_cookie.status, 422,
        "the key is known, the parameter is wrong"
    );
}

#[tokio::test]
async fn a_ticket_opens_streams_on_every_edge_and_nothing_else() {
    let with_key = |edge: &mut EdgeConfig| {
        edge.api_keys = vec![
            ApiKey::new("oz", Role::Operator, "work"),
            ApiKey::new("eve", Role::Viewer, "look"),
        ];
    };
    let runs = Runs::with(2, with_key).await;
    let api = runs.api();
    let id = make(&api.with_key("work"), json!({})).await;
    api.order("/v1/tickets").await.expect(401);
    let answer = api
        .with_key("look")
        .order("/v1/tickets")
        .await
        .expect(200)
        .body;
    let ticket = answer["ticket"].as_str().unwrap();
    assert!(answer["expiresAt"].is_string());
    for api in &runs.apis {
        let path = format!("/runs/{id}/events?token={ticket}");
        assert_eq!(
            api.events(&path, None).await.next().await.unwrap().event,
            "hello"
        );
        api.get(&format!("/runs/{id}?token={ticket}"))
            .await
            .expect(401);
        api.with_key(ticket)
            .get(&format!("/runs/{id}"))
            .await
            .expect(401);
        api.get(&format!("/runs/{id}/events?token={ticket}x"))
            .await
            .expect(401);
    }
}

#[tokio::test]
async fn two_edges_count_the_requests_of_one_caller_together() {
    const LIMIT: u32 = 60;
    let runs = Runs::with(2, |edge| {
        edge.run_rate = Some(RunRateLimit {
            max: NonZeroU32::new(LIMIT).unwrap(),
            // One window is longer than the test.
            window: Duration::from_secs(3600),
        });
    });
    let runs = runs.await;
    let mut admitted = 0;
    for turn in 0..LIMIT as usize * 2 {
        let answer = runs.apis[turn % 2].get("/runs").await;
        assert_eq!(answer.header("ratelimit-limit"), Some("60"));
        assert!(
            answer
                .header("ratelimit-reset")
                .unwrap()
                .parse::<u64>()
                .unwrap()
                <= 3600
        );
        let remaining: u32 = answer
            .header("ratelimit-remaining")
            .unwrap()
            .parse()
            .unwrap();
        match answer.status {
            200 => admitted += 1,
            429 => {
                assert_eq!(error_body(&answer), json!({"error": "rate_limited"}));
                assert_eq!(remaining, 0);
                assert!(
                    answer
                        .header("retry-after")
                        .unwrap()
                        .parse::<u64>()
                        .unwrap()
                        >= 1
                );
            }
            other => panic!("{other}: {}", answer.text),
        }
    }
    assert!((LIMIT * 9 / 10..=LIMIT).contains(&admitted), "{admitted}");
    for path in ["/ready", "/health", "/metrics", "/v1/jobs/none"] {
        let answer = runs.api().get(path).await;
        assert_ne!(answer.status, 429, "{path}");
        assert_eq!(answer.header("ratelimit-limit"), None, "{path}");
    }
}

#[tokio::test]
async fn pages_of_this_machine_may_use_runs_and_others_may_not() {
    let runs = Runs::start(1).await;
    let api = runs.api();
    let preflight = async |origin: &str| {
        let request = api.request(Method::OPTIONS, "/runs/x/events");
        let request = request
            .header("origin", origin)
            .header("access-control-request-method", "GET");
        api.send(request.header("access-control-request-headers", "last-event-id,x-api-key"))
            .await
    };
    for origin in [
        "http://localhost:5173",
        "https://127.0.0.1",
        "http://[::1]:3000",
    ] {
        let allowed = preflight(origin).await.expect(200);
        assert_eq!(allowed.header("access-control-allow-origin"), Some(origin));
        let headers = allowed
            .header("access-control-allow-headers")
            .unwrap()
            .to_owned();
        assert!(
            headers.contains("last-event-id") && headers.contains("x-api-key"),
            "{headers}"
        );
        let asked = api
            .send(api.request(Method::GET, "/runs").header("origin", origin))
            .await
            .expect(200);
        assert_eq!(asked.header("access-control-allow-origin"), Some(origin));
        assert!(
            asked
                .header("access-control-expose-headers")
                .unwrap()
                .contains("ratelimit-limit")
        );
    }
    for origin in [
        "https://evil.example",
        "http://localhost.evil.example",
        "null",
    ] {
        assert_eq!(
            preflight(origin)
                .await
                .header("access-control-allow-origin"),
            None,
            "{origin}"
        );
    }
}

#[tokio::test]
async fn requests_about_runs_are_measured_by_method_route_and_status() {
    let runs = Runs::start(1).await;
    runs.api().get("/runs/7").await.expect(404);
    let metrics = runs.api().get("/metrics").await.expect(200).text;
    // Other tests of this process ask the same route.
    let is_wanted = |line: &str| {
        line.starts_with("http_request_duration_seconds")
            && [
                r#"route="/runs/{id}""#,
                r#"method="GET""#,
                r#"status_code="404""#,
            ]
            .iter()
            .all(|label| line.contains(label))
    };
    assert!(metrics.lines().any(is_wanted), "{metrics}");
}
