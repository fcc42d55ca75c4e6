//! The sockets of frames: a worker's own, and the one for watchers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quintet::system::{Part, System};
use quintet_contract::id::HolderId;
use quintet_edge::EdgeConfig;
use quintet_frames::FramesConfig;
use quintet_testkit::{Nats, wait_for};
use quintet_tests::{Api, Frame, Socket, TIMEOUT, part};
use serde_json::{Value, json};

use crate::frames_http::{frame, send, stack, until_stats};

/// A worker that received hello and its settings.
async fn join(api: &Api, id: &str, settings: &Value) -> Socket {
    let path = format!("/workers/{id}/ws");
    let mut socket = Socket::connect(api, &path).await.unwrap();
    let hello = json!({"type": "hello", "fps": 30, "canvas": {"width": 28, "height": 14}});
    assert_eq!(socket.next().await, Frame::Json(hello));
    let config = json!({"type": "config", "data": settings});
    assert_eq!(socket.next().await, Frame::Json(config));
    socket
}

/// An edge of its own; impatient, since a test need not wait long for a service that is not there.
async fn edge(nats: &Nats) -> (System, Api) {
    let system = part(nats, |config| {
        let mut edge = EdgeConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        edge.request_timeout = Duration::from_secs(1);
        config.parts.push(Part::Edge(edge));
    })
    .await;
    // It need not be ready: alone it never is.
    let api = Api::new(system.address().unwrap());
    (system, api)
}

/// Receives messages until one is as it should be, and returns it.
async fn receive_until(socket: &mut Socket, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + TIMEOUT;
    loop {
        let stats = socket.envelope_of("stats").await;
        if is_it(&stats) {
            return stats;
        }
        assert!(Instant::now() < until, "never {what}: {stats}");
    }
}

#[tokio::test]
async fn a_worker_on_a_socket_is_greeted_ticked_and_shown() {
    let stack = stack(|_| {}).await;
    let api = &stack.api;
    let path = "/workers/painter/config";
    api.post(path, json!({"speed": 1})).await.expect(204);
    let mut painter = join(api, "painter", &json!({"speed": 1})).await;
    painter
        .send_text(r#"{"type":"hello","caps":{"version":1}}"#)
        .await;
    painter.send_text("not even JSON").await;
    let stats = until_stats(api, "the painter", |stats| {
        stats["running"] == json!(["painter"])
    });
    assert_eq!(stats.await["sources"], json!([]), "it has sent no frame");
    let known = api.get("/sources").await.body["known"].clone();
    assert!(
        known.as_array().unwrap().contains(&json!("painter")),
        "{known}"
    );

    // Settings arrive at once, all of them.
    api.post(path, json!({"colour": "lit"})).await.expect(204);
    let config = painter.envelope_of("config").await;
    assert_eq!(config["data"], json!({"speed": 1, "colour": "lit"}));

    // Ticks come while it is active, and its frames are shown.
    api.post("/active", json!({"id": "painter"}))
        .await
        .expect(204);
    let mut last = -1.0;
    for number in 0..10_u16 {
        let tick = painter.envelope_of("tick").await;
        let t = tick["t"].as_f64().unwrap();
        assert!(t > last, "{t} after {last}");
        last = t;
        painter.send_bytes(&frame(&[(number, 0)])).await;
    }
    let stats = until_stats(api, "frames", |stats| {
        stats["counts"]["forwarded"].as_u64() >= Some(5)
    });
    assert_eq!(stats.await["sources"], json!(["painter"]));
    painter.send_bytes(b"RBx").await;
    let error = |stats: &Value| stats["errors"]["painter"] == "short rbm header";
    until_stats(api, "an error", error).await;
    // The same worker may also post.
    send(api, "/workers/painter/frame", &frame(&[(3, 3)]))
        .await
        .expect(204);
    until_stats(api, "no error", |stats| stats["errors"] == json!({})).await;

    // One that is gone without a word runs no longer.
    drop(painter);
    until_stats(api, "no worker runs", |stats| stats["running"] == json!([])).await;
}

#[tokio::test]
async fn the_newest_socket_of_a_worker_wins_on_every_edge() {
    let stack = stack(|_| {}).await;
    let api = &stack.api;
    let mut first = join(api, "painter", &json!({})).await;
    let mut second = join(api, "painter", &json!({})).await;
    let replaced = (4000, "replaced by a newer socket".to_owned());
    assert_eq!(first.closed().await, replaced);
    let (_other, elsewhere) = edge(&stack.nats).await;
    let mut third = join(&elsewhere, "painter", &json!({})).await;
    assert_eq!(second.closed().await, replaced);
    // Those that were replaced have not taken the worker with them.
    api.post("/active", json!({"id": "painter"}))
        .await
        .expect(204);
    third.envelope_of("tick").await;
    third.send_bytes(&frame(&[(1, 2)])).await;
    until_stats(api, "its frame", |stats| stats["counts"]["forwarded"] == 1).await;
    assert_eq!(api.get("/stats").await.body["running"], json!(["painter"]));
}

#[tokio::test]
async fn a_watcher_receives_stats_every_second_and_on_every_change() {
    let stack = stack(|_| {}).await;
    let api = &stack.api;
    let mut watcher = Socket::connect(api, "/ws").await.unwrap();
    let hello = json!({"type": "hello", "fps": 30, "active": null});
    assert_eq!(watcher.next().await, Frame::Json(hello));
    let stats = watcher.envelope_of("stats").await;
    let expected = json!({
        "type": "stats", "active": null, "counts": {"received": 0, "forwarded": 0, "dropped": 0}, "fps": 30,
        "running": [], "sources": [], "errors": {}, "degraded": false, "wsConnections": 1,
    });
    assert_eq!(stats, expected);
    // Nothing changes, but it is sent again.
    let began = Instant::now();
    for _ in 0..2 {
        assert_eq!(watcher.envelope_of("stats").await, expected);
    }
    assert!(
        began.elapsed() > Duration::from_millis(500),
        "not that often"
    );
    let mut other = Socket::connect(api, "/ws").await.unwrap();
    assert!(matches!(other.next().await, Frame::Json(hello) if hello["type"] == "hello"));
    for nonsense in ["", "null", r#"{"type":"what"}"#, r#"{"type":"stats"}"#] {
        other.send_text(nonsense).await;
    }
    assert_eq!(other.envelope_of("stats").await["wsConnections"], 2);
    drop(other);
    receive_until(&mut watcher, "alone again", |stats| {
        stats["wsConnections"] == 1
    })
    .await;

    // Eight changes, one after the other: without an update for each this would take as many seconds.
    let began = Instant::now();
    let fps = async |fps: f64| api.post("/fps", json!({"fps": fps})).await.expect(204);
    for rate in [12.0, 13.0, 14.5] {
        fps(rate).await;
        receive_until(&mut watcher, "the rate", |stats| {
            stats["fps"].as_f64() == Some(rate)
        })
        .await;
    }
    let painter = join_at(api, "painter").await;
    let running = |stats: &Value| stats["running"] == json!(["painter"]);
    receive_until(&mut watcher, "the worker", running).await;
    api.post("/active", json!({"id": "painter"}))
        .await
        .expect(204);
    receive_until(&mut watcher, "the active one", |stats| {
        stats["active"] == "painter"
    })
    .await;
    let mut broken = frame(&[]);
    broken[0] = b'x';
    send(api, "/workers/painter/frame", &broken)
        .await
        .expect(400);
    let wrong = |stats: &Value| stats["errors"] == json!({"painter": "bad magic"});
    receive_until(&mut watcher, "the error", wrong).await;
    drop(painter);
    receive_until(&mut watcher, "its end", |stats| {
        stats["running"] == json!([])
    })
    .await;
    api.post("/active", json!({"id": null})).await.expect(204);
    receive_until(&mut watcher, "no active worker", |stats| {
        stats["active"] == json!(null)
    })
    .await;
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
}

/// A worker on a socket, whatever it receives.
async fn join_at(api: &Api, id: &str) -> Socket {
    let mut socket = Socket::connect(api, &format!("/workers/{id}/ws"))
        .await
        .unwrap();
    socket.envelope_of("hello").await;
    socket
}

#[tokio::test]
async fn a_leaving_edge_sends_its_sockets_elsewhere() {
    let stack = stack(|_| {}).await;
    let mut painter = join_at(&stack.api, "painter").await;
    let mut watcher = Socket::connect(&stack.api, "/ws").await.unwrap();
    assert!(matches!(watcher.next().await, Frame::Json(_)));
    let ended = tokio::spawn(stack.stop());
    let leaving = (1012, "this server is leaving".to_owned());
    assert_eq!(painter.closed().await, leaving);
    assert_eq!(watcher.closed().await, leaving);
    ended.await.unwrap();
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_socket() {
    let stack = stack(|edge| edge.body_limit = 4096).await;
    let mut painter = join(&stack.api, "painter", &json!({})).await;
    painter.send_bytes(&[0; 4097]).await;
    let (code, reason) = painter.closed().await;
    assert_eq!(code, 1009, "{reason}");
    until_stats(&stack.api, "no worker runs", |stats| {
        stats["running"] == json!([])
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_others_nothing() {
    let stack = stack(|_| {}).await;
    let api = &stack.api;
    // Neither reads a word.
    let _deaf = Socket::connect(api, "/ws").await.unwrap();
    let mut painter = join_at(api, "painter").await;
    api.post("/active", json!({"id": "painter"}))
        .await
        .expect(204);
    for round in 0..50_u16 {
        let path = "/workers/painter/config";
        let settings = json!({"round": round, "ballast": "x".repeat(100_000)});
        api.post(path, settings).await.expect(204);
        painter
            .send_bytes(&frame(&[(round % 28, round % 14)]))
            .await;
    }
    let newest = wait_for("the newest settings", TIMEOUT, async || {
        // The others may be read or not; this one is the last.
        let config = painter.envelope_of("config").await;
        let round = config["data"]["round"].clone();
        if round == 49 {
            Ok(())
        } else {
            Err(round.to_string())
        }
    });
    newest.await.unwrap();
    painter.envelope_of("tick").await;
    until_stats(api, "all frames", |stats| stats["counts"]["received"] == 50).await;
}

#[tokio::test]
async fn without_a_leader_frames_are_refused_and_a_worker_waits_for_its_hello() {
    let nats = Nats::start().await.unwrap();
    let (_edge, api) = edge(&nats).await;
    for path in ["/workers/painter/frame", "/ingest/rbm"] {
        let refused = send(&api, path, &frame(&[])).await.expect(503);
        assert_eq!(refused.body["code"], "UNAVAILABLE");
        assert!(refused.header("retry-after").is_some());
    }
    api.get("/stats").await.expect(503);
    let mut watcher = Socket::connect(&api, "/ws").await.unwrap();
    let later = (1013, "try again later".to_owned());
    assert_eq!(watcher.closed().await, later);
    let mut painter = Socket::connect(&api, "/workers/painter/ws").await.unwrap();
    // No worker is there for it.
    painter.send_bytes(&frame(&[(0, 0)])).await;
    let _frames = part(&nats, |config| {
        let holder = HolderId::parse("late").unwrap();
        config.parts.push(Part::Frames(FramesConfig::new(holder)));
    })
    .await;
    assert!(matches!(painter.next().await, Frame::Json(hello) if hello["type"] == "hello"));
    assert!(matches!(painter.next().await, Frame::Json(config) if config["type"] == "config"));
    api.post("/active", json!({"id": "painter"}))
        .await
        .expect(204);
    painter.envelope_of("tick").await;
}
