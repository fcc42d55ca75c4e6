//! What a run worker survives, and what it ends: cancels, its own death, silence of the owner, and its drain.

use std::path::Path;
use std::time::{Duration, Instant};

use quintet_contract::task::{WorkerEvent, command_queue};
use quintet_testkit::wait_for;
use serde_json::json;

use super::owner::{Fixture, TIMEOUT};

/// Whether a process exists and is no zombie.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next();
    let state = state.and_then(|rest| rest.trim().chars().next());
    state.is_some_and(|state| state != 'Z')
}

async fn read_pid(path: &Path) -> String {
    let what = format!("a pid in {}", path.display());
    let pid = wait_for(&what, TIMEOUT, async || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.strip_suffix('\n').map(str::to_owned)
    });
    pid.await.unwrap()
}

async fn gone(pid: &str) {
    let what = format!("the end of process {pid}");
    wait_for(&what, TIMEOUT, async || !is_alive(pid))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_cancel_ends_a_program_within_a_second_with_a_child_that_ignores_it() {
    let fixture = Fixture::start().await;
    let worker = fixture.worker("w").await;
    let pids = fixture.folder.path().join("pid");
    let script = format!(
        "trap '' TERM; sh -c \"trap '' TERM; sleep 1000\" & echo $! > {}; echo up; wait; sleep 1000",
        pids.display()
    );
    let run = fixture.shell("n", &script).await;
    fixture.logged("n", "up").await;
    let child = read_pid(&pids).await;
    assert!(is_alive(&child));
    fixture.cancel(&worker, run, "n", 2).await;
    fixture.cancel(&worker, run, "other", 1).await;
    let begun = Instant::now();
    fixture.cancel(&worker, run, "n", 1).await;
    gone(&child).await;
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        fixture.ended("n").await,
        Some(("it was canceled".to_owned(), false))
    );
    fixture.until_empty(&command_queue()).await;
}

#[tokio::test]
async fn a_program_that_handles_the_signal_ends_at_once_and_may_print_something_first() {
    let fixture = Fixture::start().await;
    let worker = fixture.worker("w").await;
    let script = r#"
        trap 'echo "{\"type\":\"checkpoint\",\"data\":7}"; exit 0' TERM
        echo up; while :; do sleep 0.05; done
    "#;
    let run = fixture.shell("n", script).await;
    fixture.logged("n", "up").await;
    fixture.cancel(&worker, run, "n", 1).await;
    // It exited with success, but no test waits for that.
    assert_eq!(
        fixture.ended("n").await,
        Some(("it was canceled".to_owned(), false))
    );
    let checkpoint = (
        1,
        WorkerEvent::Checkpoint {
            name: None,
            data: Some(json!(7)),
        },
    );
    assert!(fixture.facts("n").contains(&checkpoint));
}

#[tokio::test]
async fn a_task_that_is_no_longer_wanted_is_ended_when_any_report_of_it_is_answered_so() {
    let fixture = Fixture::start().await;
    let _worker = fixture.worker("w").await;
    let pids = fixture.folder.path().join("pid");
    let script = format!("echo $$ > {}; sleep 1000", pids.display());
    let argv = json!({"argv": ["sh", "-c", script]});
    let task = fixture.task("n", command_queue(), Some(300), |task| {
        task.command = Some(serde_json::from_value(argv).unwrap());
    });
    task.await;
    let pid = read_pid(&pids).await;
    fixture.end("n");
    gone(&pid).await;
    fixture.until_empty(&command_queue()).await;
    assert!(fixture.facts("n").is_empty());
    // A task of a node that has ended is not even begun.
    fixture.shell("late", "echo ran").await;
    fixture.ended("late").await;
    let ran = fixture.log("late").len();
    assert_eq!(ran, 1);
}

const COUNT_TO_FOUR: &str = r#"
    step=${RESUME_STATE:-0}
    echo "attempt $ATTEMPT from $step"
    while [ $step -lt 4 ]; do
        step=$((step + 1)); echo "{\"type\":\"checkpoint\",\"data\":$step}"
        [ $step != 2 ] || [ $ATTEMPT != 1 ] || sleep 1000
    done
    echo "{\"type\":\"output\",\"steps\":$step}"
"#;

#[tokio::test]
async fn the_task_of_a_worker_that_died_goes_on_elsewhere_from_its_last_checkpoint() {
    let fixture = Fixture::start().await;
    let first = fixture.worker("first").await;
    fixture.shell("n", COUNT_TO_FOUR).await;
    let two = |(_, event): &(u32, WorkerEvent)| matches!(event, WorkerEvent::Checkpoint { data: Some(data), .. } if *data == json!(2));
    wait_for("the second checkpoint", TIMEOUT, async || {
        fixture.facts("n").iter().any(two)
    })
    .await
    .unwrap();
    first.kill().await;
    let _second = fixture.worker("second").await;
    assert_eq!(fixture.ended("n").await, None);
    let lines: Vec<_> = fixture.log("n").into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines, ["attempt 1 from 0", "attempt 2 from 2"]);
    let steps = fixture
        .facts("n")
        .into_iter()
        .filter_map(|(attempt, event)| match event {
            WorkerEvent::Checkpoint { data, .. } => Some((attempt, data?.as_i64()?)),
            _ => None,
        });
    assert_eq!(steps.collect::<Vec<_>>(), [(1, 1), (1, 2), (2, 3), (2, 4)]);
    assert_eq!(fixture.output("n")["steps"], 4);
    fixture.until_empty(&command_queue()).await;
}

#[tokio::test]
async fn a_worker_that_is_asked_to_leave_gives_its_tasks_back_without_a_failure() {
    let fixture = Fixture::start().await;
    let mut config = fixture.config("first");
    // No worker would get the task for a long time if it were not returned to the queue.
    config.task_ack_wait = Duration::from_secs(120);
    config.drain_grace = Duration::from_secs(1);
    let first = fixture.worker_with(config.clone()).await;
    fixture.shell("long", COUNT_TO_FOUR).await;
    fixture.shell("short", "echo up; sleep 0.5; echo end").await;
    fixture.logged("long", "attempt 1").await;
    fixture.logged("short", "up").await;
    first.shut_down().await;
    // What ends within the grace is not begun again.
    assert_eq!(fixture.ended("short").await, None);
    assert_eq!(fixture.attempt("short"), 1);
    config.worker = fixture.config("second").worker;
    let _second = fixture.worker_with(config).await;
    assert_eq!(fixture.ended("long").await, None);
    assert_eq!(
        (
            fixture.attempt("long"),
            fixture.output("long")["steps"].as_i64()
        ),
        (2, Some(4))
    );
    let failed = |event: &WorkerEvent| matches!(event, WorkerEvent::Failed { .. });
    assert_eq!(fixture.received("long", failed), 0);
    fixture.until_empty(&command_queue()).await;
}

#[tokio::test]
async fn reports_are_repeated_until_the_owner_answers_and_count_once() {
    let mut fixture = Fixture::start().await;
    fixture.fall_silent().await;
    let _worker = fixture.worker("w").await;
    // The program ends once the test has seen its checkpoint and lets no answer through.
    let folder = tempfile::tempdir().unwrap();
    let may_end = folder.path().join("may-end");
    let script = format!(
        r#"echo '{{"type":"checkpoint","data":1}}'; echo '{{"type":"output","a":1}}'; until [ -e {} ]; do sleep 0.02; done"#,
        may_end.display()
    );
    fixture.shell("n", &script).await;
    let taken = wait_for("a worker that has the task", TIMEOUT, async || {
        let state = fixture.bus.queue_state(&command_queue()).await.unwrap();
        state.is_some_and(|state| state.ack_pending == 1)
    });
    taken.await.unwrap();
    // Now everything is stored, but no answer arrives.
    fixture.lose_answers(true);
    fixture.speak_again().await;
    let takes = |event: &WorkerEvent| matches!(event, WorkerEvent::Take { .. });
    wait_for("a repeated report", TIMEOUT, async || {
        fixture.received("n", takes) >= 2
    })
    .await
    .unwrap();
    assert_eq!(fixture.attempt("n"), 1, "a repeated take begins no attempt");
    fixture.lose_answers(false);
    let checkpoints = |event: &WorkerEvent| matches!(event, WorkerEvent::Checkpoint { .. });
    wait_for("a checkpoint", TIMEOUT, async || {
        fixture.received("n", checkpoints) >= 1
    })
    .await
    .unwrap();
    fixture.lose_answers(true);
    std::fs::write(&may_end, "").unwrap();
    let ends = |event: &WorkerEvent| matches!(event, WorkerEvent::Succeeded { .. });
    wait_for("a repeated end", TIMEOUT, async || {
        fixture.received("n", ends) >= 2
    })
    .await
    .unwrap();
    fixture.lose_answers(false);
    fixture.until_empty(&command_queue()).await;
    let facts: Vec<_> = fixture.facts("n");
    assert_eq!(facts.len(), 3, "{facts:?}");
}

#[tokio::test]
async fn a_program_goes_on_while_the_owner_is_silent_and_none_of_its_events_is_lost() {
    let mut fixture = Fixture::start().await;
    let _worker = fixture.worker("w").await;
    let flag = fixture.folder.path().join("go");
    let script = format!(
        r#"echo up; until [ -e {} ]; do sleep 0.02; done
           for n in 1 2 3 4 5; do echo "{{\"type\":\"checkpoint\",\"data\":$n}}"; done"#,
        flag.display()
    );
    fixture.shell("n", &script).await;
    fixture.logged("n", "up").await;
    fixture.fall_silent().await;
    std::fs::write(&flag, "").unwrap();
    let over = wait_for("the end of the program", TIMEOUT, async || {
        // Its folder is removed when it has ended and everything is handed over.
        let root = fixture.folder.path().join("runs/w");
        let left = std::fs::read_dir(root).unwrap().flatten().count();
        (left == 1).then_some(()).ok_or(format!("{left} entries"))
    });
    over.await.unwrap();
    fixture.speak_again().await;
    assert_eq!(fixture.ended("n").await, None);
    let checkpoint = |event: &WorkerEvent| matches!(event, WorkerEvent::Checkpoint { .. });
    let stored = fixture
        .facts("n")
        .into_iter()
        .filter(|(_, event)| checkpoint(event));
    assert_eq!(stored.count(), 5);
}
