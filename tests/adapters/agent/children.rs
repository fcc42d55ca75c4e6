//! Programs as jobs: their output, their end, and everything that they started.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use quintet_agent::{AgentConfig, Error, Executor, run};
use quintet_bus::new_session;
use quintet_contract::agent::{AgentCommand, AgentSettings};
use quintet_contract::bucket::LeaseKey;
use quintet_contract::event::{LogStream, MAX_LOG_LINE_BYTES};
use quintet_contract::id::{HolderId, PoolName};
use quintet_testkit::wait_for;
use quintet_worker::process::EnvironmentFilter;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::owner::{Fixture, TIMEOUT, agent_id, connect};

const SHELL_WITH_GRANDCHILD: &str =
    "trap '' TERM; sleep 1000 & echo $! > grandchild; echo up; wait; sleep 1000";

fn shell(script: &str) -> Value {
    json!({"command": script, "shell": true})
}

/// Whether a process exists and is no zombie.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim().chars().next());
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
async fn a_program_runs_with_its_environment_and_folder_and_its_output_is_kept() {
    let mut fixture = Fixture::start().await;
    std::fs::create_dir(fixture.folder.path().join("sub")).unwrap();
    let config = json!({
        "command": ["sh", "-c", "pwd; echo $GREETING; echo oops >&2"], "env": {"GREETING": "hello"}, "cwd": "sub",
    });
    fixture.offer("j", config).await;
    assert_eq!(fixture.end("j").await, None);
    assert_eq!(
        fixture.story("j"),
        ["accepted true", "STARTING", "RUNNING", "STOPPED"]
    );
    // The log is complete when the end is known.
    let log = fixture.log("j").await;
    let of = |stream| {
        log.iter()
            .filter(|(from, _)| *from == stream)
            .map(|(_, line)| line.as_str())
            .collect::<Vec<_>>()
    };
    let [folder, greeting] = of(LogStream::Stdout)[..] else {
        panic!("{log:?}")
    };
    assert!(folder.ends_with("/sub"), "{folder}");
    assert_eq!(
        (greeting, &of(LogStream::Stderr)[..]),
        ("hello", &["oops"][..])
    );
    fixture.shut_down().await.unwrap();
    assert!(fixture.heard_goodbye());
}

#[tokio::test]
async fn a_program_inherits_no_variable_that_is_withheld_but_may_set_it_itself() {
    assert!(
        std::env::var_os("HOME").is_some(),
        "the test withholds HOME"
    );
    let fixture = Fixture::with(AgentSettings::default(), |config| {
        config.environment = EnvironmentFilter::withhold(["HOME"]);
    })
    .await;
    let script = "echo ${HOME-withheld}; echo ${PATH:+inherited}";
    fixture.offer("plain", shell(script)).await;
    assert_eq!(fixture.end("plain").await, None);
    fixture.logged("plain", "withheld").await;
    fixture.logged("plain", "inherited").await;
    let own = json!({"command": script, "shell": true, "env": {"HOME": "its own"}});
    fixture.offer("own", own).await;
    assert_eq!(fixture.end("own").await, None);
    fixture.logged("own", "its own").await;
}

#[tokio::test]
async fn an_agent_refuses_executors_that_it_may_not_run() {
    let fixture = Fixture::with(AgentSettings::default(), |config| {
        config.executors = [Executor::Noop].into();
    })
    .await;
    fixture.offer("program", shell("echo hi")).await;
    let refusal = "refused: this agent may not run the executor exec, only noop";
    fixture.until("program", refusal).await;
    fixture.offer("nothing", json!({"durationMs": 1})).await;
    assert_eq!(fixture.end("nothing").await, None);
}

#[tokio::test]
async fn a_failure_reports_the_exit_and_the_last_lines() {
    let fixture = Fixture::start().await;
    fixture
        .offer("status", shell("echo first; echo last words >&2; exit 3"))
        .await;
    let error = fixture.end("status").await.unwrap();
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("EXIT_STATUS", "exited with status 3")
    );
    assert_eq!(error.detail.unwrap()["stderrTail"], json!(["last words"]));
    fixture.offer("signal", shell("kill -SEGV $$")).await;
    assert_eq!(fixture.end("signal").await.unwrap().code, "SIGNAL");
    fixture
        .offer("missing", json!({"command": ["/no/such/program"]}))
        .await;
    let error = fixture.end("missing").await.unwrap();
    assert_eq!(error.code, "SPAWN_FAILED");
    assert!(
        error.message.starts_with("cannot start /no/such/program: "),
        "{}",
        error.message
    );
    fixture
        .offer("folder", json!({"command": ["true"], "cwd": "nowhere"}))
        .await;
    let error = fixture.end("folder").await.unwrap();
    assert!(
        error.message.ends_with("nowhere does not exist"),
        "{}",
        error.message
    );
    fixture.offer("wrong", json!({"command": "true"})).await;
    fixture.until("wrong", "refused: command must be an array of strings; to run a line in a shell, set shell to true").await;
}

#[tokio::test]
async fn a_stop_ends_a_well_behaved_program_at_once_and_any_other_with_all_it_started() {
    let fixture = Fixture::start().await;
    fixture
        .run_job(
            "good",
            shell("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done"),
        )
        .await;
    fixture.logged("good", "up").await;
    fixture.stop("good", TIMEOUT).await;
    assert_eq!(fixture.end("good").await, None);
    assert_eq!(fixture.story("good")[3..], ["STOPPING", "STOPPED"]);
    fixture.logged("good", "bye").await;
    fixture
        .run_job("stubborn", shell(SHELL_WITH_GRANDCHILD))
        .await;
    let grandchild = read_pid(&fixture.folder.path().join("grandchild")).await;
    assert!(is_alive(&grandchild));
    let begun = Instant::now();
    fixture.stop("stubborn", Duration::from_millis(300)).await;
    assert_eq!(fixture.end("stubborn").await, None);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    gone(&grandchild).await;
    fixture.logged("stubborn", "did not stop in time").await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_ended_with_it() {
    let fixture = Fixture::start().await;
    fixture
        .offer("j", shell("sleep 1000 & echo $! > grandchild"))
        .await;
    assert_eq!(fixture.end("j").await, None);
    gone(&read_pid(&fixture.folder.path().join("grandchild")).await).await;
}

#[tokio::test]
async fn output_without_end_is_bounded_and_does_not_stop_the_program() {
    let fixture = Fixture::start().await;
    fixture
        .offer(
            "wide",
            shell("head -c 100000000 /dev/zero | tr '\\0' x; echo; echo done"),
        )
        .await;
    assert_eq!(fixture.end("wide").await, None);
    let log = fixture.log("wide").await;
    assert_eq!(log.len(), 2);
    assert_eq!(
        (log[0].1.len(), log[1].1.as_str()),
        (MAX_LOG_LINE_BYTES, "done")
    );
    fixture
        .offer("long", shell("yes line | head -n 2000000"))
        .await;
    assert_eq!(fixture.end("long").await, None);
    let log = fixture.log("long").await;
    let notes = log.iter().filter(|(from, _)| *from == LogStream::Agent);
    let dropped: usize = notes
        .map(|(_, line)| {
            line.strip_suffix(" lines dropped")
                .unwrap()
                .parse::<usize>()
                .unwrap()
        })
        .sum();
    let kept = log
        .iter()
        .filter(|(from, _)| *from == LogStream::Stdout)
        .count();
    assert_eq!(kept + dropped, 2_000_000);
    assert!((500..20_000).contains(&kept), "kept {kept} lines");
}

#[tokio::test]
async fn commands_reach_a_program_that_accepts_them_and_others_report_why_not() {
    let fixture = Fixture::start().await;
    fixture
        .run_job(
            "listens",
            json!({"command": ["cat"], "stdinCommands": true}),
        )
        .await;
    assert_eq!(
        fixture.control("listens", "mute").await,
        json!({"success": true})
    );
    let line = fixture.logged("listens", "mute").await;
    assert_eq!(
        serde_json::from_str::<Value>(&line).unwrap(),
        json!({"command": "mute", "args": {}})
    );
    fixture.until("listens", "muted true true").await;
    fixture
        .run_job("deaf", json!({"command": ["sleep", "1000"]}))
        .await;
    let answer = fixture.control("deaf", "mute").await;
    assert_eq!(answer["success"], json!(false));
    assert!(answer["reason"].as_str().unwrap().contains("stdinCommands"));
    fixture.until("deaf", "muted true false").await;
}

#[tokio::test]
async fn noops_end_as_configured_and_a_thousand_of_them_take_no_time() {
    let fixture = Fixture::with(AgentSettings::default(), |config| config.slots = 1000).await;
    fixture.offer("fails", json!({"failAfterMs": 10})).await;
    assert_eq!(fixture.end("fails").await.unwrap().code, "NOOP_FAILED");
    fixture.run_job("stays", json!({"executor": "noop"})).await;
    fixture.stop("stays", TIMEOUT).await;
    assert_eq!(fixture.end("stays").await, None);
    let begun = Instant::now();
    for number in 0..1000 {
        fixture
            .offer(&format!("n{number}"), json!({"durationMs": 1}))
            .await;
    }
    for number in 0..1000 {
        assert_eq!(fixture.end(&format!("n{number}")).await, None);
    }
    assert!(begun.elapsed() < TIMEOUT, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_lost_owner_makes_the_agent_kill_what_may_run_elsewhere() {
    let settings = AgentSettings {
        heartbeat_interval_ms: 100,
        heartbeat_timeout_ms: 800,
        ..AgentSettings::default()
    };
    let mut fixture = Fixture::with(settings, |_| {}).await;
    fixture
        .offer_as("elsewhere", shell("echo $$ > elsewhere; sleep 1000"), true)
        .await;
    fixture
        .run_job("only-here", shell("echo $$ > here; sleep 1000"))
        .await;
    fixture.until("elsewhere", "RUNNING").await;
    let elsewhere = read_pid(&fixture.folder.path().join("elsewhere")).await;
    let here = read_pid(&fixture.folder.path().join("here")).await;
    // A scheduler leads, and does not answer.
    let key = LeaseKey::Scheduler(PoolName::default());
    let holder = HolderId::parse("silent").unwrap();
    let mut candidate = fixture.bus.lease(key, holder, Duration::from_secs(5));
    let _lease = candidate.acquire().await.unwrap();
    fixture.fall_silent().await;
    gone(&elsewhere).await;
    assert!(is_alive(&here));
    fixture.forget_heartbeats();
    fixture.speak_again(settings).await;
    wait_for("a heartbeat", TIMEOUT, async || fixture.heartbeats() > 0)
        .await
        .unwrap();
    assert_eq!(fixture.listed(), ["only-here"]);
    assert_eq!(
        fixture.story("elsewhere").last().unwrap(),
        "RUNNING",
        "its end is not reported"
    );
}

#[tokio::test]
async fn an_agent_that_is_asked_to_leave_stops_its_jobs_first() {
    let mut fixture = Fixture::with(AgentSettings::default(), |config| {
        config.drain_grace = Duration::from_millis(300);
    })
    .await;
    fixture
        .run_job("good", json!({"command": ["sleep", "1000"]}))
        .await;
    fixture
        .run_job("stubborn", shell(SHELL_WITH_GRANDCHILD))
        .await;
    let grandchild = read_pid(&fixture.folder.path().join("grandchild")).await;
    fixture.shut_down().await.unwrap();
    assert_eq!(fixture.end("good").await, None);
    assert_eq!(fixture.end("stubborn").await, None);
    assert!(fixture.heard_goodbye());
    assert!(!is_alive(&grandchild));
}

#[tokio::test]
async fn a_replaced_agent_kills_its_jobs_and_reports_why_it_left() {
    let mut fixture = Fixture::start().await;
    fixture
        .run_job("j", shell("echo $$ > pid; sleep 1000"))
        .await;
    let pid = read_pid(&fixture.folder.path().join("pid")).await;
    let current = new_session();
    fixture.command(AgentCommand::Replaced { current }).await;
    assert!(matches!(fixture.left().await, Err(Error::Replaced { .. })));
    assert!(!is_alive(&pid));
}

const AGENT_OF: &str = "QUINTET_TEST_AGENT_URL";
const AGENT_FOLDER: &str = "QUINTET_TEST_AGENT_FOLDER";

/// The other half of the test below, run in a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_process_of_the_test_that_kills_it() {
    let Ok(url) = std::env::var(AGENT_OF) else {
        return;
    };
    let mut config = AgentConfig::new(agent_id());
    config.work_dir = std::env::var(AGENT_FOLDER).unwrap().into();
    config.reaper = Some(quintet_tests::binary());
    run(config, connect(&url).await, CancellationToken::new())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_killed_agent_takes_its_children_and_grandchildren_along() {
    let fixture = Fixture::without_agent(AgentSettings::default()).await;
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "agent::children::agent_process_of_the_test_that_kills_it",
        ])
        .env(AGENT_OF, fixture.nats.url())
        .env(AGENT_FOLDER, fixture.folder.path())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_for("a hello", TIMEOUT, async || fixture.hellos() > 0)
        .await
        .unwrap();
    fixture
        .run_job(
            "j",
            shell(&format!("echo $$ > child; {SHELL_WITH_GRANDCHILD}")),
        )
        .await;
    let child = read_pid(&fixture.folder.path().join("child")).await;
    let grandchild = read_pid(&fixture.folder.path().join("grandchild")).await;
    assert!(is_alive(&child) && is_alive(&grandchild));
    agent.kill().await.unwrap();
    gone(&child).await;
    gone(&grandchild).await;
}
