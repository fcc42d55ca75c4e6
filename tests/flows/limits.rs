//! What a client or an agent can make grow, and where that ends.

use std::net::SocketAddr;
use std::time::Duration;

use quintet_bus::{new_session, now};
use quintet_contract::agent::{ActiveJob, AgentReport, AgentReports, Hello};
use quintet_contract::event::{JobLog, LogLine, LogStream};
use quintet_contract::id::{AgentId, JobId, PoolName};
use quintet_contract::job::{JobError, JobStatus};
use quintet_contract::subject::{AgentReporting, JobLogged};
use quintet_testkit::wait_for;
use quintet_tests::{Agent, Api, Frame, Plan, Socket, Stack, TIMEOUT};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The address of the edge, without what makes it a URL.
fn address(api: &Api) -> SocketAddr {
    let url = api.url("");
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// A connection on which these bytes were sent.
async fn connect_and_send(api: &Api, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address(api)).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// The status of the next answer; 0 when the connection ends without one.
async fn status(stream: &mut TcpStream) -> u16 {
    let mut head = vec![0; "HTTP/1.1 200".len()];
    let read = timeout(TIMEOUT, stream.read_exact(&mut head));
    match read.await.expect("an answer or an end in time") {
        Ok(_) => String::from_utf8_lossy(&head)[9..].parse().unwrap(),
        Err(_) => 0,
    }
}

/// Reads until the other end closes.
async fn until_closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let end = timeout(TIMEOUT, stream.read_to_end(&mut rest)).await;
    // A reset is an end as well.
    drop(end.expect("an end in time"));
}

#[tokio::test]
async fn the_head_of_a_request_is_bounded() {
    let stack = Stack::without_agents().await;
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let some: String = (0..90).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = format!("x-long: {}\r\n", "x".repeat(64 * 1024));
    let path = |length: usize| format!("/v1/jobs?status={}", "x".repeat(length));
    let cases = [
        ("/healthz".to_owned(), some, 200),
        ("/healthz".to_owned(), many, 431),
        ("/healthz".to_owned(), long, 431),
        (path(8 * 1024), String::new(), 414),
        (path(60 * 1024), String::new(), 414),
        (path(70 * 1024), String::new(), 431),
    ];
    for (path, headers, expected) in cases {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        let mut stream = connect_and_send(&stack.api, &request).await;
        let length = request.len();
        assert_eq!(status(&mut stream).await, expected, "{length} bytes");
    }
    let refused = stack.api.get(&path(8 * 1024)).await.expect(414);
    assert_eq!(refused.body["code"], "URI_TOO_LONG");
    assert_eq!(
        refused.body["requestId"].as_str(),
        refused.header("x-request-id")
    );
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let plan = Plan {
        agents: 0,
        edge: |config| config.head_timeout = Duration::from_millis(300),
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    for words in [
        "",
        "P",
        "PRI * HTTP/2.0",
        "GET /healthz HTTP/1.1\r\nhost: te",
    ] {
        until_closed(connect_and_send(&stack.api, words).await).await;
    }
    let mut kept = connect_and_send(
        &stack.api,
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    )
    .await;
    assert_eq!(status(&mut kept).await, 200);
    until_closed(kept).await;
    // A stream that is quiet for longer has sent its request.
    let id = stack.api.submit_noop().await;
    let mut events = stack
        .api
        .events(&format!("/v1/jobs/{id}/events"), None)
        .await;
    let mut ui = Socket::connect(&stack.api, "/ui").await.unwrap();
    assert!(events.next_of("job.status").await.is_some());
    tokio::time::timeout(Duration::from_millis(900), async {
        while events.next().await.is_some() {}
    })
    .await
    .expect_err("it stays open");
    stack
        .api
        .order(&format!("/v1/jobs/{id}/stop"))
        .await
        .expect(202);
    let last = events.rest_of("job.status").await;
    assert_eq!(last.last().unwrap().data["status"], "CANCELED");
    ui.next_of("ui.job.update").await;
}

#[tokio::test]
async fn an_address_has_only_so_many_connections_and_streams() {
    const ASK: &str = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let plan = Plan {
        agents: 0,
        edge: |config| {
            config.max_connections_per_address = 2;
            config.max_streams_per_address = 1;
        },
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    let mut first = connect_and_send(&stack.api, ASK).await;
    assert_eq!(status(&mut first).await, 200);
    let mut second = Socket::connect(&stack.api, "/ui").await.unwrap();
    second.next_of("ui.job.update").await;
    until_closed(connect_and_send(&stack.api, "").await).await;
    drop(first);
    let streams = wait_for("a free connection", TIMEOUT, async || {
        let stream = TcpStream::connect(address(&stack.api)).await;
        let mut stream = stream.map_err(|error| error.to_string())?;
        let ask = "GET /ui HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let _ = stream.write_all(ask.as_bytes()).await;
        match status(&mut stream).await {
            0 => Err("closed at once".to_owned()),
            status => Ok(status),
        }
    });
    assert_eq!(streams.await.unwrap(), 429, "the one stream is taken");
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_its_socket() {
    let stack = Stack::without_agents().await;
    for (path, limit) in [("/ui", 64 * 1024), ("/agent", 1024 * 1024)] {
        let mut socket = Socket::connect(&stack.api, path).await.unwrap();
        socket
            .try_send("x", json!({"fits": "x".repeat(limit - 100)}))
            .await;
        socket
            .try_send("x", json!({"not": "x".repeat(limit)}))
            .await;
        while let Frame::Json(_) = socket.next().await {}
    }
}

#[tokio::test]
async fn the_tail_of_a_log_is_bounded_in_bytes_and_holds_the_newest_lines() {
    const MAX_TAIL_BYTES: usize = 8 * 1024 * 1024;
    const MESSAGE_LINES: usize = 32;
    const MESSAGES: usize = 40;
    let stack = Stack::without_agents().await;
    let bus = stack.bus().await;
    let id = JobId::parse(stack.api.submit_noop().await).unwrap();
    let subject = JobLogged { job: id.clone() };
    // As large as agents send them: 256 KiB, so 10 MiB altogether.
    let line = "x".repeat(8 * 1024 - "00.00 ".len());
    for message in 0..MESSAGES {
        let line = |index| LogLine {
            at: now(),
            stream: LogStream::default(),
            line: format!("{message:02}.{index:02} {line}"),
        };
        let log = JobLog {
            job_id: id.clone(),
            attempt: None,
            lines: (0..MESSAGE_LINES).map(line).collect(),
        };
        let stored = bus.store(&subject, &log, None).await.unwrap();
        stored.await.unwrap();
    }
    let path = format!("/v1/jobs/{id}/logs");
    let tail = stack.api.get(&format!("{path}?tail=100000")).await;
    let tail = tail.expect(200).text;
    let bytes = tail.len();
    assert!(
        bytes <= MAX_TAIL_BYTES,
        "{bytes} bytes are more than the bound"
    );
    assert!(bytes > MAX_TAIL_BYTES / 2, "only {bytes} bytes of the tail");
    assert!(
        tail.trim_end()
            .rsplit('\n')
            .next()
            .unwrap()
            .starts_with("39.31 ")
    );
    let whole = stack.api.get(&path).await.expect(200).text;
    assert_eq!(whole.lines().count(), MESSAGES * MESSAGE_LINES);
}

/// An array in an array, and so on.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!([]), |inner, _| json!([inner]))
}

#[tokio::test]
async fn messages_of_an_agent_are_stored_unless_they_are_nested_too_deeply() {
    let plan = Plan {
        agents: 0,
        edge: |config| config.hello_timeout = Duration::from_millis(300),
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    let bus = stack.bus().await;
    for (levels, kept) in [(31, true), (32, false), (120, false)] {
        let id = format!("by-socket-{levels}");
        let mut hello = Agent::hello("socket");
        hello["activeJob"] = json!({"jobId": id, "status": "RUNNING"});
        let mut agent = Agent::join(&stack.api, hello).await;
        let error = json!({"code": "BROKEN", "message": "m", "detail": nested(levels)});
        let stopped = json!({"jobId": id, "status": "FAILED", "error": error});
        agent.socket.send("agent.job.stopped", stopped).await;
        let job = stack.api.until(&id, "FAILED").await;
        assert_eq!(job["error"]["code"], "BROKEN");
        assert_eq!(
            job["error"]["detail"].is_array(),
            kept,
            "{levels} at a socket"
        );
        if levels > 100 {
            // More than this the bus itself does not read.
            continue;
        }
        let id = JobId::parse(format!("by-bus-{levels}")).unwrap();
        let subject = AgentReporting {
            agent: AgentId::parse("bus").unwrap(),
            pool: PoolName::default(),
        };
        let hello = Hello {
            name: String::new(),
            version: String::new(),
            capabilities: Default::default(),
            drain: false,
            active_jobs: vec![ActiveJob {
                job_id: id.clone(),
                attempt: None,
                status: JobStatus::Running,
            }],
            meta: Default::default(),
        };
        let mut error = JobError::new("BROKEN", "m");
        error.detail = Some(nested(levels));
        let stopped = AgentReport::JobStopped {
            job_id: id.clone(),
            attempt: None,
            status: JobStatus::Failed,
            error: Some(error),
        };
        let reports = AgentReports {
            session: new_session(),
            clock: 1,
            reports: vec![AgentReport::Hello { hello }, stopped],
        };
        bus.request(&subject, &reports, TIMEOUT).await.unwrap();
        let job = stack.api.until(id.as_str(), "FAILED").await;
        assert_eq!(
            job["error"]["detail"].is_array(),
            kept,
            "{levels} on the bus"
        );
    }
    let mut hello = Agent::hello("deep");
    hello["meta"] = json!({"deep": nested(40)});
    let mut socket = Socket::connect(&stack.api, "/agent").await.unwrap();
    socket.send("agent.hello", hello).await;
    assert_eq!(socket.closed().await.0, 4002, "such a hello is none");
}

#[tokio::test]
async fn a_pool_takes_only_so_many_agents_and_forgetting_one_makes_room() {
    let plan = Plan {
        agents: 0,
        scheduler: |config| config.max_agents = 1,
        ..Plan::default()
    };
    let stack = Stack::with(plan).await;
    let first = Agent::join(&stack.api, Agent::hello("first")).await;
    let mut second = Socket::connect(&stack.api, "/agent").await.unwrap();
    second.send("agent.hello", Agent::hello("second")).await;
    assert_eq!(second.closed().await.0, 1013);
    drop(first);
    stack.api.until_agent("first", "OFFLINE").await;
    drop(Agent::join(&stack.api, Agent::hello("first")).await);
    stack.api.until_agent("first", "OFFLINE").await;
    stack.api.delete("/v1/agents/first").await;
    drop(Agent::join(&stack.api, Agent::hello("second")).await);
    stack.api.until_agent("second", "OFFLINE").await;
}

#[tokio::test]
async fn templates_and_metadata_end_where_a_message_of_the_bus_does() {
    let stack = Stack::without_agents().await;
    let template =
        |bytes: usize| json!({"executor": "noop", "config": {"note": "x".repeat(bytes)}});
    for name in ["a", "b", "c"] {
        let path = format!("/v1/templates/{name}");
        stack.api.put(&path, template(250_000)).await.expect(201);
    }
    let refused = stack.api.put("/v1/templates/d", template(250_000)).await;
    assert_eq!(refused.expect(413).body["code"], "PAYLOAD_TOO_LARGE");
    stack
        .api
        .put("/v1/templates/a", template(100))
        .await
        .expect(200);
    stack
        .api
        .put("/v1/templates/d", template(250_000))
        .await
        .expect(201);
    let listed = stack.api.get("/v1/templates").await.expect(200).body;
    assert_eq!(listed.as_array().unwrap().len(), 4);
    let job = stack.api.submit_noop().await;
    let path = format!("/v1/jobs/{job}/metadata");
    let fields: Value = (0..129).map(|n| (format!("f{n}"), json!(n))).collect();
    stack.api.put(&path, fields).await.expect(413);
    let long = json!({"note": "x".repeat(64 * 1024)});
    stack.api.put(&path, long).await.expect(413);
    assert_eq!(stack.api.get(&path).await.body, json!({"metadata": {}}));
}
