//! The events of a run: every one of them once and in order, whatever happens to the client, the edges and NATS.

use std::time::Duration;

use quintet::system::System;
use quintet_bus::now;
use quintet_contract::id::RunId;
use quintet_contract::run::{RunEvent, RunStatus};
use quintet_contract::time::Timestamp;
use quintet_testkit::Nats;
use quintet_tests::{
    Api, Feed, Message, Owner, TIMEOUT, checkpoint, connect, line, start_edges, status,
};
use serde_json::{Value, json};

/// Edges on a NATS of their own, whose runs belong to the test.
struct Edges {
    nats: Nats,
    owner: Owner,
    apis: Vec<Api>,
    _systems: Vec<System>,
}

impl Edges {
    async fn start(count: usize) -> Self {
        let nats = Nats::start().await.unwrap();
        let owner = Owner::start(connect(&nats, "owner").await).await;
        let (apis, systems) = start_edges(&nats, count, |_| {}).await;
        Self {
            nats,
            owner,
            apis,
            _systems: systems,
        }
    }

    fn api(&self) -> &Api {
        &self.apis[0]
    }

    /// A run whose log holds its two statuses and this many lines.
    async fn run_with_lines(&self, count: usize) -> RunId {
        let run = self.owner.run().await;
        let lines: Vec<RunEvent> = (0..count).map(|n| line(format!("line {n}"))).collect();
        for some in lines.chunks(7) {
            self.owner.log(run, now(), some.to_vec()).await;
        }
        run
    }
}

fn events(run: RunId) -> String {
    format!("/runs/{run}/events")
}

/// The number of the entry that an event carries.
fn number(message: &Message) -> u64 {
    let (_, n) = message.id.rsplit_once('_').expect("an id with a number");
    n.parse().unwrap()
}

/// Everything until the server ends the stream; the first must be the greeting.
async fn all(mut feed: Feed) -> Vec<Message> {
    assert_eq!(feed.next().await.unwrap().event, "hello");
    let mut all = Vec::new();
    while let Some(message) = feed.next().await {
        all.push(message);
    }
    all
}

fn numbers(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(number).collect()
}

#[tokio::test]
async fn a_stream_sends_hello_the_last_checkpoints_then_new_events_and_ends_with_the_run() {
    let edges = Edges::start(1).await;
    let run = edges.owner.run().await;
    for n in 0..12 {
        let facts = vec![line("noise"), checkpoint(run, "step", json!({"n": n}))];
        edges.owner.log(run, now(), facts).await;
    }
    let mut feed = edges.api().events(&events(run), None).await;
    let hello = feed.next().await.unwrap();
    assert_eq!((hello.event.as_str(), hello.id.as_str()), ("hello", ""));
    assert_eq!(
        hello.data,
        json!({"runId": run, "status": "running", "entries": 26})
    );
    for n in 2..12 {
        let event = feed.next().await.unwrap();
        assert_eq!(event.event, "checkpoint");
        assert_eq!(event.data["data"], json!({"n": n}), "the last ten");
        assert_eq!(event.data["runId"], json!(run));
    }
    edges.owner.log(run, now(), vec![line("live")]).await;
    let event = feed.next().await.unwrap();
    assert_eq!(
        (event.event.as_str(), &event.data["line"]),
        ("log", &json!("live"))
    );
    edges
        .owner
        .end(run, RunStatus::Completed, None)
        .await
        .unwrap();
    let last = feed.next().await.unwrap();
    assert_eq!(last.data, json!({"runId": run, "status": "completed"}));
    assert_eq!((last.event.as_str(), number(&last)), ("status", 28));
    assert!(
        feed.next().await.is_none(),
        "nothing comes after the last status"
    );

    let path = format!("{}?replay=2", events(run));
    let ended = all(edges.api().events(&path, None).await).await;
    let names: Vec<&str> = ended.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(names, ["checkpoint", "checkpoint", "status"]);
    assert_eq!(ended[2].id, last.id, "the last status is a stored event");
    let none = all(edges.api().events(&events(run), Some(&last.id)).await).await;
    assert_eq!(
        none,
        [],
        "a client that has seen the end receives nothing twice"
    );
    let bare = all(edges
        .api()
        .events(&format!("{}?replay=0", events(run)), None)
        .await)
    .await;
    assert_eq!(numbers(&bare), [28]);
}

#[tokio::test]
async fn a_client_resumes_by_id_by_time_or_by_number() {
    let edges = Edges::start(1).await;
    let run = edges.owner.run().await;
    // Several messages in the same millisecond, and several entries in one message.
    let first: Timestamp = "2100-01-01T00:00:00.000Z".parse().unwrap();
    for n in 0..3 {
        let facts = vec![line("a"), checkpoint(run, "c", json!(n))];
        edges.owner.log(run, first, facts).await;
    }
    let later = first.after(Duration::from_millis(1));
    let facts = vec![line("b"), line("b")];
    edges.owner.log(run, later, facts).await;
    let last = first.after(Duration::from_millis(2));
    edges
        .owner
        .log(run, last, vec![status(RunStatus::Failed)])
        .await;
    let api = edges.api();
    let after = async |last: &str| numbers(&all(api.events(&events(run), Some(last)).await).await);
    assert_eq!(after("0").await, (1..=11).collect::<Vec<u64>>());
    assert_eq!(
        after("2100-01-01T00:00:00.000Z_0000000005").await,
        [6, 7, 8, 9, 10, 11]
    );
    assert_eq!(
        after("2100-01-01T00:00:00.000Z_5").await,
        [6, 7, 8, 9, 10, 11]
    );
    assert_eq!(after("2100-01-01T00:00:00.000Z").await, [9, 10, 11]);
    assert_eq!(after("2100-01-01T00:00:00.001Z").await, [11]);
    assert_eq!(after("10").await, [11]);
    let everything = all(api.events(&events(run), Some("0")).await).await;
    let ids: Vec<String> = everything.iter().map(|event| event.id.clone()).collect();
    assert!(ids.is_sorted(), "ids sort as texts: {ids:?}");
    let path = format!("/v1{}?lastEventId=9", events(run));
    assert_eq!(numbers(&all(api.events(&path, None).await).await), [10, 11]);
    for wrong in ["x", "-1", "2100-01-01", "7_7"] {
        let request = api.request(reqwest::Method::GET, &events(run));
        let refused = api.send(request.header("last-event-id", wrong)).await;
        assert_eq!(refused.status, 422, "{wrong}");
    }
    for wrong in ["101", "-1", "x"] {
        let path = format!("{}?replay={wrong}", events(run));
        assert_eq!(api.get(&path).await.status, 422, "{wrong}");
    }
    let unknown = api
        .get(&format!("/runs/{}/events", quintet_bus::new_run_id()))
        .await;
    assert_eq!(unknown.expect(404).body["error"], "run not found");
    assert_eq!(
        api.get("/runs/7/events").await.expect(404).body["error"],
        "run not found"
    );
}

/// A client that loses its connection after every so many events, and comes back to the next edge.
async fn follow_dropping(apis: Vec<Api>, run: RunId, every: usize) -> Vec<Message> {
    let (mut seen, mut last) = (Vec::<Message>::new(), Some("0".to_owned()));
    for turn in 0.. {
        let mut feed = apis[turn % apis.len()]
            .events(&events(run), last.as_deref())
            .await;
        let mut count = 0;
        while count < every
            && let Some(message) = feed.next().await
        {
            if message.id.is_empty() {
                continue;
            }
            count += 1;
            last = Some(message.id.clone());
            let is_end = message.event == "status" && message.data["status"] == "completed";
            seen.push(message);
            if is_end {
                return seen;
            }
        }
    }
    unreachable!("the run ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_lose_their_connections_on_two_edges_and_a_restart_of_nats_miss_nothing() {
    let mut edges = Edges::start(2).await;
    let run = edges.owner.run().await;
    let clients: Vec<_> = [1, 3, 10, 1000]
        .into_iter()
        .map(|every| tokio::spawn(follow_dropping(edges.apis.clone(), run, every)))
        .collect();
    let steady: Vec<_> = edges
        .apis
        .iter()
        .map(|api| tokio::spawn(follow_dropping(vec![api.clone()], run, usize::MAX)))
        .collect();
    for n in 0..150 {
        if n == 60 {
            edges.nats.restart().await.unwrap();
        }
        // All in one millisecond: only the numbers distinguish them.
        let at = "2026-01-01T00:00:00.000Z".parse().unwrap();
        let some = (0..n % 4 + 1).map(|i| checkpoint(run, "c", json!([n, i])));
        edges.owner.log(run, at, some.collect()).await;
    }
    // Nothing comes after this that would show that it was missed.
    edges.nats.restart().await.unwrap();
    edges
        .owner
        .end(run, RunStatus::Completed, None)
        .await
        .unwrap();
    for client in clients.into_iter().chain(steady) {
        let seen = tokio::time::timeout(TIMEOUT * 2, client)
            .await
            .expect("an end in time")
            .unwrap();
        let last = number(seen.last().unwrap());
        assert_eq!(numbers(&seen), (1..=last).collect::<Vec<u64>>());
        let expected: Vec<Value> = (0..150)
            .flat_map(|n| (0..n % 4 + 1).map(move |i| json!([n, i])))
            .collect();
        let checkpoints = seen.iter().filter(|event| event.event == "checkpoint");
        assert_eq!(
            checkpoints
                .map(|event| event.data["data"].clone())
                .collect::<Vec<_>>(),
            expected
        );
    }
}

#[tokio::test]
async fn events_stored_while_nats_restarts_are_delivered_without_anything_after_them() {
    let mut edges = Edges::start(1).await;
    let run = edges.owner.run().await;
    let mut feed = edges.api().events(&events(run), None).await;
    assert_eq!(feed.next().await.unwrap().event, "hello");
    edges.nats.stop().await.unwrap();
    let restarted = edges.nats.restart();
    let (restarted, ()) = tokio::join!(
        restarted,
        edges.owner.log(run, now(), vec![line("meanwhile")])
    );
    restarted.unwrap();
    assert_eq!(feed.next().await.unwrap().data["line"], "meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_log_is_resumed_anywhere_at_once() {
    let edges = Edges::start(1).await;
    let (run, other) = (edges.run_with_lines(10_000).await, edges.owner.run().await);
    edges.owner.log(other, now(), vec![line("between")]).await;
    edges
        .owner
        .end(run, RunStatus::Completed, None)
        .await
        .unwrap();
    let api = edges.api();
    for (last, expected) in [
        ("0", 10_003),
        ("5000", 5_003),
        ("9990", 13),
        ("1999-01-01T00:00:00Z", 10_003),
    ] {
        let request = api.request(reqwest::Method::GET, &events(run));
        let text = api.send(request.header("last-event-id", last)).await.text;
        assert_eq!(text.matches("\nid: ").count(), expected, "after {last}");
        let received = all(api.events(&events(run), Some(last)).await).await;
        assert_eq!(received.len(), expected, "after {last}");
        let end = 10_003;
        assert_eq!(
            numbers(&received),
            (end - expected as u64 + 1..=end).collect::<Vec<u64>>()
        );
    }
    let few = all(api.events(&format!("{}?replay=5", events(run)), None).await).await;
    assert_eq!(numbers(&few), [10_003], "there are no checkpoints");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_follow_one_run_and_each_receives_everything() {
    const LISTENERS: usize = 200;
    let edges = Edges::start(1).await;
    let run = edges.owner.run().await;
    let listeners: Vec<_> = (0..LISTENERS)
        .map(|n| {
            let (api, path) = (edges.api().clone(), events(run));
            tokio::spawn(async move {
                // Some come from the beginning, the others from now on.
                let last = (n % 2 == 0).then_some("0");
                let mut feed = api.events(&path, last).await;
                let mut seen = Vec::new();
                while let Some(message) = feed.next().await {
                    if !message.id.is_empty() {
                        seen.push(number(&message));
                    }
                }
                seen
            })
        })
        .collect();
    for n in 0..300 {
        edges.owner.log(run, now(), vec![line(n.to_string())]).await;
    }
    edges
        .owner
        .end(run, RunStatus::Canceled, None)
        .await
        .unwrap();
    for listener in listeners {
        let seen = listener.await.unwrap();
        let first = seen[0];
        assert_eq!(seen, (first..=303).collect::<Vec<u64>>());
    }
}

#[tokio::test]
async fn the_checkpoints_of_a_run_are_listed_oldest_first() {
    let edges = Edges::start(1).await;
    let run = edges.owner.run().await;
    let path = format!("/runs/{run}/checkpoints");
    let empty = edges.api().get(&path).await.expect(200).body;
    assert_eq!(empty, json!({"runId": run, "checkpoints": []}));
    edges
        .owner
        .log(
            run,
            now(),
            vec![
                line("noise"),
                checkpoint(run, "a", json!(1)),
                status(RunStatus::Running),
            ],
        )
        .await;
    let posted = edges
        .api()
        .post(&path, json!({"type": " b ", "data": {"x": [1]}}))
        .await
        .expect(201);
    let listed = edges.api().get(&path).await.expect(200).body;
    let listed = listed["checkpoints"].as_array().unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0]["type"], "a");
    assert_eq!(
        (&listed[1]["type"], &listed[1]["data"]),
        (&json!("b"), &json!({"x": [1]}))
    );
    assert_eq!(listed[1]["id"], posted.body["checkpointId"]);
    let unknown = edges
        .api()
        .get(&format!("/runs/{}/checkpoints", quintet_bus::new_run_id()))
        .await;
    assert_eq!(unknown.expect(404).body["error"], "run not found");
}
