//! Access: hosts and origins, API keys, tickets, sessions, and what counts as one client.

use std::num::NonZeroU32;
use std::process::Command;
use std::time::Duration;

use quintet_bus::new_session;
use quintet_edge::{ApiKey, EdgeConfig, OpenTo, Role, RunRateLimit};
use quintet_testkit::wait_for;
use quintet_tests::{Agent, Answer, Api, Frame, Runs, Socket, Stack, TIMEOUT, binary, run_to_end};
use reqwest::Method;
use serde_json::{Value, json};

use crate::runs_http::make;

const EVIL: &str = "http://evil.example";

/// The status of a request with these headers.
async fn status(api: &Api, method: Method, path: &str, headers: &[(&str, &str)]) -> u16 {
    let request = api.request(method, path);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    // A form of a page needs no preflight.
    let request = request
        .header("content-type", "text/plain")
        .body(r#"{"id": null}"#);
    request.send().await.unwrap().status().as_u16()
}

const UPGRADE: [(&str, &str); 4] = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// The status of a request that opens a socket.
async fn upgrade(api: &Api, path: &str, headers: &[(&str, &str)]) -> u16 {
    let all = [&UPGRADE[..], headers].concat();
    let request = api.request(Method::GET, path);
    let request = all.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    request.send().await.unwrap().status().as_u16()
}

const SOCKETS: [&str; 4] = ["/ui", "/agent", "/ws", "/workers/w/ws"];

#[tokio::test]
async fn a_page_whose_name_resolves_to_this_machine_is_refused_while_there_is_no_key() {
    let runs = Runs::with(1, |edge| {
        edge.allowed_hosts = vec!["edge.example".to_owned()]
    })
    .await;
    let api = runs.api();
    let evil = [
        ("host", "evil.example:8080"),
        ("origin", "http://evil.example:8080"),
    ];
    for path in [
        "/",
        "/docs",
        "/v1/jobs",
        "/runs",
        "/stats",
        "/frame.png",
        "/nothing",
    ] {
        assert_eq!(status(api, Method::GET, path, &evil).await, 403, "{path}");
    }
    for path in ["/v1/jobs", "/active", "/runs", "/v1/session", "/v1/tickets"] {
        assert_eq!(status(api, Method::POST, path, &evil).await, 403, "{path}");
    }
    for path in SOCKETS {
        assert_eq!(upgrade(api, path, &evil).await, 403, "{path}");
    }
    for path in ["/health", "/healthz", "/ready", "/metrics"] {
        assert_eq!(
            status(api, Method::GET, path, &evil[..1]).await,
            200,
            "{path}"
        );
    }
    for host in [
        "localhost",
        "localhost:8080",
        "127.0.0.1:1",
        "[::1]:9",
        "edge.example",
    ] {
        let answer = status(api, Method::GET, "/runs", &[("host", host)]).await;
        assert_eq!(answer, 200, "{host}");
    }
    let refused = api
        .request(Method::GET, "/runs")
        .header("host", "evil.example");
    let refused = api.send(refused).await.expect(403);
    assert_eq!(refused.body["code"], "FORBIDDEN");
    assert!(refused.text.contains("ALLOWED_HOSTS"), "{}", refused.text);
    // With keys the name does not matter: a page of a stranger has none.
    let with_keys = Runs::with(1, |edge| {
        edge.api_keys = vec![ApiKey::new("oz", Role::Operator, "work")];
    });
    let with_keys = with_keys.await;
    let api = with_keys.api().with_key("work");
    assert_eq!(
        status(&api, Method::GET, "/runs", &[("host", "any.example")]).await,
        200
    );
}

#[tokio::test]
async fn a_page_of_a_stranger_changes_nothing_and_opens_no_socket() {
    let stack = Stack::without_agents().await;
    let api = &stack.api;
    let host = api.url("").replace("http://", "");
    for path in ["/active", "/fps", "/v1/jobs", "/workers/w/start"] {
        for origin in [EVIL, "null", "http://localhost.evil.example"] {
            let answer = status(api, Method::POST, path, &[("origin", origin)]).await;
            assert_eq!(answer, 403, "{path} of {origin}");
        }
    }
    assert_eq!(
        status(api, Method::DELETE, "/fps", &[("origin", EVIL)]).await,
        403
    );
    for path in SOCKETS {
        assert_eq!(upgrade(api, path, &[("origin", EVIL)]).await, 403, "{path}");
    }
    // Pages of this machine on any port, the edge's own, and clients that are no browser.
    let own = format!("http://{host}");
    for origin in [
        Some("http://localhost:5173"),
        Some("http://127.0.0.1:3000"),
        Some(own.as_str()),
        None,
    ] {
        let headers: Vec<_> = origin
            .map(|origin| ("origin", origin))
            .into_iter()
            .collect();
        let answer = status(api, Method::POST, "/active", &headers).await;
        assert_eq!(answer, 204, "{origin:?}");
        for path in SOCKETS {
            assert_eq!(
                upgrade(api, path, &headers).await,
                101,
                "{path} of {origin:?}"
            );
        }
    }
    // It may read what every client may, and its browser shows it none of that.
    let read = api.request(Method::GET, "/v1/jobs").header("origin", EVIL);
    let read = api.send(read).await.expect(200);
    assert_eq!(read.header("access-control-allow-origin"), None);
}

fn keyed(edge: &mut EdgeConfig) {
    edge.api_keys = vec![
        ApiKey::new("oz", Role::Operator, "work"),
        ApiKey::new("eve", Role::Viewer, "look"),
    ];
}

async fn create_key(api: &Api, name: &str, permissions: Value) -> String {
    let new = json!({"name": name, "permissions": permissions});
    let created = api.post("/v1/keys", new).await.expect(201).body;
    created["key"].as_str().unwrap().to_owned()
}

/// Waits until a key is good at an edge, or no longer.
async fn until_status(api: &Api, key: &str, expected: u16) {
    let what = format!("{expected} for a key");
    let found = wait_for(&what, TIMEOUT, async || {
        let answer = api.with_key(key).get("/runs").await;
        if answer.status == expected {
            Ok(())
        } else {
            Err(answer.text)
        }
    });
    found.await.unwrap();
}

#[tokio::test]
async fn keys_are_created_at_one_edge_good_at_all_and_gone_when_they_are_revoked() {
    let runs = Runs::with(2, keyed).await;
    let (here, there) = (runs.apis[0].with_key("work"), &runs.apis[1]);
    for (api, expected) in [(&runs.apis[0], 401), (&runs.apis[0].with_key("look"), 403)] {
        api.get("/v1/keys").await.expect(expected);
        api.post("/v1/keys", json!({"name": "x", "permissions": ["read"]}))
            .await
            .expect(expected);
        api.delete("/v1/keys/oz").await.expect(expected);
    }
    let key = create_key(&here, "ci", json!(["read", "write"])).await;
    assert!(key.starts_with("qk_") && key.len() > 40, "{key}");
    runs.apis[0].with_key(&key).get("/runs").await.expect(200);
    until_status(there, &key, 200).await;
    let id = make(&there.with_key(&key), json!({})).await;
    let list = here.get("/v1/keys").await.expect(200);
    assert!(!list.text.contains(&key), "it is shown once");
    let names: Vec<_> = list
        .body
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["name"].clone())
        .collect();
    assert_eq!(names, ["oz", "eve", "ci"]);
    assert_eq!(list.body[2]["createdBy"], "oz");
    assert_eq!(list.body[2]["permissions"], json!(["read", "write"]));
    // Write alone is not admin, and a name stands for one key.
    runs.apis[0]
        .with_key(&key)
        .get("/v1/keys")
        .await
        .expect(403);
    for taken in ["ci", "oz"] {
        here.post("/v1/keys", json!({"name": taken, "permissions": ["read"]}))
            .await
            .expect(409);
    }
    for wrong in [
        json!({"name": "x", "permissions": []}),
        json!({"name": "x", "permissions": ["fly"]}),
    ] {
        here.post("/v1/keys", wrong).await.expect(422);
    }
    // What is made of a key goes with it.
    let ticket = there
        .with_key(&key)
        .order("/v1/tickets")
        .await
        .expect(200)
        .body;
    let events = format!(
        "/runs/{id}/events?token={}",
        ticket["ticket"].as_str().unwrap()
    );
    assert_eq!(
        there
            .events(&events, None)
            .await
            .next()
            .await
            .unwrap()
            .event,
        "hello"
    );
    let session = there
        .post("/v1/session", json!({"key": key}))
        .await
        .expect(200);
    let cookie = cookie_of(&session);
    with_cookie(there, &cookie).await.expect(200);
    here.delete("/v1/keys/ci").await.expect(200);
    here.delete("/v1/keys/ci").await.expect(404);
    here.delete("/v1/keys/oz").await.expect(409);
    until_status(there, &key, 401).await;
    there.get(&events).await.expect(401);
    with_cookie(there, &cookie).await.expect(401);
}

#[tokio::test]
async fn a_key_that_may_write_does_not_drain_workers() {
    let runs = Runs::with(1, keyed).await;
    let api = runs.api();
    let key = create_key(&api.with_key("work"), "ci", json!(["read", "write"])).await;
    let drain = async |key: &str| {
        let drain = json!({"drain": true});
        api.with_key(key).post("/v1/workers/w/drain", drain).await
    };
    let refused = drain(&key).await.expect(403);
    assert!(refused.text.contains("admin"), "{}", refused.text);
    drain("work").await.expect(404);
}

#[tokio::test]
async fn the_first_key_can_create_others_and_the_last_such_key_stays() {
    let runs = Runs::start(1).await;
    let open = runs.api();
    open.post("/v1/keys", json!({"name": "eve", "permissions": ["read"]}))
        .await
        .expect(422);
    let all = json!(["read", "write", "admin"]);
    let root = open.with_key(&create_key(open, "root", all).await);
    open.get("/runs").await.expect(401);
    let eve = root.with_key(&create_key(&root, "eve", json!(["read"])).await);
    eve.get("/runs").await.expect(200);
    root.delete("/v1/keys/root").await.expect(409);
    root.delete("/v1/keys/eve").await.expect(200);
    eve.get("/runs").await.expect(401);
    root.delete("/v1/keys/root").await.expect(200);
    open.get("/runs").await.expect(200);
}

#[tokio::test]
async fn of_the_last_two_admin_keys_that_are_revoked_at_once_one_stays() {
    let runs = Runs::start(2).await;
    let all = json!(["read", "write", "admin"]);
    let root = create_key(&runs.apis[0], "root", all.clone()).await;
    let here = runs.apis[0].with_key(&root);
    let eve = create_key(&here, "eve", json!(["read"])).await;
    until_status(&runs.apis[1], &eve, 200).await;
    for round in 0..20 {
        let name = format!("admin-{round}");
        let other = create_key(&here, &name, all.clone()).await;
        until_status(&runs.apis[1], &other, 200).await;
        let there = runs.apis[1].with_key(&other);
        let path = format!("/v1/keys/{name}");
        let (first, second) = tokio::join!(here.delete(&path), there.delete("/v1/keys/root"));
        let done = (first.status, second.status);
        assert_ne!(done, (200, 200), "both are gone in round {round}");
        if second.status == 200 {
            // The other key is the one that stays.
            there.get("/v1/keys").await.expect(200);
            return;
        }
        if first.status != 200 {
            here.delete(&path).await.expect(200);
        }
    }
}

#[tokio::test]
async fn the_command_line_creates_lists_and_revokes_keys() {
    let runs = Runs::with(1, keyed).await;
    let api = runs.api();
    let url = api.url("");
    let quintet = async |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command
            .args(["--url", &url, "--token", "work", "keys"])
            .args(arguments);
        let output = run_to_end(command, b"").await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {out}{err}");
        out
    };
    let key = quintet(&["create", "ci", "--permissions", "read,write"]).await;
    let ci = api.with_key(key.trim());
    make(&ci, json!({})).await;
    ci.get("/v1/keys").await.expect(403);
    let list = quintet(&["list"]).await;
    assert!(
        list.contains("ci") && list.contains("read, write"),
        "{list}"
    );
    assert!(!list.contains(key.trim()), "it is printed once");
    quintet(&["revoke", "ci"]).await;
    ci.get("/runs").await.expect(401);
}

/// What a browser sends back of a cookie that was set.
fn cookie_of(answer: &Answer) -> String {
    let set = answer.header("set-cookie").unwrap();
    set.split(';').next().unwrap().to_owned()
}

async fn with_cookie(api: &Api, cookie: &str) -> Answer {
    api.send(
        api.request(Method::GET, "/v1/session")
            .header("cookie", cookie),
    )
    .await
}

#[tokio::test]
async fn a_session_stands_in_for_a_key_of_any_characters() {
    const STRANGE: &str = "schlüssel; \"a=b\", 100 %\t";
    let runs = Runs::with(2, |edge| {
        edge.api_keys = vec![ApiKey::new("oz", Role::Operator, STRANGE)];
    });
    let runs = runs.await;
    let api = runs.api();
    api.post("/v1/session", json!({"key": "wrong"}))
        .await
        .expect(401);
    api.get("/v1/session").await.expect(401);
    let begun = api
        .post("/v1/session", json!({"key": STRANGE}))
        .await
        .expect(200);
    assert_eq!(begun.body["name"], "oz");
    let set = begun.header("set-cookie").unwrap();
    for part in [
        "quintet_session=",
        "HttpOnly",
        "SameSite=Strict",
        "Path=/",
        "Max-Age=43200",
    ] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("schl") && !set.contains("Secure"), "{set}");
    let cookie = cookie_of(&begun);
    for api in &runs.apis {
        assert_eq!(
            with_cookie(api, &cookie).await.expect(200).body["name"],
            "oz"
        );
    }
    with_cookie(api, &format!("{cookie}x")).await.expect(401);
    // A page of a stranger cannot use it, whatever its browser sends along.
    let headers = [("cookie", cookie.as_str()), ("origin", EVIL)];
    assert_eq!(status(api, Method::POST, "/runs", &headers).await, 403);
    assert_eq!(upgrade(api, "/ui", &headers).await, 403);
    let ended = api.delete("/v1/session").await.expect(204);
    assert!(ended.header("set-cookie").unwrap().contains("Max-Age=0"));
    // No token in an address where the route declares none.
    for path in ["/v1/templates/logs", "/v1/jobs/events"] {
        let ticket = api
            .request(Method::POST, "/v1/tickets")
            .header("cookie", &cookie);
        let ticket = api.send(ticket).await.expect(200).body;
        let path = format!("{path}?token={}", ticket["ticket"].as_str().unwrap());
        api.delete(&path).await.expect(401);
    }
}

#[tokio::test]
async fn a_gate_names_the_key_that_decided_and_bounds_whom_the_client_claims() {
    let runs = Runs::with(1, keyed).await;
    let api = runs.api().with_key("work");
    let plan = json!({"plan": {"nodes": [{"id": "go", "kind": "gate"}]}});
    for (verb, claim, decision) in [
        (
            "approve",
            Some("ada"),
            json!({"decision": "approve", "by": "oz", "actor": "ada"}),
        ),
        ("reject", None, json!({"decision": "reject", "by": "oz"})),
    ] {
        let id = make(&api, plan.clone()).await;
        let path = format!("/runs/{id}/nodes/go/{verb}");
        let decide = async |claim: Option<&str>| {
            let request = api.request(Method::POST, &path);
            let request = claim.into_iter().fold(request, |request, claim| {
                request.header("x-actor-id", claim)
            });
            api.send(request).await
        };
        decide(Some(&"x".repeat(129))).await.expect(422);
        let waits = wait_for("the gate to wait", TIMEOUT, async || {
            let answer = decide(claim).await;
            if answer.status == 200 {
                Ok(answer)
            } else {
                Err(answer.text)
            }
        });
        let run = waits.await.unwrap().body["run"].clone();
        assert_eq!(run["nodes"]["go"]["output"], decision, "{run}");
    }
}

#[tokio::test]
async fn pages_load_nothing_from_elsewhere_and_cannot_be_framed() {
    let runs = Runs::start(1).await;
    for path in ["/", "/docs"] {
        let page = runs.api().get(path).await.expect(200);
        let policy = page.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'sha256-",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        // What the policy forbids is not in them.
        for attribute in [" style=\"", " onclick=\"", " src=\"http"] {
            assert!(!page.text.contains(attribute), "{path}: {attribute}");
        }
    }
}

fn counted(edge: &mut EdgeConfig) {
    edge.run_rate = Some(RunRateLimit {
        max: NonZeroU32::new(3).unwrap(),
        window: Duration::from_secs(3600),
    });
}

#[tokio::test]
async fn a_wrong_key_makes_no_counter_and_a_good_one_is_counted_by_its_name() {
    let runs = Runs::with(1, |edge| {
        keyed(edge);
        counted(edge);
    });
    let runs = runs.await;
    for attempt in 0..10 {
        let wrong = runs
            .api()
            .with_key(&format!("wrong {attempt}"))
            .get("/runs")
            .await
            .expect(401);
        assert_eq!(wrong.header("ratelimit-limit"), None);
    }
    for (key, last) in [("look", 429), ("work", 429)] {
        let api = runs.api().with_key(key);
        for _ in 0..3 {
            api.get("/runs").await.expect(200);
        }
        api.get("/runs").await.expect(last);
    }
}

#[tokio::test]
async fn a_trusted_proxy_sets_the_address_of_the_client_and_no_other_client_can() {
    let runs = Runs::with(2, |edge| {
        counted(edge);
        edge.open_to = OpenTo::Everyone;
        edge.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let runs = runs.await;
    let from = async |client: &str| {
        let request = runs.api().request(Method::GET, "/runs");
        runs.api()
            .send(request.header("x-forwarded-for", client))
            .await
            .status
    };
    for _ in 0..3 {
        assert_eq!(from("198.51.100.1").await, 200);
    }
    assert_eq!(from("198.51.100.1").await, 429);
    assert_eq!(from("198.51.100.2").await, 200, "another client");
    // The client's own value comes first, and counts for nothing.
    assert_eq!(from("203.0.113.7, 198.51.100.1").await, 429);
    for client in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff"] {
        assert_eq!(from(client).await, 200);
    }
    assert_eq!(from("2001:db8::9:9").await, 429, "one /64 is one client");
    // An edge without keys serves its own machine only: a client behind a proxy is not on it.
    let closed = Runs::with(1, |edge| {
        edge.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]
    })
    .await;
    let request = closed.api().request(Method::GET, "/runs");
    let far = request.header("x-forwarded-for", "198.51.100.1");
    closed.api().send(far).await.expect(401);
    closed.api().get("/runs").await.expect(200);
}

#[tokio::test]
async fn an_agent_identifies_itself_before_it_may_send_large_messages() {
    let stack = Stack::without_agents().await;
    let mut socket = Socket::connect(&stack.api, "/agent").await.unwrap();
    socket
        .try_send(
            "agent.heartbeat",
            json!({"fits": "x".repeat(16 * 1024 - 200)}),
        )
        .await;
    socket.send("agent.hello", Agent::hello("small")).await;
    socket.next_of("orchestrator.hello.ok").await;
    let mut large = Socket::connect(&stack.api, "/agent").await.unwrap();
    large
        .try_send(
            "agent.hello",
            json!({"agentId": new_session(), "note": "x".repeat(16 * 1024)}),
        )
        .await;
    let end = large.next().await;
    assert!(matches!(end, Frame::Closed(1009, _)), "{end:?}");
}
