//! What the fuzz targets of tests/fuzz reach of this crate: its private borders, without sockets and without a bus.
//!
//! Compiled for the fuzzer alone (`cfg(fuzzing)`), so that nothing of it is in a real build. A broken promise is a panic, since that is what
//! a fuzzer sees.

use axum::http::HeaderMap;
use quintet_bus::{Encoding, decode, encode, now};
use quintet_contract::agent::Assignment;
use quintet_contract::api::{
    BatchEntry, BatchReply, ControlJob, DrainAgent, MAX_BATCH, PutTemplate, SubmitBatch,
    SubmitReply, TemplateList,
};
use quintet_contract::id::{AgentId, IdempotencyKey, JobId, TemplateId};
use quintet_contract::job::{Attempt, Job, JobRecord, KeyRecord};
use quintet_contract::template::Template;
use quintet_contract::{JsonObject, metadata};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::access::identity::Caller;
use crate::error::HttpError;
use crate::http::extract;
use crate::http::extract::{Unprocessable, array};
pub use crate::jobs::agent_socket::fuzz::agent_session;
use crate::jobs::routes::{batch, job as jobs};
use crate::jobs::{agents, templates};

/// One request: its method and path on the first line, its body after that.
pub fn request(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (Some(route), Some(body)) = (parts.next(), parts.next()) else {
        return;
    };
    let outcome = match route {
        b"POST /v1/jobs" => submit(body),
        b"POST /v1/jobs/batch" => submit_batch(body),
        b"PUT /v1/templates/t" => put_template(body),
        b"PUT /v1/jobs/j/metadata" => patch_metadata(body),
        b"POST /v1/jobs/j/control" => control(body),
        b"POST /v1/agents/a/drain" => drain(body),
        _ => return,
    };
    if let Err(error) = outcome {
        let status = error.reply.code.http_status();
        assert!(
            (400..500).contains(&status),
            "a body is answered {status}: {error:?}"
        );
        travels(&error.reply);
    }
}

fn submit(body: &[u8]) -> Result<(), HttpError> {
    let submit = jobs::with_request_context(object(body)?, &caller(), &HeaderMap::new())?;
    submit.check()?;
    travels(&submit);
    let mut job = known();
    job.inline_config.clone_from(&submit.inline_config);
    job.params = submit.params.unwrap_or_default();
    job.stream_metadata = submit.stream_metadata;
    resolve(submit.inline_config.unwrap_or_default(), &job.params);
    answers(job);
    Ok(())
}

fn submit_batch(body: &[u8]) -> Result<(), HttpError> {
    let items = array(body)?;
    let wanted = |item| batch::parse_entry(item, &caller(), &HeaderMap::new());
    let jobs = items.into_iter().take(MAX_BATCH).map(wanted);
    // An entry that is wrong harms no other.
    let jobs = jobs.filter_map(Result::ok).collect();
    travels(&SubmitBatch { jobs });
    Ok(())
}

fn put_template(body: &[u8]) -> Result<(), HttpError> {
    let id = TemplateId::parse("t").expect("a legal id");
    let template = templates::named(id.clone(), object(body)?)?;
    assert_eq!(template.id, id, "the path names the template");
    travels(&PutTemplate {
        template: template.clone(),
    });
    travels(&TemplateList {
        templates: vec![template.clone()],
    });
    resolve(template.config, &template.defaults);
    Ok(())
}

fn patch_metadata(body: &[u8]) -> Result<(), HttpError> {
    let patch = jobs::patch(job(), object(body)?)?;
    travels(&patch);
    let mut merged = JsonObject::new();
    metadata::merge(&mut merged, patch.metadata);
    assert!(!merged.values().any(serde_json::Value::is_null));
    let mut job = known();
    job.stream_metadata = Some(merged);
    answers(job);
    Ok(())
}

fn control(body: &[u8]) -> Result<(), HttpError> {
    let jobs::Control { command, args } = object(body)?;
    travels(&ControlJob {
        id: job(),
        command,
        args,
    });
    Ok(())
}

fn drain(body: &[u8]) -> Result<(), HttpError> {
    let agents::Drain { drain } = object(body)?;
    let id = AgentId::parse("a").expect("a legal id");
    travels(&DrainAgent { id, drain });
    Ok(())
}

/// Fills the places of a configuration as a stored template does; a missing value is no defect.
fn resolve(config: JsonObject, params: &JsonObject) {
    let template = Template {
        id: TemplateId::parse("t").expect("a legal id"),
        name: None,
        executor: "noop".to_owned(),
        config,
        defaults: JsonObject::new(),
        requirements: Default::default(),
        created_at: None,
        updated_at: None,
    };
    if let Ok(config) = template.resolve(params) {
        travels(&Assignment {
            job_id: job(),
            attempt: Attempt(1),
            config,
            idempotency_key: IdempotencyKey::parse("k").expect("a legal key"),
            expires_at: now(),
            restartable: false,
            requested_by: "fuzz".to_owned(),
            stream_metadata: JsonObject::new(),
        });
    }
}

/// A job as it is answered and kept; the answer to a batch holds one deepest of all.
fn answers(job: Job) {
    travels(&KeyRecord {
        job_id: job.id.clone(),
        pool: job.pool.clone(),
        first: JobRecord {
            job: job.clone(),
            private: Default::default(),
            caused_by: None,
            trace_id: None,
        },
        ended: false,
    });
    let accepted = SubmitReply { job, created: true };
    travels(&BatchReply {
        results: vec![BatchEntry {
            accepted: Some(accepted),
            refused: None,
        }],
    });
}

/// A job of which only what must be is known.
fn known() -> Job {
    let job = r#"{"id": "j", "status": "PENDING", "requestedBy": "fuzz", "createdAt": "2026-01-31T12:00:00.000Z",
        "updatedAt": "2026-01-31T12:00:00.000Z"}"#;
    serde_json::from_str(job).expect("a job")
}

/// What is accepted here must arrive there: it is read back from the bus as what it was.
fn travels<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T) {
    let bytes = encode(message, Encoding::default()).expect("every message can be written");
    let (read, _) = decode::<T>(&bytes).expect("what was written can be read");
    assert_eq!(&read, message);
}

fn job() -> JobId {
    JobId::parse("j").expect("a legal id")
}

fn caller() -> Caller {
    Caller::anonymous()
}

fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, HttpError> {
    extract::object::<T, Unprocessable>(body)
}
