//! What programs inherit: nothing of the settings of the process that starts them, whichever kind of work they belong to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use quintet_testkit::wait_for;
use quintet_tests::TIMEOUT;
use serde_json::json;
use tempfile::TempDir;

use crate::program::Program;

const KEY: &str = "a-key-that-no-job-sees";

/// The environment that a program wrote down.
async fn environment(file: &Path) -> BTreeMap<String, String> {
    let what = format!("the environment in {}", file.display());
    let text = wait_for(&what, TIMEOUT, async || {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.ends_with("END=\n").then_some(text)
    });
    let text = text.await.unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[tokio::test]
async fn jobs_commands_of_runs_and_frame_processes_find_no_setting_and_no_secret() {
    let folder = TempDir::new().unwrap();
    let script = |name: &str| {
        let file = folder.path().join(name);
        format!("(printenv; echo END=) > {}", file.display())
    };
    let process = json!({
        "processes": [{"id": "drawer", "command": ["sh", "-c", script("frames")], "environment": {"HOST": "display"}}],
    });
    let frames_config = folder.path().join("frames.yaml");
    fs::write(&frames_config, process.to_string()).unwrap();
    let program = Program::start(&[
        ("ORCHESTRATOR_API_KEY", KEY),
        ("AGENT_TOKEN", "a-token"),
        ("NATS_PASSWORD", "a-password"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret"),
        ("QUINTET_TOKEN", KEY),
        ("LOG_LEVEL", "info"),
        ("RATE_LIMIT_MAX", "0"),
        ("AGENT_ENV", "RATE_LIMIT_MAX"),
        ("NOT_A_SETTING", "inherited"),
        ("FRAMES_CONFIG", frames_config.to_str().unwrap()),
    ])
    .await;
    let job =
        json!({"inlineConfig": {"command": script("job"), "shell": true, "env": {"HOST": "job"}}});
    program.api.submit(job).await;
    let node = json!({
        "id": "node", "kind": "command", "command": ["sh", "-c", script("run")], "env": {"HOST": "node"},
    });
    let run = json!({"plan": {"nodes": [node]}});
    program.api.post("/v1/runs", run).await.expect(201);
    program.api.order("/workers/drawer/start").await.expect(204);
    for (name, host) in [("job", "job"), ("run", "node"), ("frames", "display")] {
        let found = environment(&folder.path().join(name)).await;
        let secrets = [KEY, "a-token", "a-password", "authorization=secret"];
        let seen = found
            .iter()
            .find(|(_, value)| secrets.contains(&value.as_str()));
        assert_eq!(seen, None, "{name}");
        for setting in ["LOG_LEVEL", "FRAMES_CONFIG", "AGENT_ENV", "AGENT_ID"] {
            assert_eq!(found.get(setting), None, "{name}");
        }
        let value = |variable: &str| found.get(variable).map(String::as_str);
        assert_eq!(value("NOT_A_SETTING"), Some("inherited"), "{name}");
        assert_eq!(
            value("RATE_LIMIT_MAX"),
            Some("0"),
            "{name}: it is let through"
        );
        assert_eq!(value("HOST"), Some(host), "{name}: its own");
    }
}
