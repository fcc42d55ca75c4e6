//! Programs of nodes: their input, their output, and how they end.

use std::path::Path;

use quintet_contract::event::{LogStream, MAX_LOG_LINE_BYTES};
use quintet_contract::task::{WorkerEvent, command_queue};
use quintet_worker::process::EnvironmentFilter;
use serde_json::{Value, json};

use super::owner::{Fixture, node};

#[tokio::test]
async fn a_program_is_given_its_task_in_variables_and_files_and_a_folder_of_its_own() {
    let fixture = Fixture::start().await;
    let _worker = fixture.worker("w").await;
    let script = r#"
        echo hello > file; pwd
        printf '{"type":"output","spec":%s,"context":%s,"attempt":"%s","node":"%s","resume":"%s","extra":"%s"}\n' \
            "$(cat $INPUT_SPEC_FILE)" "$INPUT_CONTEXT" "$ATTEMPT" "$NODE_ID" "${RESUME_STATE-none}" "$EXTRA"
    "#;
    let run = fixture.shell_with("n", script, |task| {
        task.input = Some(json!({"epochs": 3}));
        task.inputs = json!({"lr": 0.5}).as_object().cloned().unwrap();
        task.context = json!({"load": {"rows": 9}}).as_object().cloned().unwrap();
        let env = &mut task.command.as_mut().unwrap().env;
        env.insert("EXTRA".to_owned(), "more".to_owned());
        env.insert("ATTEMPT".to_owned(), "77".to_owned());
    });
    run.await;
    assert_eq!(fixture.ended("n").await, None);
    let output = Value::Object(fixture.output("n"));
    assert_eq!(output["spec"]["input"], json!({"epochs": 3}));
    assert_eq!(output["spec"]["command"]["argv"][0], "sh");
    let context = json!({"inputs": {"lr": 0.5}, "context": {"load": {"rows": 9}}});
    assert_eq!(output["context"], context);
    let context = [&output["attempt"], &output["node"], &output["resume"]];
    assert_eq!(context, [&json!("1"), &json!("n"), &json!("none")]);
    assert_eq!(output["extra"], "more");
    fixture.until_empty(&command_queue()).await;
    let folder = fixture.log("n").remove(0).1;
    assert!(folder.ends_with("/work") && !Path::new(&folder).exists());
}

#[tokio::test]
async fn a_program_inherits_no_variable_that_is_withheld_but_its_node_may_set_it() {
    assert!(
        std::env::var_os("HOME").is_some(),
        "the test withholds HOME"
    );
    let fixture = Fixture::start().await;
    let mut config = fixture.config("w");
    config.environment = EnvironmentFilter::withhold(["HOME", "NODE_ID"]);
    let _worker = fixture.worker_with(config).await;
    let script = "echo ${HOME-withheld} ${PATH:+inherited} $NODE_ID";
    fixture.shell("plain", script).await;
    assert_eq!(fixture.ended("plain").await, None);
    assert_eq!(fixture.log("plain")[0].1, "withheld inherited plain");
    let own = fixture.shell_with("own", script, |task| {
        let env = &mut task.command.as_mut().unwrap().env;
        env.insert("HOME".to_owned(), "own".to_owned());
    });
    own.await;
    assert_eq!(fixture.ended("own").await, None);
    assert_eq!(fixture.log("own")[0].1, "own inherited own");
}

#[tokio::test]
async fn an_input_that_is_too_long_for_a_variable_is_in_its_file() {
    let fixture = Fixture::start().await;
    let _worker = fixture.worker("w").await;
    let script = r#"echo "${INPUT_SPEC-absent}"; wc -c < "$INPUT_SPEC_FILE""#;
    let large = "x".repeat(300_000);
    let task = fixture.shell_with("n", script, |task| task.input = Some(json!(large)));
    task.await;
    assert_eq!(fixture.ended("n").await, None);
    let log = fixture.log("n");
    assert_eq!(log[0].1, "absent");
    assert!(
        log[1].1.trim().parse::<usize>().unwrap() > 300_000,
        "{log:?}"
    );
}

#[tokio::test]
async fn the_exit_code_decides_the_outcome() {
    let fixture = Fixture::start().await;
    let _worker = fixture.worker("w").await;
    let cases = [
        ("zero", "echo fine >&2; exit 0", None),
        (
            "one",
            "echo first >&2; echo no disk >&2; echo; exit 1",
            Some((
                "the program exited with status 1; its last line: no disk",
                false,
            )),
        ),
        (
            "three",
            "exit 3",
            Some(("the program exited with status 3", true)),
        ),
        (
            "signal",
            "kill -9 $$",
            Some(("the program was killed by signal 9", false)),
        ),
        (
            "error",
            r#"echo '{"type":"error","message":"the model is away","retryable":true}'; exit 1"#,
            Some(("the model is away", true)),
        ),
        (
            "final",
            r#"echo '{"type":"error","data":{"error":"no such model","retryable":false}}'; exit 3"#,
            Some(("no such model", false)),
        ),
    ];
    for (name, script, _) in cases {
        fixture.shell(name, script).await;
    }
    for (name, _, wanted) in cases {
        let wanted = wanted.map(|(error, retryable)| (error.to_owned(), retryable));
        assert_eq!(fixture.ended(name).await, wanted, "{name}");
    }
    let task = fixture.shell_with("missing", "", |task| {
        task.command.as_mut().unwrap().argv = vec!["/no/such/program".to_owned()];
    });
    task.await;
    let (error, retryable) = fixture.ended("missing").await.unwrap();
    assert!(
        error.starts_with("cannot start /no/such/program: "),
        "{error}"
    );
    assert!(!retryable);
    let task = fixture.shell_with("empty", "", |task| task.command = None);
    task.await;
    let (error, _) = fixture.ended("empty").await.unwrap();
    assert_eq!(error, "the task names no program to start");
    fixture.until_empty(&command_queue()).await;
}

#[tokio::test]
async fn events_of_a_program_are_reported_in_order_and_everything_else_is_its_log() {
    let fixture = Fixture::start().await;
    let _worker = fixture.worker("w").await;
    let script = r#"
        echo plain
        echo '{"type":"checkpoint","name":"half","data":{"step":1}}'
        echo '{"type":"progress","percent":50}'
        echo '{"type":"output","data":{"rows":5}}'
        echo '{"type":"heartbeat"}'
        echo '{"type":"log","message":"hello","level":"error"}'
        echo '{"type":"dance"}'
        echo '{"type":"checkpoint","step":2}'
        echo '{"type":'
        printf '\377\376 garbage \000\n'
        printf 'no line end'
    "#;
    fixture.shell("n", script).await;
    assert_eq!(fixture.ended("n").await, None);
    let object = |value: Value| value.as_object().cloned().unwrap();
    let log = |stream, line: &str| WorkerEvent::Log {
        stream,
        line: line.to_owned(),
    };
    let out = LogStream::Stdout;
    let wanted = vec![
        log(out, "plain"),
        WorkerEvent::Checkpoint {
            name: Some("half".to_owned()),
            data: Some(json!({"step": 1})),
        },
        WorkerEvent::Progress {
            data: object(json!({"percent": 50})),
        },
        WorkerEvent::Output {
            data: object(json!({"rows": 5})),
        },
        log(LogStream::Stderr, "hello"),
        log(out, r#"{"type":"dance"}"#),
        WorkerEvent::Checkpoint {
            name: None,
            data: Some(json!({"step": 2})),
        },
        log(out, r#"{"type":"#),
        log(out, "\u{fffd}\u{fffd} garbage \0"),
        log(out, "no line end"),
        WorkerEvent::Succeeded { output: None },
    ];
    let facts = fixture.facts("n").into_iter().map(|(_, event)| event);
    assert_eq!(facts.collect::<Vec<_>>(), wanted);
}

#[tokio::test]
async fn output_without_end_is_bounded_and_dropped_lines_are_reported() {
    let fixture = Fixture::start().await;
    let _worker = fixture.worker("w").await;
    let before = resident();
    fixture
        .shell(
            "wide",
            r#"head -c 100000000 /dev/zero | tr '\0' x; echo; head -c 20000 /dev/zero | tr '\0' y; echo
               head -c 100000000 /dev/urandom | tr -d '\n\r'; echo; echo done"#,
        )
        .await;
    assert_eq!(fixture.ended("wide").await, None);
    let log = fixture.log("wide");
    assert_eq!(log[0].1, "a line of 100000000 bytes was dropped");
    assert_eq!(log[0].0, LogStream::Agent);
    assert_eq!(log[1].1, "y".repeat(MAX_LOG_LINE_BYTES));
    assert!(log[2].1.ends_with(" bytes was dropped"), "{log:?}");
    assert_eq!(log[3].1, "done");
    fixture
        .shell(
            "long",
            "yes line | head -n 1000000; echo '{\"type\":\"output\",\"end\":true}'",
        )
        .await;
    assert_eq!(fixture.ended("long").await, None);
    assert_eq!(fixture.output("long")["end"], true);
    let kept = fixture.log("long").len();
    assert!((500..15_000).contains(&kept), "kept {kept} lines");
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 * 1024, "grew by {grown} KiB");
}

/// Memory of this process in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_large_checkpoint_travels_whole_and_one_beyond_the_limit_is_refused_in_the_log() {
    let fixture = Fixture::start().await;
    let _worker = fixture.worker("w").await;
    let script = r#"
        put() { printf '{"type":"checkpoint","data":"'; head -c $1 /dev/zero | tr '\0' x; printf '"}\n'; }
        put 900000; put 5000000; put 1048500; echo '{"type":"checkpoint","data":1}'
    "#;
    fixture.shell("n", script).await;
    assert_eq!(fixture.ended("n").await, None);
    let facts = fixture.facts("n");
    let lengths = facts.iter().filter_map(|(_, event)| match event {
        WorkerEvent::Checkpoint { data, .. } => Some(data.as_ref()?.as_str().map(str::len)),
        _ => None,
    });
    let lengths: Vec<_> = lengths.collect();
    assert_eq!(lengths, [Some(900_000), None], "{:?}", fixture.log("n"));
    let log = fixture.log("n");
    assert!(
        log.iter()
            .any(|(_, line)| line.starts_with("a line of 50000")),
        "{log:?}"
    );
    assert!(
        log.iter()
            .any(|(_, line)| line.contains("larger than the bus takes")),
        "{log:?}"
    );
}

#[tokio::test]
async fn the_worker_sends_heartbeats_for_a_silent_program() {
    let fixture = Fixture::start().await;
    let _worker = fixture.worker("w").await;
    let sleep = json!({"argv": ["sleep", "4"]});
    let task = fixture.task("n", command_queue(), Some(600), |task| {
        task.command = Some(serde_json::from_value(sleep).unwrap());
    });
    task.await;
    // It takes four times the acknowledgement time: the task is not redelivered.
    assert_eq!(fixture.ended("n").await, None);
    let beats = fixture.received("n", |event| matches!(event, WorkerEvent::Heartbeat));
    assert!(beats >= 8, "{beats} heartbeats");
    assert_eq!(fixture.attempt("n"), 1);
    assert_eq!(fixture.facts("n").len(), 1, "{}", node("n"));
}
