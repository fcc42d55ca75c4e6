//! The bus as operators use it: requests in JSON, the buckets, the services, and programs in other languages.

use std::process::Command;
use std::time::Duration;

use futures::StreamExt;
use quintet_contract::api::{ListAgents, ListJobs};
use quintet_contract::id::PoolName;
use quintet_contract::subject::{ListAgentsOf, ListJobsOf};
use quintet_testkit::nats::Backend;
use quintet_testkit::{Nats, Process, wait_for};
use quintet_tests::{Plan, Stack, TIMEOUT, repository, run_to_end};
use serde_json::{Value, json};

use crate::python::tool;

/// Runs a Python program against the stack to its end and returns what it printed.
async fn run_python(
    program: &'static str,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
) -> String {
    let mut command = tool("python3");
    command
        .arg(repository().join(program))
        .args(arguments)
        .envs(environment);
    printed(command).await
}

/// What a program printed that ended well.
async fn printed(command: Command) -> String {
    let shown = format!("{command:?}");
    let output = run_to_end(command, &[]).await;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{shown}: {out}{err}");
    out.into_owned()
}

#[tokio::test]
async fn a_second_client_sees_services_buckets_and_gets_json_for_json() {
    let stack = Stack::start().await;
    let id = stack.api.submit_noop().await;
    stack.api.until(&id, "RUNNING").await;
    // Written with the official Python client, which shares no code with ours.
    let out = run_python(
        "tests/examples/look.py",
        vec![id.clone()],
        vec![("NATS_URL", stack.nats.url())],
    )
    .await;
    let seen: Value = serde_json::from_str(&out).unwrap();
    let services = seen["services"].as_array().unwrap();
    for name in ["jobs", "agents", "templates"] {
        assert!(services.contains(&json!(name)), "{seen}");
    }
    assert!(
        seen["endpoints"]
            .as_array()
            .unwrap()
            .contains(&json!("quintet.svc.jobs.submit")),
        "{seen}"
    );
    for bucket in [
        "quintet_jobs",
        "quintet_agents",
        "quintet_templates",
        "quintet_keys",
        "quintet_leases",
    ] {
        assert!(
            seen["buckets"].as_array().unwrap().contains(&json!(bucket)),
            "{seen}"
        );
    }
    assert!(
        seen["keys"].as_array().unwrap().contains(&json!(id)),
        "{seen}"
    );
    assert_eq!(seen["got"]["job"]["id"], json!(id));
    let submitted = seen["submitted"]["job"]["id"].as_str().unwrap();
    stack.api.until(submitted, "STOPPED").await;
    assert_eq!(
        (&seen["missing"]["code"], &seen["missing"]["retry"]),
        (&json!("NOT_FOUND"), &json!("never"))
    );
    assert_eq!(seen["malformed"]["code"], "BAD_REQUEST");
}

/// What the `nats` CLI prints when it is run with these arguments against the stack.
async fn nats_cli(stack: &Stack, arguments: &[&str]) -> String {
    let program = repository().join(".tools/bin/nats");
    assert!(
        program.exists(),
        "{} is missing; `make setup` builds it",
        program.display()
    );
    let mut command = Command::new(program);
    command
        .args(["--server", &stack.nats.url()])
        .args(arguments);
    printed(command).await
}

#[tokio::test]
async fn the_nats_cli_works_against_it() {
    let stack = Stack::start().await;
    let id = stack.api.submit_noop().await;
    stack.api.until(&id, "RUNNING").await;
    let services = nats_cli(&stack, &["micro", "ls"]).await;
    assert!(
        services.contains("jobs") && services.contains("templates"),
        "{services}"
    );
    assert!(
        nats_cli(&stack, &["kv", "ls"])
            .await
            .contains("quintet_jobs")
    );
    let translate = format!("{} decode", quintet_tests::binary().display());
    let heartbeat = nats_cli(
        &stack,
        &[
            "sub",
            "quintet.hb.agent.>",
            "--count",
            "1",
            "--raw",
            "--translate",
            &translate,
        ],
    )
    .await;
    assert!(heartbeat.contains(&id), "{heartbeat}");
    let request = json!({"id": id}).to_string();
    let answer = nats_cli(
        &stack,
        &["request", "--raw", "quintet.svc.jobs.get", &request],
    )
    .await;
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap()["job"]["id"],
        json!(id)
    );
}

#[tokio::test]
async fn a_system_runs_on_nats_in_a_container() {
    let stack = Stack::with(Plan {
        nats: || Nats::options().backend(Backend::Docker),
        ..Plan::default()
    })
    .await;
    let id = stack.api.submit_noop().await;
    stack.api.until(&id, "RUNNING").await;
}

#[tokio::test]
async fn requests_on_the_bus_see_what_the_edge_sees() {
    let stack = Stack::start().await;
    let id = stack.api.submit_noop().await;
    stack.api.until(&id, "RUNNING").await;
    let bus = stack.bus().await;
    let pool = PoolName::default;
    let jobs = bus
        .request_until(&ListJobsOf { pool: pool() }, &ListJobs::default(), TIMEOUT)
        .await
        .unwrap();
    assert_eq!(jobs.jobs[0].id.as_str(), id);
    let agents = bus
        .request_until(
            &ListAgentsOf { pool: pool() },
            &ListAgents::default(),
            TIMEOUT,
        )
        .await
        .unwrap();
    assert_eq!(agents.agents[0].id.as_str(), "agent-1");
    let mut heartbeats = bus
        .subscribe::<quintet_contract::subject::AgentHeartbeat>("quintet.hb.agent.>".to_owned())
        .await
        .unwrap();
    let heartbeat = tokio::time::timeout(Duration::from_secs(10), heartbeats.next())
        .await
        .unwrap()
        .unwrap();
    let listed: Vec<String> = heartbeat
        .message
        .jobs
        .unwrap()
        .into_iter()
        .map(|job| job.job_id.to_string())
        .collect();
    assert_eq!(listed, [id]);
}

#[tokio::test]
async fn the_python_agent_on_the_bus_runs_jobs() {
    let stack = Stack::without_agents().await;
    let mut agent = tool("python3");
    agent
        .arg(repository().join("tests/examples/agent_nats.py"))
        .args(["--jobs", "2"]);
    agent
        .env("NATS_URL", stack.nats.url())
        .env("AGENT_ID", "python");
    serve_two(&stack, agent).await;
}

#[tokio::test]
async fn the_python_agent_on_a_websocket_runs_jobs() {
    let stack = Stack::without_agents().await;
    let mut agent = tool("python3");
    agent
        .arg(repository().join("tests/examples/agent_websocket.py"))
        .args(["--jobs", "2"]);
    agent
        .env("QUINTET_URL", stack.api.url(""))
        .env("AGENT_TOKEN", "dev-shared-token")
        .env("AGENT_ID", "python");
    serve_two(&stack, agent).await;
}

/// Starts an agent that leaves after two jobs, and gives it two jobs.
async fn serve_two(stack: &Stack, agent: Command) {
    let mut agent = Process::spawn(agent).unwrap();
    for _ in 0..2 {
        let id = stack
            .api
            .submit(json!({"inlineConfig": {"greet": "you"}}))
            .await["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let job = stack.api.until(&id, "STOPPED").await;
        assert_eq!(job["agentId"], "python");
        assert!(stack.api.story(&id).await.contains(&"RUNNING".to_owned()));
    }
    let left = wait_for("the agent to leave", TIMEOUT, async || {
        match agent.exited().unwrap() {
            Some(status) => Ok(status),
            None => Err("it runs"),
        }
    });
    assert!(left.await.unwrap().success());
}
