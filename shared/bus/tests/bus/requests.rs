//! Requests and answers: both encodings, every way to fail, and the micro services that tools see.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use quintet_bus::pending::{PendingReplies, accept};
use quintet_bus::{RequestError, Requests, now};
use quintet_contract::api::{ListTemplates, TemplateList, TemplateRef, TemplateReply};
use quintet_contract::error::{ErrorCode, ErrorReply, Retry};
use quintet_contract::subject::{GetTemplate, ListStoredTemplates, Subject};
use serde_json::{Value, json};

use crate::nats::{Nats, SOON, soon, template, template_id};

fn template_ref(name: &str) -> TemplateRef {
    TemplateRef {
        id: template_id(name),
    }
}

/// Answers "missing" with NOT_FOUND and everything else with the template asked for.
async fn serve(mut requests: Requests<GetTemplate>) {
    while let Some(incoming) = requests.next().await {
        match incoming.message.id.as_str() {
            "missing" => incoming.responder.err(&ErrorReply::not_found()).await,
            "forgotten" => drop(incoming.responder),
            name => {
                incoming
                    .responder
                    .ok(&TemplateReply {
                        template: template(name),
                        created: false,
                    })
                    .await
            }
        }
    }
}

#[tokio::test]
async fn a_request_is_answered_in_its_own_encoding() {
    let nats = Nats::start().await;
    let (bus, raw) = (nats.connect().await, nats.raw().await);
    let subject = GetTemplate {}.render(bus.prefix());
    tokio::spawn(serve(bus.serve(subject.clone(), Some("q")).await.unwrap()));
    bus.flush().await.unwrap();

    let reply = bus
        .request(&GetTemplate {}, &template_ref("a"), SOON)
        .await
        .unwrap();
    assert_eq!(reply.template, template("a"));

    let reply = raw
        .request(subject.clone(), Bytes::from_static(br#" {"id": "b"}"#))
        .await
        .unwrap();
    let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(reply["template"]["id"], json!("b"));
}

#[tokio::test]
async fn a_failed_request_is_answered_with_the_reason() {
    let nats = Nats::start().await;
    let (bus, raw) = (nats.connect().await, nats.raw().await);
    let subject = GetTemplate {}.render(bus.prefix());
    tokio::spawn(serve(bus.serve(subject.clone(), None).await.unwrap()));
    bus.flush().await.unwrap();

    let refused = bus
        .request(&GetTemplate {}, &template_ref("missing"), SOON)
        .await
        .unwrap_err();
    assert_eq!(refused.to_reply(), ErrorReply::not_found());
    let forgotten = bus
        .request(&GetTemplate {}, &template_ref("forgotten"), SOON)
        .await
        .unwrap_err();
    assert_eq!(forgotten.to_reply().code, ErrorCode::Internal);

    for (body, field) in [
        (&b"\xc1"[..], Value::Null),
        (br#"{"id": 7}"#, json!("id")),
        (b"", Value::Null),
    ] {
        let reply = raw
            .request(subject.clone(), Bytes::from_static(body))
            .await
            .unwrap();
        let headers = reply.headers.unwrap();
        assert_eq!(
            headers.get("Quintet-Error").unwrap().as_str(),
            "BAD_REQUEST"
        );
        assert_eq!(
            headers.get("Nats-Service-Error-Code").unwrap().as_str(),
            "400"
        );
        let (reply, _) = quintet_bus::decode::<Value>(&reply.payload).unwrap();
        assert_eq!(
            (&reply["code"], &reply["retry"]),
            (&json!("BAD_REQUEST"), &json!("never"))
        );
        assert_eq!(reply["details"]["field"], field);
    }
}

#[tokio::test]
async fn no_responders_fails_at_once_and_silence_fails_at_the_deadline() {
    let nats = Nats::start().await;
    let bus = nats.connect().await;
    let began = Instant::now();
    let error = bus
        .request(&GetTemplate {}, &template_ref("a"), SOON)
        .await
        .unwrap_err();
    assert!(
        matches!(error, RequestError::NoResponders { .. }),
        "{error}"
    );
    assert_eq!(
        (error.to_reply().code, error.to_reply().retry),
        (ErrorCode::Unavailable, Retry::Later)
    );
    assert!(began.elapsed() < SOON / 2);

    let mut requests = bus
        .serve::<GetTemplate>(GetTemplate {}.render(bus.prefix()), None)
        .await
        .unwrap();
    bus.flush().await.unwrap();
    let deadline = Duration::from_millis(100);
    let before = now();
    let error = bus
        .request(&GetTemplate {}, &template_ref("a"), deadline)
        .await
        .unwrap_err();
    let after = now();
    assert!(matches!(error, RequestError::Timeout { .. }), "{error}");
    assert_eq!(error.to_reply().code, ErrorCode::Timeout);
    let incoming = soon("the request", requests.next()).await.unwrap();
    let until = incoming.responder.deadline().unwrap();
    assert!(
        incoming
            .responder
            .is_late(until.after(Duration::from_millis(1)))
            && !incoming.responder.is_late(until)
    );
    assert!(before.after(deadline) <= until && until <= after.after(deadline));
    assert!(incoming.meta.message_id.is_some());
    incoming.responder.err(&ErrorReply::not_found()).await;
}

#[tokio::test]
async fn asking_until_the_deadline_finds_a_service_that_comes_late() {
    let nats = Nats::start().await;
    let bus = nats.connect().await;
    let asking = tokio::spawn({
        let bus = bus.clone();
        async move {
            bus.request_until(&GetTemplate {}, &template_ref("a"), SOON)
                .await
        }
    });
    let error = bus
        .request_until(
            &GetTemplate {},
            &template_ref("a"),
            Duration::from_millis(120),
        )
        .await
        .unwrap_err();
    // On a busy machine the server's report of no responders may come later than that.
    assert!(
        matches!(
            error,
            RequestError::NoResponders { .. } | RequestError::Timeout { .. }
        ),
        "{error}"
    );
    tokio::spawn(serve(
        bus.serve(GetTemplate {}.render(bus.prefix()), None)
            .await
            .unwrap(),
    ));
    assert_eq!(
        soon("an answer", asking).await.unwrap().unwrap().template,
        template("a")
    );
}

#[tokio::test]
async fn a_micro_service_is_seen_by_tools_counts_errors_and_leaves() {
    let nats = Nats::start().await;
    let (bus, raw) = (nats.connect().await, nats.raw().await);
    let micro = bus.micro("templates", "stored templates").await.unwrap();
    tokio::spawn(serve(micro.endpoint("get", &GetTemplate {}).await.unwrap()));
    let mut lists = micro
        .endpoint("list", &ListStoredTemplates {})
        .await
        .unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = lists.next().await {
            incoming
                .responder
                .ok(&TemplateList {
                    templates: Vec::new(),
                })
                .await;
        }
    });
    bus.flush().await.unwrap();

    bus.request(&ListStoredTemplates {}, &ListTemplates {}, SOON)
        .await
        .unwrap();
    bus.request(&GetTemplate {}, &template_ref("missing"), SOON)
        .await
        .unwrap_err();
    let info = raw
        .request("$SRV.INFO.templates", Bytes::new())
        .await
        .unwrap();
    let info: Value = serde_json::from_slice(&info.payload).unwrap();
    let mut subjects: Vec<_> = info["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["subject"])
        .collect();
    subjects.sort_by_key(|subject| subject.to_string());
    assert_eq!(
        subjects,
        [
            &json!("quintet.svc.templates.get"),
            &json!("quintet.svc.templates.list")
        ]
    );
    let stats = raw
        .request("$SRV.STATS.templates", Bytes::new())
        .await
        .unwrap();
    let stats: Value = serde_json::from_slice(&stats.payload).unwrap();
    let get = stats["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "get")
        .unwrap();
    assert_eq!(
        (&get["num_requests"], &get["num_errors"]),
        (&json!(1), &json!(1))
    );

    micro.stop().await;
    soon("the end of the service", async {
        loop {
            match bus.request(&GetTemplate {}, &template_ref("a"), SOON).await {
                Ok(_) => {}
                Err(RequestError::NoResponders { .. }) => break,
                Err(error) => panic!("a request was lost: {error}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_pending_reply_that_is_dropped_at_a_hand_over_answers_that_the_request_may_be_sent_again()
{
    let nats = Nats::start().await;
    let bus = nats.connect().await;
    let subject = GetTemplate {}.render(bus.prefix());
    let mut requests = bus.serve::<GetTemplate>(subject, None).await.unwrap();
    bus.flush().await.unwrap();
    let mut pending = PendingReplies::default();
    let owner = async {
        let mut enter = async || {
            let incoming = requests.next().await.unwrap();
            let request = accept(incoming, "test", "get", |id, _| id).unwrap();
            pending.enter(request)
        };
        let (dropped, _left) = (enter().await, enter().await);
        // One reply is made outside the loop, which ends; the others are still with the owner.
        drop(pending.take(dropped).unwrap());
        assert!(pending.take(dropped).is_none());
        drop(pending);
    };
    let (first, second) = (template_ref("a"), template_ref("b"));
    let (_, first, second) = tokio::join!(
        owner,
        bus.request(&GetTemplate {}, &first, SOON),
        bus.request(&GetTemplate {}, &second, SOON),
    );
    for outcome in [first, second] {
        let reply = outcome.unwrap_err().to_reply();
        assert_eq!(
            (reply.code, reply.retry),
            (ErrorCode::Unavailable, Retry::Later)
        );
    }
}
