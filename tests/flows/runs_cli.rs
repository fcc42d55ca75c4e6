//! `quintet runs` against a whole system: its output and its exit codes.

use std::process::Command;

use quintet_tests::{binary, run_to_end};
use serde_json::{Value, json};

use crate::program::Program;

/// A command of the client with something on its standard input: its exit code, and what it printed.
async fn quintet(program: &Program, arguments: &[&str], input: Value) -> (i32, String, String) {
    let mut command = Command::new(binary());
    command
        .args(["--url", &program.api.url(""), "runs"])
        .args(arguments);
    let output = run_to_end(command, input.to_string().as_bytes()).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn runs_are_planned_made_watched_and_tried_again_from_the_command_line() {
    let program = Program::start(&[("RATE_LIMIT_MAX", "0")]).await;
    let bad = json!({"nodes": [{"id": "a", "kind": "dance"}, {"id": "a", "kind": "gate", "needs": ["x"]}]});
    for verb in ["plan", "create"] {
        let (code, out, err) = quintet(&program, &[verb, "-"], bad.clone()).await;
        assert_eq!((code, out.as_str()), (4, ""), "{err}");
        let lines: Vec<&str> = err.lines().collect();
        for path in [
            "  nodes[0].kind: ",
            "  nodes[1].id: ",
            "  nodes[1].needs[0]: ",
        ] {
            let printed = lines.iter().filter(|line| line.starts_with(path)).count();
            assert_eq!(printed, 1, "{path} in {err}");
        }
    }
    // It fails until the file is there.
    let file = program.folder.path().join("there");
    let plan = json!({"nodes": [
        {"id": "first", "kind": "command", "command": ["echo", "{\"type\": \"output\", \"x\": {{inputs.x}}}"]},
        {"id": "second", "kind": "command", "needs": ["first"], "command": ["test", "-e", file]},
    ]});
    let (code, out, err) = quintet(&program, &["plan", "-"], plan.clone()).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("longest path  first → second"), "{out}");
    let arguments = ["create", "-", "--input", "x=7", "--name", "two", "--watch"];
    let (code, out, err) = quintet(&program, &arguments, plan).await;
    assert!(code == 1 && err.contains(" failed: "), "{code} {err}");
    let events: Vec<&str> = out.lines().map(|line| &line[26..]).collect();
    for event in [
        "first        output {\"x\":7}",
        "first        succeeded",
        "second       running",
    ] {
        assert!(events.contains(&event), "{event} in {out}");
    }
    let (_, out, _) = quintet(&program, &["list", "--output", "json"], Value::Null).await;
    let list: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(list["runs"][0]["name"], "two");
    let id = list["runs"][0]["id"].as_str().unwrap();
    std::fs::write(file, "").unwrap();
    let (code, out, err) = quintet(&program, &["retry", id, "--watch"], Value::Null).await;
    assert_eq!(code, 0, "{err}");
    assert!(!out.contains("first        running"), "done again: {out}");

    let (code, id, err) = quintet(&program, &["create", "--owner", "me"], Value::Null).await;
    assert_eq!(code, 0, "{err}");
    let arguments = ["checkpoint", &id, "half", "--data", "{\"n\": 1}"];
    let (code, _, err) = quintet(&program, &arguments, Value::Null).await;
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = quintet(&program, &["cancel", &id], Value::Null).await;
    assert_eq!((code, out), (0, format!("canceled {id}")), "{err}");
    let (code, _, err) = quintet(&program, &["cancel", &id], Value::Null).await;
    assert!(
        code == 4 && err.contains("what is canceled cannot become canceled"),
        "{err}"
    );
    let (code, out, err) = quintet(&program, &["watch", &id], Value::Null).await;
    assert!(code == 1 && err.contains("was canceled"), "{code} {err}");
    assert!(out.contains("checkpoint half {\"n\":1}"), "{out}");
    let unknown = "01a1febe-0000-7381-8b1c-4a0907021094";
    let (code, _, err) = quintet(&program, &["get", unknown], Value::Null).await;
    assert!(code == 3 && err.contains("run not found"), "{code} {err}");
}
