//! One trace from the HTTP request through the bus, scheduler and agent and back, as a collector receives it.
//!
//! The system is a process of its own here, since telemetry is set up once per process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use quintet_contract::bucket::{Jobs, RunKey, Runs};
use quintet_contract::id::{JobId, RunId};
use quintet_testkit::wait_for;
use quintet_tests::{Stack, TIMEOUT};
use serde_json::json;

use crate::program::Program;
use crate::runs_http;

mod collector {
    //! A receiver of OTLP over HTTP: keeps every span that it is sent.

    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::Bytes;
    use axum::extract::State;
    use axum::routing::post;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;

    pub(super) type Spans = Arc<Mutex<Vec<Span>>>;

    pub(super) async fn start() -> (String, Spans) {
        let spans = Spans::default();
        let app = Router::new()
            .route("/v1/traces", post(take))
            .route("/v1/metrics", post(async || ()))
            .with_state(spans.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (format!("http://{address}"), spans)
    }

    async fn take(State(spans): State<Spans>, body: Bytes) {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        let news = request
            .resource_spans
            .into_iter()
            .flat_map(|resource| resource.scope_spans);
        spans
            .lock()
            .unwrap()
            .extend(news.flat_map(|scope| scope.spans));
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test]
async fn the_way_of_a_job_from_the_http_request_to_the_agent_and_back_is_one_trace() {
    let (endpoint, spans) = collector::start().await;
    let program = Program::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())]).await;
    let request = program.api.request(reqwest::Method::POST, "/v1/jobs");
    let request = request.header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"));
    let body = json!({"inlineConfig": {"durationMs": 5}});
    let job = program.api.send(request.json(&body)).await.expect(201).body;
    program
        .api
        .until(job["id"].as_str().unwrap(), "STOPPED")
        .await;
    let spans: Arc<Mutex<Vec<_>>> = spans;
    let seen = wait_for(
        "a connected trace of edge, scheduler and agent",
        TIMEOUT,
        async || {
            let spans = spans.lock().unwrap();
            let hex = |bytes: &[u8]| {
                bytes
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
            };
            let ours = spans.iter().filter(|span| hex(&span.trace_id) == TRACE);
            let by_id: BTreeMap<String, (String, String)> = ours
                .map(|span| {
                    (
                        hex(&span.span_id),
                        (hex(&span.parent_span_id), span.name.clone()),
                    )
                })
                .collect();
            let names: Vec<&str> = by_id.values().map(|(_, name)| name.as_str()).collect();
            let connected = by_id
                .values()
                .all(|(parent, _)| parent == "b7ad6b7169203331" || by_id.contains_key(parent));
            let has = |wanted: &str| names.iter().any(|name| name.contains(wanted));
            if connected && by_id.len() >= 4 && has("scheduler") && has("assign") && has("reports")
            {
                Ok(())
            } else {
                Err(format!("connected: {connected}, {by_id:?}"))
            }
        },
    );
    seen.await.unwrap();
}

#[tokio::test]
async fn the_records_of_a_run_and_of_its_job_name_the_trace_of_the_request() {
    let stack = Stack::start().await;
    let job = json!({"inlineConfig": {"executor": "noop", "durationMs": 5}});
    let plan = json!({"nodes": [{"id": "n", "kind": "job", "job": job}]});
    let request = stack
        .api
        .request(reqwest::Method::POST, "/v1/runs")
        .header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"))
        .json(&json!({"plan": plan}));
    let made = stack.api.send(request).await.expect(201).body;
    let id = made["runId"].as_str().unwrap();
    runs_http::until(&stack.api, id, "completed").await;
    let jobs = stack.api.get("/v1/jobs").await.expect(200).body;
    let job = JobId::parse(jobs[0]["id"].as_str().unwrap()).unwrap();
    let bus = stack.bus().await;
    let job = bus.bucket::<Jobs>().get(&job).await.unwrap().unwrap();
    assert_eq!(job.record.trace_id.unwrap().as_str(), TRACE);
    let run: RunId = id.parse().unwrap();
    let run = bus
        .bucket::<Runs>()
        .get(&RunKey(run))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(run.record.trace_id.unwrap().as_str(), TRACE);
}
