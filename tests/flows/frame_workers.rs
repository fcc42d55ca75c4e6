//! Workers of frames in Python, which join as in `services/workers/FRAMES.md`.

use std::fs::File;
use std::process::{Command, Stdio};

use quintet_testkit::{Process, wait_for};
use quintet_tests::{Api, Stack, TIMEOUT, repository};
use serde_json::json;

use crate::frames_http::{pixels, stack, until_stats};
use crate::python::tool;

fn start(stack: &Stack, file: &str, arguments: &[&str]) -> Process {
    let log = File::create(stack.folder.path().join(file).with_extension("log")).unwrap();
    let mut worker: Command = tool("python3");
    worker
        .arg(repository().join("tests/examples").join(file))
        .args(arguments)
        .env("NATS_URL", stack.nats.url())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    Process::spawn(worker).unwrap()
}

/// Activates a worker as soon as it is known.
async fn activate(api: &Api, id: &str) {
    let activated = wait_for("a worker that may be activated", TIMEOUT, async || {
        let answer = api.post("/active", json!({"id": id})).await;
        match answer.status {
            204 => Ok(()),
            _ => Err(answer.text),
        }
    });
    activated.await.unwrap();
}

/// Waits until the display shows rows that are all alike, with so many columns lit from the left.
async fn until_columns(api: &Api, what: &str, is_it: impl Fn(usize) -> bool) {
    let shown = wait_for(what, TIMEOUT, async || {
        let (width, height, pixels) = pixels(api, "/frame.png?scale=1").await;
        assert_eq!((width, height), (28, 14));
        let mut rows = pixels.chunks(28);
        let first = rows.next().unwrap();
        let columns = first.iter().take_while(|level| **level == 0).count();
        let is_bar = first[columns..].iter().all(|level| *level == 255);
        match is_bar && rows.all(|row| row == first) && is_it(columns) {
            true => Ok(()),
            false => Err(format!("{pixels:?}")),
        }
    });
    shown.await.unwrap();
}

#[tokio::test]
async fn a_worker_over_http_shows_its_image_and_applies_its_settings() {
    let stack = stack(|_| {}).await;
    let api = &stack.api;
    let set = async |width: u16| {
        let settings = json!({"width": width});
        api.post("/workers/bar/config", settings).await.expect(204);
    };
    set(28).await;
    let mut worker = start(&stack, "frame_worker_http.py", &[&api.url(""), "bar"]);
    activate(api, "bar").await;
    until_columns(api, "a bar as wide as the display", |columns| columns == 28).await;
    set(3).await;
    until_columns(api, "a narrow bar at the left", |columns| columns == 3).await;
    let running = |id: &'static str, expected: bool| {
        move |stats: &serde_json::Value| {
            let running = stats["running"].as_array().unwrap();
            running.contains(&json!(id)) == expected
        }
    };
    until_stats(api, "a worker that runs", running("bar", true)).await;
    worker.kill().unwrap();
    until_stats(api, "the end of the worker", running("bar", false)).await;
}

#[tokio::test]
async fn a_worker_on_the_bus_draws_when_it_is_ticked_and_vanishes_when_it_is_killed() {
    let stack = stack(|_| {}).await;
    let api = &stack.api;
    let mut worker = start(&stack, "frame_worker_nats.py", &["fill"]);
    activate(api, "fill").await;
    until_columns(api, "the first columns", |columns| {
        (1..28).contains(&columns)
    })
    .await;
    let settings = json!({"pps": 0});
    api.post("/workers/fill/config", settings).await.expect(204);
    until_columns(api, "what stands still", |columns| columns == 0).await;
    let stats = api.get("/stats").await.expect(200).body;
    assert_eq!(
        (&stats["active"], &stats["running"], &stats["errors"]),
        (&json!("fill"), &json!(["fill"]), &json!({}))
    );
    worker.kill().unwrap();
    until_stats(api, "the end of the worker", |stats| {
        stats["running"] == json!([])
    })
    .await;
}
