//! The example `tests/examples/video`: a plan that fetches a video, transcodes it twice in parallel, waits at a gate and
//! joins. Killed with everything else in the middle of the work and at the gate, it has the same result.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use axum::Router;
use axum::routing::get;
use quintet_testkit::{Process, wait_for};
use quintet_tests::{Api, TIMEOUT, binary, repository, run_to_end};
use serde_json::{Value, json};

use crate::program::Program;

/// What the example leaves behind.
const FILES: [&str; 5] = [
    "source.mkv",
    "small.mp4",
    "large.mp4",
    "manifest.txt",
    "sheet.png",
];

fn example() -> PathBuf {
    repository().join("tests/examples/video")
}

/// Half a minute of moving image with a tone, the same bytes every time.
async fn video(file: &Path) {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-nostdin", "-v", "error", "-f", "lavfi", "-i"])
        .arg("testsrc2=size=1280x720:rate=25")
        .args(["-f", "lavfi", "-i", "sine=frequency=440", "-t", "24"])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"])
        .args(["-threads", "1", "-fflags", "+bitexact"])
        .arg(file);
    let output = run_to_end(command, &[]).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Serves a video; the address of it.
async fn served(video: Vec<u8>) -> String {
    let handler = async move || video.clone();
    let routes = Router::new().route("/video.mkv", get(handler));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    format!("http://{address}/video.mkv")
}

/// A command of the client; what it printed.
async fn quintet(api: &Api, arguments: &[&str]) -> String {
    let mut command = Command::new(binary());
    command.args(["--url", &api.url("")]).args(arguments);
    let output = run_to_end(command, &[]).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Begins the example; the id of the run.
async fn begin(api: &Api, source: &str, folder: &Path) -> String {
    let plan = example().join("plan.json");
    let input = |name: &str, value: &str| format!("{name}={value}");
    let arguments = [
        "runs",
        "create",
        plan.to_str().unwrap(),
        "--input",
        &input("source", source),
        "--input",
        &input("folder", folder.to_str().unwrap()),
        "--input",
        &input("scripts", example().to_str().unwrap()),
        "--name",
        "video",
    ];
    quintet(api, &arguments).await
}

async fn run(api: &Api, id: &str) -> Value {
    let mut answer = api.get(&format!("/v1/runs/{id}")).await.expect(200);
    answer.body["run"].take()
}

/// Waits until a node has a status; the run as it is then.
async fn until_node(api: &Api, id: &str, node: &str, status: &str) -> Value {
    let what = format!("{node} to be {status}");
    let found = wait_for(&what, TIMEOUT * 4, async || {
        let run = run(api, id).await;
        match run["nodes"][node]["status"] == status {
            true => Ok(run),
            false => Err(run.to_string()),
        }
    });
    found.await.unwrap()
}

/// The checkpoints of the nodes that transcode, as `(node, pieces)`.
async fn pieces(api: &Api, id: &str) -> Vec<(String, u64)> {
    let path = format!("/v1/runs/{id}/checkpoints");
    let body = api.get(&path).await.expect(200).body;
    let of = |checkpoint: &Value| {
        let node = checkpoint["nodeId"].as_str().unwrap().to_owned();
        (node, checkpoint["data"]["pieces"].as_u64().unwrap())
    };
    body["checkpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(of)
        .collect()
}

/// What came out of a run: the output of every node, and the files.
async fn result(api: &Api, id: &str, folder: &Path) -> (Value, Vec<Vec<u8>>) {
    let run = run(api, id).await;
    assert_eq!(run["status"], "completed", "{run}");
    let nodes = run["nodes"].as_object().unwrap();
    let outputs = nodes
        .iter()
        .map(|(id, node)| (id.clone(), node["output"].clone()));
    let outputs: serde_json::Map<String, Value> = outputs.collect();
    let files = FILES.map(|name| fs::read(folder.join(name)).unwrap());
    (Value::Object(outputs), files.to_vec())
}

#[tokio::test]
async fn a_plan_that_is_killed_while_it_transcodes_and_while_it_waits_has_the_same_result() {
    let program = Program::start(&[("TASK_ACK_WAIT", "2s"), ("RATE_LIMIT_MAX", "0")]).await;
    let api = program.api.clone();
    let source = program.folder.path().join("video.mkv");
    video(&source).await;
    let source = served(fs::read(source).unwrap()).await;

    let folder = program.folder.path().join("undisturbed");
    let id = begin(&api, &source, &folder).await;
    until_node(&api, &id, "review", "waiting").await;
    quintet(&api, &["runs", "approve", &id, "review"]).await;
    quintet(&api, &["runs", "watch", &id]).await;
    let undisturbed = result(&api, &id, &folder).await;

    let folder = program.folder.path().join("disturbed");
    let id = begin(&api, &source, &folder).await;
    let lines = program.folder.path().join("watch.log");
    let mut watch = watch(&api, &id, &lines);
    let begun = wait_for("a piece of each rendition", TIMEOUT, async || {
        let pieces = pieces(&api, &id).await;
        let has = |name: &str| pieces.iter().any(|(node, _)| node == name);
        match has("small") && has("large") {
            true => Ok(()),
            false => Err(format!("{pieces:?}")),
        }
    });
    begun.await.unwrap();
    let program = program.kill_and_restart().await;
    let waiting = until_node(&api, &id, "review", "waiting").await;
    assert_eq!(waiting["nodes"]["fetch"]["attempt"], 1, "{waiting}");
    for node in ["small", "large"] {
        assert_eq!(waiting["nodes"][node]["attempt"], 2, "{waiting}");
    }
    let program = program.kill_and_restart().await;
    until_node(&api, &id, "review", "waiting").await;
    quintet(&api, &["runs", "approve", &id, "review"]).await;
    assert!(watch.wait(TIMEOUT * 2).await.unwrap().success());
    assert_eq!(result(&api, &id, &folder).await, undisturbed);
    each_piece_once(&pieces(&api, &id).await);
    delivered_once(&fs::read_to_string(lines).unwrap());
    drop(program);
}

/// A client that watches, over all restarts; its output goes to a file.
fn watch(api: &Api, id: &str, lines: &Path) -> Process {
    let mut command = Command::new(binary());
    command
        .args([
            "--url",
            &api.url(""),
            "runs",
            "watch",
            id,
            "--output",
            "json",
        ])
        .stdin(Stdio::null())
        .stdout(fs::File::create(lines).unwrap());
    Process::spawn(command).unwrap()
}

/// Nothing that was done was done again, but for the piece that was under way when it was killed: a piece whose
/// checkpoint had not been stored.
fn each_piece_once(pieces: &[(String, u64)]) {
    for name in ["small", "large"] {
        let of_node = pieces.iter().filter(|(node, _)| node == name);
        let numbers: Vec<u64> = of_node.map(|(_, number)| *number).collect();
        assert_eq!(numbers, (1..=12).collect::<Vec<u64>>(), "{name}");
    }
}

/// The watching client received every event once and in order.
fn delivered_once(lines: &str) {
    let events: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let numbers: Vec<u64> = events
        .iter()
        .filter_map(|event| event["id"].as_str()?.rsplit_once('_')?.1.parse().ok())
        .collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    let checkpoints = events.iter().filter(|event| event["event"] == "checkpoint");
    assert_eq!(checkpoints.count(), 24, "{lines}");
    let hellos = events.iter().filter(|event| event["event"] == "hello");
    assert!(hellos.count() >= 3, "the stream was opened again: {lines}");
    let last = events.last().map(|event| &event["data"]);
    assert_eq!(last.map(|data| &data["status"]), Some(&json!("completed")));
}
