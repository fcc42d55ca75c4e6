//! The system conforms to `/openapi.json`: schemathesis makes requests from it, good and bad ones, in order
//! and in chains, and compares every answer with what is documented. How it asks is in tests/schemathesis.

use std::process::Stdio;
use std::time::Duration;

use quintet_edge::parse_api_keys;
use quintet_tests::{Plan, Stack, repository};

use crate::python::tool;

/// The key of the run that needs one.
const KEY: &str = "work";
/// Far more than a run takes, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(300);

/// Runs all checks against the system.
async fn check(stack: &Stack, arguments: &[&str]) {
    let mut command = tool("schemathesis");
    command
        .current_dir(repository().join("tests/schemathesis"))
        .args(["run", "--checks", "all", "--no-color"])
        // To delete a run is to cancel it: it can still be read, and so can its checkpoints.
        .args(["--exclude-checks", "use_after_free"])
        // Another name of /runs, with the same handlers; runs_http asks both.
        .args(["--exclude-path-regex", "^/v1/runs"])
        .arg(stack.api.url("/openapi.json"))
        .args(arguments)
        .env("QUINTET_API_KEY", KEY)
        .env("HYPOTHESIS_STORAGE_DIRECTORY", stack.folder.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    let run = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, run)
        .await
        .expect("an end in time")
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_interface_conforms_to_its_document() {
    check(&Stack::start().await, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_keys_the_document_asks_for_one_wherever_one_is_needed() {
    let stack = Stack::with(Plan {
        agents: 0,
        edge: |config| config.api_keys = parse_api_keys(&format!("oz:operator:{KEY}")).unwrap(),
        ..Plan::default()
    })
    .await;
    // One request of each kind shows whether a route asks for its key.
    check(&stack, &["--phases", "coverage"]).await;
}
