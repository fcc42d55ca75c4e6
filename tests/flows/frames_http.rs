//! Frames over HTTP: every route with its answers and its refusals.

use std::io::Cursor;

use quintet_contract::frame::{Bitmap, Canvas};
use quintet_edge::{ApiKey, Role};
use quintet_testkit::wait_for;
use quintet_tests::{Answer, Api, Plan, Socket, Stack, TIMEOUT};
use reqwest::Method;
use serde_json::{Value, json};

const CANVAS: Canvas = Canvas {
    width: 28,
    height: 14,
};
/// The longest time that a frame can ask to be shown for, in milliseconds.
const FOR_LONG: u16 = u16::MAX;

/// A system with nothing but frames and an edge, changed by the test.
pub(crate) async fn stack(edge: fn(&mut quintet_edge::EdgeConfig)) -> Stack {
    Stack::with(Plan {
        agents: 0,
        run_workers: 0,
        effects: 0,
        edge,
        ..Plan::default()
    })
    .await
}

/// A frame with these pixels lit.
pub(crate) fn frame(lit: &[(u16, u16)]) -> Vec<u8> {
    image(lit).to_rbm(7, 0)
}

fn image(lit: &[(u16, u16)]) -> Bitmap {
    let mut bitmap = Bitmap::dark(CANVAS);
    for (x, y) in lit {
        bitmap.set(*x, *y, true);
    }
    bitmap
}

/// Sends bytes without a content type.
pub(crate) async fn send(api: &Api, path: &str, bytes: &[u8]) -> Answer {
    let request = api.request(Method::POST, path).body(bytes.to_vec());
    api.send(request).await
}

/// What an image shows: its sides, and a level for each pixel.
pub(crate) async fn pixels(api: &Api, path: &str) -> (u32, u32, Vec<u8>) {
    let response = api.request(Method::GET, path).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200, "{path}");
    assert_eq!(response.headers()["content-type"], "image/png");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    let file = response.bytes().await.unwrap();
    let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(info.color_type, png::ColorType::Grayscale);
    assert_eq!(info.bit_depth, png::BitDepth::Eight);
    (info.width, info.height, pixels)
}

/// Waits until the display shows these pixels.
async fn until_shown(api: &Api, lit: &[(u16, u16)]) {
    let expected = image(lit);
    let shown = wait_for("the image on the display", TIMEOUT, async || {
        let (_, _, pixels) = pixels(api, "/frame.png?scale=1").await;
        let is_lit = |place: usize| expected.is_lit(place as u16 % 28, place as u16 / 28);
        let wrong = (0..pixels.len()).find(|place| (pixels[*place] == 0) != is_lit(*place));
        wrong.map_or(Ok(()), |place| Err(format!("pixel {place} is wrong")))
    });
    shown.await.unwrap();
}

/// Waits until the stats are as they should be, and returns them.
pub(crate) async fn until_stats(api: &Api, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let stats = wait_for(what, TIMEOUT, async || {
        let stats = api.get("/stats").await.expect(200).body;
        if is_it(&stats) {
            Ok(stats)
        } else {
            Err(stats.to_string())
        }
    });
    stats.await.unwrap()
}

#[tokio::test]
async fn before_the_first_frame_all_is_dark_and_as_configured() {
    let stack = stack(|_| {}).await;
    let api = &stack.api;
    api.get("/healthz").await.expect(200);
    let panel = |id: &str, address: u8, y: u16| json!({"id": id, "address": address, "origin": {"x": 0, "y": y}, "size": {"w": 28, "h": 7}, "orientation": "normal"});
    let config = api.get("/config").await.expect(200).body;
    let serial = &config["serial"];
    assert_eq!(serial["device"], json!(null));
    assert_eq!(serial["baud"], 115_200);
    for field in ["parity", "data_bits", "stop_bits"] {
        assert!(!serial[field].is_null(), "{field}");
    }
    let expected = json!({
        "version": 1, "canvas": {"width": 28, "height": 14}, "panel_size": {"w": 28, "h": 7},
        "panels": [panel("top", 1, 0), panel("bottom", 2, 7)], "serial": serial, "fps": 30,
    });
    assert_eq!(config, expected);
    let body = async |path: &str| api.get(path).await.expect(200).body;
    assert_eq!(
        body("/active").await,
        json!({"active": null, "running": []})
    );
    assert_eq!(body("/fps").await, json!({"fps": 30, "manual": false}));
    let stats = json!({
        "active": null, "counts": {"received": 0, "forwarded": 0, "dropped": 0}, "sources": [], "fps": 30,
        "running": [], "errors": {}, "degraded": false,
    });
    assert_eq!(body("/stats").await, stats);
    let sources = body("/sources").await;
    assert_eq!(
        (&sources["sources"], &sources["running"]),
        (&json!([]), &json!([]))
    );
    assert!(sources["known"].is_array());
    let display = body("/v1/display").await;
    assert_eq!(
        (&display["bufferSize"], &display["bufferCapacity"]),
        (&json!(0), &json!(30))
    );
    assert_eq!(body("/workers/unknown/config").await, json!({}));
    for (path, sides) in [
        ("/frame.png", (280, 140)),
        ("/frame.png?scale=", (280, 140)),
        ("/frame.png?scale=1", (28, 14)),
        ("/frame.png?scale=0", (28, 14)),
        ("/frame.png?scale=-99999999999999999999", (28, 14)),
        ("/frame.png?scale=64", (1792, 896)),
        ("/frame.png?scale=99999999999999999999", (1792, 896)),
        ("/debug/panel.png?id=bottom&scale=2", (56, 14)),
    ] {
        let (width, height, pixels) = pixels(api, path).await;
        assert_eq!((width, height), sides, "{path}");
        assert!(pixels.iter().all(|level| *level == 255), "{path}");
    }
    let head = api
        .send(api.request(Method::HEAD, "/frame.png"))
        .await
        .expect(200);
    assert_eq!(head.header("content-type"), Some("image/png"));
    assert!(head.header("etag").is_some() && head.text.is_empty());
}

#[tokio::test]
async fn whatever_is_wrong_is_refused_in_the_words_of_the_contract() {
    let stack = stack(|edge| edge.body_limit = 4096).await;
    let api = &stack.api;
    let good = frame(&[(0, 0)]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let text = |text: &str| text.as_bytes().to_vec();
    let long = format!("/workers/{}/start", "x".repeat(129));
    let long_id = format!(r#"{{"id":"{}"}}"#, "x".repeat(129));
    let not_a_string = "id must be a non-empty string";
    let unknown = "unknown worker id";
    let no_object = "the body must be a JSON object";
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("/active", text(r#"{"id":"unknown"}"#), 400, unknown),
        ("/active", text(&long_id), 400, unknown),
        ("/active", text(r#"{"id":""}"#), 400, not_a_string),
        ("/active", text(r#"{"id":7}"#), 400, not_a_string),
        ("/active", text(r#"{"id":{}}"#), 400, not_a_string),
        ("/active", text("[]"), 400, no_object),
        ("/active", text("{"), 400, "the body is not JSON"),
        ("/active", Vec::new(), 400, "the body is not JSON"),
        ("/workers/unknown/start", Vec::new(), 400, unknown),
        ("/workers/unknown/stop", Vec::new(), 400, unknown),
        ("/workers//start", Vec::new(), 400, unknown),
        ("/workers//frame", good.clone(), 400, unknown),
        ("/workers/a%07b/config", text("{}"), 400, unknown),
        (&long, Vec::new(), 400, unknown),
        ("/workers/a/config", text("7"), 400, no_object),
        ("/workers/a/config", text("null"), 400, no_object),
        ("/fps", text(r#"{"fps":"30"}"#), 400, "fps must be a number"),
        ("/fps", text("{}"), 400, "fps must be a number"),
        ("/fps", text(r#"{"fps":null}"#), 400, "fps must be a number"),
        ("/fps", text(r#"{"fps":0.9999}"#), 400, "fps must be >= 1"),
        ("/fps", text(r#"{"fps":-1e300}"#), 400, "fps must be >= 1"),
        ("/fps", text(r#"{"fps":31}"#), 400, "fps exceeds max 30"),
        ("/fps", text(r#"{"fps":1e300}"#), 400, "fps exceeds max 30"),
        ("/fps", text("[30]"), 400, no_object),
        (
            "/workers/a/frame",
            good[..15].to_vec(),
            400,
            "short rbm header",
        ),
        ("/workers/a/frame", with(0, b'x'), 400, "bad magic"),
        ("/workers/a/frame", with(2, 2), 400, "unsupported version"),
        (
            "/workers/a/frame",
            with(5, 29),
            400,
            "size mismatch: got 29x14 want 28x14",
        ),
        (
            "/workers/a/frame",
            good[..71].to_vec(),
            400,
            "short payload",
        ),
        (
            "/workers/a/frame",
            vec![0; 4097],
            413,
            "the body is larger than 4096 bytes",
        ),
        ("/ingest/rbm", Vec::new(), 400, "short rbm header"),
        ("/ingest/rbm", with(1, b'x'), 400, "bad magic"),
        ("/ingest/rbm", good[..71].to_vec(), 400, "short payload"),
        (
            "/ingest/rbm",
            vec![0; 4097],
            413,
            "the body is larger than 4096 bytes",
        ),
    ];
    for (path, body, status, error) in cases {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let answer = send(api, path, &body).await;
        assert_eq!(answer.status, status, "{path} {shown}: {}", answer.text);
        let message = answer.body["error"].as_str().unwrap();
        assert!(message.starts_with(error), "{path} {shown}: {message}");
    }
    let integer = "scale must be an integer";
    for (path, status, error) in [
        ("/frame.png?scale=ten", 400, integer),
        ("/frame.png?scale=1.5", 400, integer),
        ("/debug/panel.png?id=top&scale=x", 400, integer),
        ("/debug/panel.png?id=unknown", 404, ""),
        ("/debug/panel.png", 404, ""),
        ("/workers/a/ws", 400, ""),
        ("/workers//ws", 400, unknown),
        ("/ws", 400, ""),
        ("/workers", 404, ""),
    ] {
        let answer = api.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        let message = answer.body["error"].as_str().unwrap();
        assert!(message.starts_with(error), "{path}: {message}");
    }
    let stats = api.get("/stats").await.expect(200).body;
    assert_eq!(stats["active"], json!(null));
    assert_eq!(stats["sources"], json!([]), "none of these was a frame");
    assert_eq!(stats["errors"]["a"], "short payload");
    assert_eq!(
        api.get("/fps").await.body,
        json!({"fps": 30, "manual": false})
    );
}

#[tokio::test]
async fn an_unknown_program_joins_by_its_first_frame() {
    let stack = stack(|_| {}).await;
    let api = &stack.api;
    let (first, second) = ([(0, 0), (27, 13)], [(5, 6)]);
    // Not the active one: taken, but not shown.
    send(api, "/workers/drawing program/frame", &frame(&first))
        .await
        .expect(204);
    let counts = |stats: &Value| stats["counts"].clone();
    let stats = until_stats(api, "one frame", |stats| stats["counts"]["received"] == 1).await;
    assert_eq!(
        counts(&stats),
        json!({"received": 1, "forwarded": 0, "dropped": 1})
    );
    assert_eq!(stats["sources"], json!(["drawing program"]));
    let activate = json!({"id": "drawing program"});
    api.post("/active", activate.clone()).await.expect(204);
    let active = api.get("/active").await.body;
    assert_eq!(
        active,
        json!({"active": "drawing program", "running": ["drawing program"]})
    );

    // The same again is dropped, whatever its header holds; what came behind it is cut.
    let again = image(&first).to_rbm(8, 500);
    for bytes in [frame(&first), [again.clone(), vec![1, 2, 3]].concat()] {
        send(api, "/workers/drawing%20program/frame", &bytes)
            .await
            .expect(204);
    }
    until_shown(api, &first).await;
    let stats = api.get("/stats").await.body;
    assert_eq!(
        counts(&stats),
        json!({"received": 3, "forwarded": 1, "dropped": 2})
    );
    let (width, _, top) = pixels(api, "/debug/panel.png?id=top&scale=3").await;
    let lit = |x: u32, y: u32| top[(y * width + x) as usize] == 0;
    assert!(lit(0, 0) && lit(2, 2) && !lit(3, 0) && !lit(0, 3));

    // An image that a client has is not sent again.
    let tag = |answer: &Answer| answer.header("etag").unwrap().to_owned();
    let before = api.get("/frame.png?scale=3").await.expect(200);
    let known = |tag: &str, path: &str| {
        let request = api.request(Method::GET, path);
        api.send(request.header("if-none-match", tag.to_owned()))
    };
    let same = known(&tag(&before), "/frame.png?scale=3").await.expect(304);
    assert_eq!((tag(&same), same.text.len()), (tag(&before), 0));
    let weak = format!("\"other\", W/{}", tag(&before));
    known(&weak, "/frame.png?scale=3").await.expect(304);
    known("*", "/frame.png?scale=3").await.expect(304);
    known(&tag(&before), "/frame.png?scale=4").await.expect(200);
    send(api, "/workers/drawing program/frame", &frame(&second))
        .await
        .expect(204);
    until_shown(api, &second).await;
    let after = known(&tag(&before), "/frame.png?scale=3").await.expect(200);
    assert_ne!(tag(&after), tag(&before));

    // Active once more, the same image counts again; then the frames of no worker are shown.
    send(api, "/active", b"{}").await.expect(204);
    assert_eq!(api.get("/active").await.body["active"], json!(null));
    api.post("/active", activate).await.expect(204);
    let forwarded = api.get("/stats").await.body["counts"]["forwarded"]
        .as_u64()
        .unwrap();
    send(api, "/workers/drawing program/frame", &frame(&second))
        .await
        .expect(204);
    until_stats(api, "a frame after the switch", |stats| {
        stats["counts"]["forwarded"].as_u64() == Some(forwarded + 1)
    })
    .await;
    api.post("/active", json!({"id": null})).await.expect(204);
    assert_eq!(api.get("/active").await.body["active"], json!(null));
    api.post("/active", json!({"id": "unknown"}))
        .await
        .expect(400);
}

#[tokio::test]
async fn rate_and_settings_are_what_was_set_last() {
    let stack = stack(|_| {}).await;
    let api = &stack.api;
    // As a shell sends it, with the type of a form.
    let form = api
        .request(Method::POST, "/fps")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(r#"{"fps": 12.5}"#);
    api.send(form).await.expect(204);
    assert_eq!(
        api.get("/fps").await.body,
        json!({"fps": 12.5, "manual": true})
    );
    assert_eq!(api.get("/stats").await.body["fps"], 12.5);
    let display = api.get("/v1/display").await.body;
    assert_eq!(
        (&display["fpsConfigured"], &display["fpsEffective"]),
        (&json!(30), &json!(12.5))
    );
    api.delete("/fps").await.expect(204);
    assert_eq!(
        api.get("/fps").await.body,
        json!({"fps": 30, "manual": false})
    );

    let path = "/workers/not seen yet/config";
    send(api, path, br#"{"text": "one", "pps": 3, "deep": {"a": 1}}"#)
        .await
        .expect(204);
    api.post(path, json!({"text": "two", "deep": {"b": 2}}))
        .await
        .expect(204);
    let merged = json!({"text": "two", "pps": 3, "deep": {"b": 2}});
    assert_eq!(api.get(path).await.expect(200).body, merged);
    assert_eq!(api.get("/workers/other/config").await.body, json!({}));
}

#[tokio::test]
async fn a_full_display_sends_retry_after_and_stores_nothing() {
    let stack = stack(|_| {}).await;
    let api = &stack.api;
    let frame = |seq: u32| image(&[(1, 1)]).to_rbm(seq, FOR_LONG);
    // The first is shown, for long; the others fill the ring. Their numbers wrap around meanwhile.
    let mut taken = 0_u32;
    let full = loop {
        let seq = (u32::MAX - 3).wrapping_add(taken);
        let answer = send(api, "/ingest/rbm", &frame(seq)).await;
        if answer.status != 204 {
            break answer.expect(429);
        }
        assert_eq!(answer.header("x-buffer-cap"), Some("30"));
        assert_eq!(answer.header("x-seq-ack").unwrap(), seq.to_string());
        let size: u32 = answer.header("x-buffer-size").unwrap().parse().unwrap();
        assert!((taken..=taken + 1).contains(&size), "{size} after {taken}");
        taken += 1;
        assert!(taken < 40, "it never fills");
    };
    assert_eq!(taken, 31);
    assert_eq!(full.body["code"], "RATE_LIMITED");
    let number = |name: &str| full.header(name).unwrap().parse::<u64>().unwrap();
    let (seconds, ms) = (number("retry-after"), number("x-retry-after-ms"));
    assert!(
        seconds >= 1 && seconds == ms.div_ceil(1000),
        "{seconds} s, {ms} ms"
    );
    assert_eq!(full.headers.get_all("retry-after").iter().count(), 1);
    let display = api.get("/v1/display").await.body;
    assert_eq!(display["bufferSize"], display["bufferCapacity"]);
}

#[tokio::test]
async fn a_viewer_can_set_nothing_and_send_no_frames() {
    let stack = stack(|edge| {
        edge.api_keys = vec![
            ApiKey::new("oz", Role::Operator, "work"),
            ApiKey::new("eve", Role::Viewer, "look"),
        ];
    })
    .await;
    let (viewer, operator) = (stack.api.with_key("look"), stack.api.with_key("work"));
    let reads = [
        "/routes",
        "/config",
        "/active",
        "/fps",
        "/stats",
        "/sources",
        "/frame.png",
        "/v1/display",
        "/debug/panel.png?id=top",
        "/workers/a/config",
    ];
    for path in reads {
        stack.api.get(path).await.expect(401);
        viewer.get(path).await.expect(200);
    }
    let writes = [
        (Method::POST, "/active"),
        (Method::POST, "/fps"),
        (Method::DELETE, "/fps"),
        (Method::POST, "/workers/a/start"),
        (Method::POST, "/workers/a/stop"),
        (Method::POST, "/workers/a/config"),
        (Method::POST, "/workers/a/frame"),
        (Method::POST, "/ingest/rbm"),
        (Method::GET, "/workers/a/ws"),
    ];
    for (method, path) in writes {
        let send = |api: &Api| {
            let request = api.request(method.clone(), path);
            let api = api.clone();
            async move { api.send(request).await.status }
        };
        assert_eq!(send(&stack.api).await, 401, "{method} {path}");
        assert_eq!(send(&viewer).await, 403, "{method} {path}");
        let allowed = send(&operator).await;
        assert!(matches!(allowed, 204 | 400), "{method} {path}: {allowed}");
    }
    let ticket = async |api: &Api| {
        let ticket = api.order("/v1/tickets").await.expect(200);
        ticket.body["ticket"].as_str().unwrap().to_owned()
    };
    let (looks, works) = (ticket(&viewer).await, ticket(&operator).await);
    let open = async |path: &str, token: &str| {
        Socket::connect(&stack.api, &format!("{path}?token={token}"))
            .await
            .err()
    };
    assert_eq!(Socket::connect(&stack.api, "/ws").await.err(), Some(401));
    assert_eq!(open("/ws", "wrong").await, Some(401));
    assert_eq!(open("/ws", "look").await, None);
    assert_eq!(open("/ws", &looks).await, None);
    assert_eq!(open("/workers/a/ws", &looks).await, Some(403));
    assert_eq!(open("/workers/a/ws", "look").await, Some(403));
    assert_eq!(open("/workers/a/ws", &works).await, None);
    let by_query = stack.api.get("/stats?token=work").await;
    assert_eq!(by_query.status, 401, "only sockets take a token");
}

#[tokio::test]
async fn every_route_that_is_listed_exists() {
    let stack = stack(|_| {}).await;
    let api = &stack.api;
    let listed = api.get("/routes").await.expect(200).body;
    let routes = listed["routes"].as_array().unwrap();
    assert!(routes.len() > 40, "{listed}");
    for path in [
        "/",
        "/active",
        "/workers/:id/ws",
        "/v1/jobs",
        "/runs/:id",
        "/agent",
        "/ui",
        "/ws",
    ] {
        assert!(routes.iter().any(|route| route["path"] == path), "{path}");
    }
    for route in routes {
        let path = route["path"].as_str().unwrap();
        // A method that no route takes answers whether there is one, and which it takes.
        let asked = path
            .split('/')
            .map(|part| if part.starts_with(':') { "x" } else { part });
        let asked: Vec<_> = asked.collect();
        let request = api.request(Method::PATCH, &asked.join("/"));
        let answer = api.send(request).await.expect(405);
        for method in route["methods"].as_array().unwrap() {
            let allowed = answer.header("allow").unwrap();
            assert!(
                allowed.contains(method.as_str().unwrap()),
                "{path}: {allowed}"
            );
        }
    }
}
