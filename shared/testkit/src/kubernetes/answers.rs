//! The answers of the server, one function for every request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::stream;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use super::{Fault, NAMESPACE, RecordedRequest, Shared, TOKEN, Verb, check};

type Parameters = Query<BTreeMap<String, String>>;
type Server = State<Arc<Shared>>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let jobs = format!("/apis/batch/v1/namespaces/{NAMESPACE}/jobs");
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    Router::new()
        .route(&jobs, post(create_job))
        .route(&format!("{jobs}/{{name}}"), get(get_job).delete(delete_job))
        .route(&pods, get(pods_answer))
        .route(&format!("{pods}/{{name}}/log"), get(log))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .with_state(shared)
}

async fn unknown(State(shared): Server, request: Request<Body>) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    shared.change(|state| state.problems.push(line));
    failure(
        404,
        "NotFound",
        "the server could not find the requested resource",
    )
}

/// An error answer with its reason.
fn failure(code: u16, reason: &str, message: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    let code = StatusCode::from_u16(code).unwrap();
    (code, axum::Json(status)).into_response()
}

/// Records a request. Returns an answer if a fault is planned for it.
fn ask(
    shared: &Shared,
    verb: Verb,
    headers: &HeaderMap,
    query: BTreeMap<String, String>,
    body: Value,
) -> Result<Option<Fault>, Response> {
    shared.change(|state| {
        state.problems.extend(check::query(verb, &query));
        let token = headers.get(header::AUTHORIZATION);
        if token.and_then(|token| token.to_str().ok()) != Some(&format!("Bearer {TOKEN}")) {
            state.problems.push("no token".to_owned());
        }
        let at = tokio::time::Instant::now();
        state.requests.push(RecordedRequest {
            verb,
            query,
            body,
            at,
        });
        match state.fault(verb) {
            Some(Fault::Code(code, seconds)) => {
                let mut answer = failure(code, "", &format!("a fault: {code}"));
                if let Some(seconds) = seconds {
                    answer
                        .headers_mut()
                        .insert(header::RETRY_AFTER, seconds.into());
                }
                Err(answer)
            }
            fault => Ok(fault),
        }
    })
}

async fn create_job(
    State(shared): Server,
    headers: HeaderMap,
    Query(query): Parameters,
    body: Bytes,
) -> Result<Response, Response> {
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    ask(&shared, Verb::CreateJob, &headers, query, sent.clone())?;
    shared.change(|state| {
        let read = check::body::<Job>(&sent);
        let problems = match &read {
            Ok(job) => check::job(job),
            Err(problem) => vec![problem.clone()],
        };
        if headers
            .get(header::CONTENT_TYPE)
            .is_none_or(|kind| kind != "application/json")
        {
            state.problems.push("a body that is not JSON".to_owned());
        }
        let Ok(mut job) = read else {
            state.problems.extend(problems);
            return Err(failure(400, "BadRequest", "the body is no Job"));
        };
        if !problems.is_empty() {
            state.problems.extend(problems);
            return Err(failure(422, "Invalid", "the Job is invalid"));
        }
        let name = job.metadata.name.clone().unwrap_or_default();
        if state.jobs.contains_key(&name) {
            let message = format!("jobs.batch \"{name}\" already exists");
            return Err(failure(409, "AlreadyExists", &message));
        }
        let version = state.next_version();
        job.metadata.uid = Some(format!("uid-{version}"));
        job.metadata.resource_version = Some(version.to_string());
        state.jobs.insert(name, job.clone());
        Ok((StatusCode::CREATED, axum::Json(job)).into_response())
    })
}

async fn get_job(
    State(shared): Server,
    Path(name): Path<String>,
    headers: HeaderMap,
    Query(query): Parameters,
) -> Result<Response, Response> {
    ask(&shared, Verb::GetJob, &headers, query, Value::Null)?;
    let job = shared.lock().jobs.get(&name).cloned();
    job.map(|job| axum::Json(job).into_response())
        .ok_or_else(|| no_job(&name))
}

fn no_job(name: &str) -> Response {
    failure(404, "NotFound", &format!("jobs.batch \"{name}\" not found"))
}

async fn delete_job(
    State(shared): Server,
    Path(name): Path<String>,
    headers: HeaderMap,
    Query(query): Parameters,
    body: Bytes,
) -> Result<Response, Response> {
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    ask(&shared, Verb::DeleteJob, &headers, query, sent.clone())?;
    shared.change(|state| {
        let options = check::body::<DeleteOptions>(&sent).map_err(|problem| {
            state.problems.push(problem);
            failure(400, "BadRequest", "the body is no DeleteOptions")
        })?;
        let Some(job) = state.jobs.get(&name) else {
            return Err(no_job(&name));
        };
        let wanted = options
            .preconditions
            .and_then(|preconditions| preconditions.uid);
        if wanted.is_some() && wanted != job.metadata.uid {
            return Err(failure(
                409,
                "Conflict",
                "the UID in the precondition does not match",
            ));
        }
        let job = state.jobs.remove(&name);
        Ok(axum::Json(job).into_response())
    })
}

async fn pods_answer(
    State(shared): Server,
    headers: HeaderMap,
    Query(query): Parameters,
) -> Result<Response, Response> {
    let is_watch = query.contains_key("watch");
    let verb = if is_watch {
        Verb::WatchPods
    } else {
        Verb::ListPods
    };
    ask(&shared, verb, &headers, query.clone(), Value::Null)?;
    let wanted = query.get("labelSelector").cloned().unwrap_or_default();
    if is_watch {
        return Ok(watch_pods(shared, &query, wanted));
    }
    let state = shared.lock();
    let pods: Vec<_> = state
        .pods
        .values()
        .filter(|pod| is_selected(pod, &wanted))
        .cloned()
        .collect();
    let version = state.version.to_string();
    let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": version}, "items": pods});
    Ok(axum::Json(list).into_response())
}

fn is_selected(pod: &Value, wanted: &str) -> bool {
    let wanted = check::selector(wanted).unwrap_or_default();
    wanted
        .into_iter()
        .all(|(key, value)| pod["metadata"]["labels"][key] == value)
}

fn watch_pods(shared: Arc<Shared>, query: &BTreeMap<String, String>, wanted: String) -> Response {
    let from: u64 = query
        .get("resourceVersion")
        .and_then(|from| from.parse().ok())
        .unwrap_or(0);
    let changes = shared.changes.subscribe();
    let epoch = shared.lock().watch_epoch;
    let events = stream::unfold(Some((from, changes)), move |place| {
        let (shared, wanted) = (Arc::clone(&shared), wanted.clone());
        async move {
            let (mut from, mut changes) = place?;
            loop {
                {
                    let state = shared.lock();
                    if from < state.oldest {
                        let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                            "message": "too old resource version", "reason": "Expired", "code": 410});
                        return Some((event("ERROR", &gone), None));
                    }
                    let next = state.history.iter().find(|(version, _, _)| *version > from);
                    if let Some((version, kind, object)) = next {
                        from = *version;
                        if *kind == "BOOKMARK" || is_selected(object, &wanted) {
                            return Some((event(kind, object), Some((from, changes))));
                        }
                        continue;
                    }
                    if state.watch_epoch != epoch {
                        return None;
                    }
                }
                changes.changed().await.ok()?;
            }
        }
    });
    Body::from_stream(events).into_response()
}

fn event(kind: &str, object: &Value) -> Result<Bytes, Infallible> {
    Ok(format!("{}\n", json!({"type": kind, "object": object})).into())
}

async fn log(
    State(shared): Server,
    Path(name): Path<String>,
    headers: HeaderMap,
    Query(query): Parameters,
) -> Result<Response, Response> {
    let fault = ask(&shared, Verb::Log, &headers, query.clone(), Value::Null)?;
    let is_following = query.contains_key("follow");
    let since = query
        .get("sinceTime")
        .and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let since = since.map_or(0, |since| i64::try_from(since.as_nanosecond()).unwrap());
    if !shared.lock().pods.contains_key(&name) {
        return Err(failure(
            404,
            "NotFound",
            &format!("pods \"{name}\" not found"),
        ));
    }
    let room = match fault {
        Some(Fault::CutLog(bytes) | Fault::ShortLog(bytes)) => bytes,
        Some(Fault::Code(..)) | None => usize::MAX,
    };
    let is_cut = matches!(fault, Some(Fault::CutLog(_)));
    let mut changes = shared.changes.subscribe();
    // As with the kubelet, there is no answer before there is something to read.
    while is_following && is_silent(&shared, since) && changes.changed().await.is_ok() {}
    let lines = stream::unfold(Some((0, room, changes)), move |place| {
        let shared = Arc::clone(&shared);
        async move {
            let (mut next, room, mut changes) = place?;
            if room == 0 {
                return is_cut.then(|| (Err(std::io::Error::other("cut")), None));
            }
            loop {
                let (line, is_ended) = {
                    let state = shared.lock();
                    (state.log.get(next).cloned(), state.is_log_ended)
                };
                match line {
                    Some((at, _)) if at < since => next += 1,
                    Some((at, mut text)) => {
                        let at = jiff::Timestamp::from_nanosecond(at.into()).unwrap();
                        text.insert_str(0, &format!("{at:.9} "));
                        text.truncate(room);
                        let room = room - text.len();
                        return Some((Ok(Bytes::from(text)), Some((next + 1, room, changes))));
                    }
                    None if is_ended || !is_following => return None,
                    None => changes.changed().await.ok()?,
                }
            }
        }
    });
    Ok(Body::from_stream(lines).into_response())
}

fn is_silent(shared: &Shared, since: i64) -> bool {
    let state = shared.lock();
    !state.is_log_ended && state.log.iter().all(|(at, _)| *at < since)
}
