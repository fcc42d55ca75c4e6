//! Both encodings have the same shape, and nothing that comes from outside makes the codec panic.

use proptest::prelude::*;
use quintet_bus::{CodecError, Encoding, decode, encode, new_job_id, new_session, to_json_text};
use quintet_contract::agent::{
    ActiveJob, Agent, AgentCommand, AgentReport, AgentReports, AgentSettings, Assignment,
    Heartbeat, HeartbeatReply, Hello, ReportsReply,
};
use quintet_contract::api::{ListJobs, SubmitJob, SubmitReply};
use quintet_contract::cause::CausedBy;
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::event::{JobLog, LogLine, LogStream};
use quintet_contract::id::{AgentId, IdempotencyKey, JobId};
use quintet_contract::job::{
    Attempt, Job, JobAttempt, JobError, JobPrivate, JobRecord, JobStatus, Refusal,
};
use quintet_contract::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The shape in MessagePack is the shape in JSON, and both are read back as what was written.
fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T) {
    let packed = encode(message, Encoding::MessagePack).unwrap();
    let text = encode(message, Encoding::Json).unwrap();
    let shape: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        decode::<Value>(&packed).unwrap(),
        (shape.clone(), Encoding::MessagePack)
    );
    assert_eq!(&decode::<T>(&packed).unwrap().0, message);
    let (read, encoding) = decode::<T>(&text).unwrap();
    assert_eq!((&read, encoding), (message, Encoding::Json));
    assert_eq!(
        serde_json::from_str::<Value>(&to_json_text(&packed).unwrap()).unwrap(),
        shape
    );
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn agent_id() -> AgentId {
    AgentId::parse("Studio 1 / links").unwrap()
}

fn job(free: &Value) -> Job {
    let mut job: Job = serde_json::from_value(json!({
        "id": "j", "status": "FAILED", "createdAt": "2026-01-01T00:00:00.001Z", "updatedAt": "2026-01-01T00:00:00Z",
        "requestedBy": "me", "inlineConfig": {"executor": "exec", "free": free}, "notBefore": "2026-01-01T00:00:00Z",
        "timeline": [{"status": "CREATED", "at": "2026-01-01T00:00:00Z"}], "priority": -3,
        "requirements": {"maxResolution": "1080p", "labels": {"zone": "eu"}, "tags": ["gpu"], "fenced": true},
    }))
    .unwrap();
    job.error = Some(JobError {
        detail: Some(json!([free])),
        ..JobError::new("LOST", "gone")
    });
    job
}

fn each_message_has_the_same_shape(free: &Value, number: u64) {
    let job_id: JobId = new_job_id();
    let attempt = Some(Attempt(u32::try_from(number % 1000).unwrap()));
    let object = json!({ "free": free, "number": number })
        .as_object()
        .cloned()
        .unwrap();
    let job = job(free);
    let mut private = JobPrivate {
        lost_at: Some(at(5)),
        holds_slot: true,
        ..JobPrivate::default()
    };
    private.refusals.insert(
        agent_id(),
        Refusal {
            count: 2,
            until: at(9),
            reason: "busy".to_owned(),
        },
    );
    same(&JobRecord {
        job: job.clone(),
        private,
        caused_by: Some(CausedBy::job(&job_id)),
        trace_id: None,
    });
    same(&SubmitReply { job, created: true });
    same(&SubmitJob {
        inline_config: Some(object.clone()),
        not_before: Some(at(1)),
        ..SubmitJob::default()
    });
    same(&ListJobs {
        status: Some(JobStatus::Unknown),
        limit: Some(7),
        ..ListJobs::default()
    });
    same(&AgentReports {
        session: new_session(),
        clock: number,
        reports: vec![
            AgentReport::Hello {
                hello: Hello {
                    name: "n".to_owned(),
                    version: "1".to_owned(),
                    capabilities: object.clone(),
                    drain: true,
                    active_jobs: vec![ActiveJob {
                        job_id: job_id.clone(),
                        attempt,
                        status: JobStatus::Running,
                    }],
                    meta: object.clone(),
                },
            },
            AgentReport::AssignAck {
                job_id: job_id.clone(),
                attempt,
                accepted: false,
                reason: None,
            },
            AgentReport::JobMetadata {
                job_id: job_id.clone(),
                attempt: None,
                metadata: object.clone(),
            },
            AgentReport::Unknown,
        ],
    });
    same(&ReportsReply {
        settings: Some(AgentSettings::default()),
        start: vec![JobAttempt {
            job_id: job_id.clone(),
            attempt: Attempt(1),
        }],
        ..ReportsReply::default()
    });
    same(&Heartbeat {
        session: new_session(),
        clock: number,
        jobs: Some(Vec::new()),
        metrics: object.clone(),
    });
    same(&HeartbeatReply::default());
    same(&Assignment {
        job_id: job_id.clone(),
        attempt: Attempt(1),
        config: object.clone(),
        idempotency_key: IdempotencyKey::parse("k").unwrap(),
        expires_at: at(-1),
        restartable: true,
        requested_by: "ü".to_owned(),
        stream_metadata: object.clone(),
    });
    same(&AgentCommand::Stop {
        job_id: job_id.clone(),
        attempt: Attempt(2),
        reason: "r".to_owned(),
        deadline_ms: number,
    });
    same(&JobLog {
        job_id,
        attempt,
        lines: vec![LogLine {
            at: at(3),
            stream: LogStream::Agent,
            line: "\u{0}\"é\n".to_owned(),
        }],
    });
    same(&ErrorReply::new(ErrorCode::CommandFailed, "no").with("detail", free.clone()));
    let agent: Agent = serde_json::from_value(json!({
        "id": "a", "name": "a", "version": "", "state": "IDLE", "lastSeenAt": "2026-01-01T00:00:00Z",
        "registeredAt": "2026-01-01T00:00:00Z", "capabilities": object,
    }))
    .unwrap();
    same(&agent);
}

fn free_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e12..1e12_f64).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_message_has_one_shape_in_both_encodings(free in free_value(), number in any::<u64>()) {
        each_message_has_the_same_shape(&free, number);
    }

    #[test]
    fn bytes_after_a_message_are_refused(number in any::<u64>(), tail in prop::collection::vec(any::<u8>(), 1..8)) {
        let heartbeat = Heartbeat { session: new_session(), clock: number, jobs: None, metrics: Default::default() };
        let mut packed = encode(&heartbeat, Encoding::MessagePack).unwrap().to_vec();
        packed.extend(&tail);
        prop_assert!(decode::<Heartbeat>(&packed).is_err());
        let mut text = encode(&heartbeat, Encoding::Json).unwrap().to_vec();
        text.extend(&tail);
        // The four bytes of RFC 8259 §2 that are white space may follow a message; no others.
        prop_assert_eq!(decode::<Heartbeat>(&text).is_err(), !tail.iter().all(|byte| b" \t\n\r".contains(byte)));
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 1..64)) {
        prop_assert!(decode::<AgentReports>(&bytes).is_err());
        let _ = decode::<Value>(&bytes);
        let _ = to_json_text(&bytes);
    }
}

#[test]
fn nesting_without_end_is_refused() {
    for opening in [0x91_u8, 0x81, b'['] {
        assert!(decode::<Value>(&vec![opening; 100_000]).is_err());
    }
}

#[test]
fn an_error_names_the_field() {
    let error = decode::<AgentReports>(
        br#"{"session":"0197d4f4-0000-7000-8000-000000000000","clock":"x","reports":[]}"#,
    );
    let Err(CodecError::Malformed { path, .. }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(path, "clock");
    let reply = error.unwrap_err().to_reply();
    assert_eq!(
        (reply.code, reply.details["field"].as_str()),
        (ErrorCode::BadRequest, Some("clock"))
    );
}

#[test]
fn an_empty_body_is_a_request_without_fields() {
    assert_eq!(
        decode::<ListJobs>(b"").unwrap(),
        (ListJobs::default(), Encoding::Json)
    );
    assert!(decode::<SubmitReply>(b"").is_err());
}
