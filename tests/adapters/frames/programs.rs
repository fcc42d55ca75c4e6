//! Programs that the service starts itself.

use std::path::Path;
use std::time::Duration;

use quintet_frames::{FramesConfig, ProcessSpec};
use quintet_testkit::wait_for;
use quintet_worker::process::EnvironmentFilter;
use tempfile::TempDir;

use super::fixture::{Fixture, TIMEOUT, frame, id};

/// A program that writes down its number and what it was given, then waits; TERM ends it or not.
fn spec(folder: &Path, name: &str, on_term: &str) -> ProcessSpec {
    let script = format!(
        "trap '{on_term}' TERM; echo $QUINTET_WORKER_ID $COLOUR > {name}.env; echo $$ >> {name}; echo hello >&2; while :; do sleep 0.05; done"
    );
    ProcessSpec {
        id: id(name),
        command: ["sh", "-c", &script].map(str::to_owned).to_vec(),
        directory: Some(folder.to_owned()),
        environment: [("COLOUR".to_owned(), "yellow".to_owned())].into(),
    }
}

fn numbers(folder: &Path, name: &str) -> Vec<u32> {
    let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn is_alive(number: u32) -> bool {
    // A process that has ended and was waited for has no entry.
    Path::new(&format!("/proc/{number}")).exists()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let held = wait_for(
        what,
        TIMEOUT,
        async || {
            if holds() { Ok(()) } else { Err("not yet") }
        },
    );
    held.await.unwrap();
}

fn with(folder: &Path) -> impl FnOnce(&mut FramesConfig) {
    let specs = vec![spec(folder, "polite", "exit 0"), spec(folder, "deaf", "")];
    move |config: &mut FramesConfig| {
        config.processes = specs;
        config.kill_grace = Duration::from_millis(300);
    }
}

#[tokio::test]
async fn programs_run_while_they_are_wanted_and_are_killed_when_they_do_not_end() {
    let folder = TempDir::new().unwrap();
    let fixture = Fixture::open().await;
    let service = fixture.serve("one", with(folder.path())).await;
    let status = fixture.status().await;
    assert_eq!(status.known, [id("deaf"), id("polite")]);
    assert!(status.stats.running.is_empty());
    fixture.activate(Some("polite")).await.unwrap();
    until("the first program", || {
        numbers(folder.path(), "polite").len() == 1
    })
    .await;
    fixture
        .until("it runs", |status| status.stats.running == [id("polite")])
        .await;
    let environment = std::fs::read_to_string(folder.path().join("polite.env"));
    assert_eq!(environment.unwrap(), "polite yellow\n");
    // Twice is once.
    fixture.start("polite").await;
    // Another one is shown: the first is ended, the second started.
    fixture.activate(Some("deaf")).await.unwrap();
    until("the second program", || {
        numbers(folder.path(), "deaf").len() == 1
    })
    .await;
    let polite = numbers(folder.path(), "polite");
    assert_eq!(polite.len(), 1);
    until("the first one's end", || !is_alive(polite[0])).await;
    // It ignores SIGTERM.
    fixture.stop("deaf").await;
    let deaf = numbers(folder.path(), "deaf")[0];
    until("the second one's end", || !is_alive(deaf)).await;
    let status = fixture
        .until("nothing runs", |status| status.stats.running.is_empty())
        .await;
    assert_eq!(status.stats.active, None);
    service.end().await;
}

#[tokio::test]
async fn programs_inherit_no_variable_that_is_withheld_but_may_be_given_it() {
    assert!(
        std::env::var_os("HOME").is_some(),
        "the test withholds HOME"
    );
    let folder = TempDir::new().unwrap();
    let fixture = Fixture::open().await;
    let script = "echo ${HOME-withheld} ${PATH:+inherited} > $QUINTET_WORKER_ID";
    let spec = |name: &str| ProcessSpec {
        id: id(name),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        directory: Some(folder.path().to_owned()),
        environment: Default::default(),
    };
    let mut given = spec("given");
    let home = ("HOME".to_owned(), "given".to_owned());
    given.environment.extend([home]);
    let processes = vec![spec("plain"), given];
    let service = fixture
        .serve("one", |config| {
            config.processes = processes;
            config.environment = EnvironmentFilter::withhold(["HOME", "QUINTET_WORKER_ID"]);
        })
        .await;
    for (name, wanted) in [
        ("plain", "withheld inherited\n"),
        ("given", "given inherited\n"),
    ] {
        fixture.start(name).await;
        until(name, || {
            let found = std::fs::read_to_string(folder.path().join(name));
            found.is_ok_and(|found| found == wanted)
        })
        .await;
    }
    service.end().await;
}

#[tokio::test]
async fn programs_end_with_their_service_and_are_started_by_the_next() {
    let folder = TempDir::new().unwrap();
    let fixture = Fixture::open().await;
    let first = fixture.serve("first", with(folder.path())).await;
    fixture.start("polite").await;
    fixture.start("deaf").await;
    until("both", || {
        ["polite", "deaf"]
            .iter()
            .all(|name| numbers(folder.path(), name).len() == 1)
    })
    .await;
    fixture.send("polite", frame(1, 1)).await.unwrap();
    first.end().await;
    for name in ["polite", "deaf"] {
        assert!(!is_alive(numbers(folder.path(), name)[0]), "{name}");
    }
    let second = fixture.serve("second", with(folder.path())).await;
    until("both again", || {
        ["polite", "deaf"]
            .iter()
            .all(|name| numbers(folder.path(), name).len() == 2)
    })
    .await;
    second.end().await;
}

#[tokio::test]
async fn a_program_that_dies_is_started_again_while_it_is_the_active_one() {
    let folder = TempDir::new().unwrap();
    let fixture = Fixture::open().await;
    let service = fixture
        .serve("one", |config| {
            config.processes = vec![ProcessSpec {
                id: id("short"),
                command: ["sh", "-c", "echo $$ >> short"].map(str::to_owned).to_vec(),
                directory: Some(folder.path().to_owned()),
                environment: Default::default(),
            }];
        })
        .await;
    fixture.activate(Some("short")).await.unwrap();
    until("three processes", || {
        numbers(folder.path(), "short").len() >= 3
    })
    .await;
    fixture.activate(None).await.unwrap();
    service.end().await;
}
