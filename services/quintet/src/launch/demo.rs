//! The demonstration: a live test stream, a job that records ten seconds of it, and a look at the file.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::cli::stdout::emit;
use crate::client::http::Http;
use crate::client::job_events;
use crate::launch::embedded_nats::{deathsig, last_line};

/// How much of the stream is recorded.
const SECONDS: u32 = 10;
/// How long the source may take to listen.
const SOURCE_DEADLINE: Duration = Duration::from_secs(20);
/// How long the job may wait for an agent before that is reported.
const PLACEMENT: Duration = Duration::from_secs(3);

/// Runs it against an edge, and prints its progress.
pub(crate) async fn run(http: &Http, work_dir: &Path, ffmpeg: &Path) -> anyhow::Result<()> {
    if Command::new(ffmpeg)
        .arg("-version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await
        .is_err()
    {
        bail!(
            "there is no {}; install it (sudo apt-get install ffmpeg) to see the recording",
            ffmpeg.display()
        );
    }
    let folder = work_dir.join("demo");
    std::fs::create_dir_all(&folder)?;
    let (mut source, url) = start_source(ffmpeg, &folder.join("source.log")).await?;
    emit(format_args!("demo: a live test stream runs at {url}"));
    let body = json!({
        "inlineConfig": {"streamUrl": url, "outputPath": folder.join("recording.mp4"), "durationSec": SECONDS},
        "streamMetadata": {"title": "Test stream"}
    });
    let job = http.post("/v1/jobs", &body).await?;
    let id = job["id"].as_str().context("the job has no id")?;
    emit(format_args!(
        "demo: submitted job {id} to record {SECONDS} s of it"
    ));
    let status = follow(http, id).await?;
    let _ = source.kill().await;
    let job = http.get(&format!("/v1/jobs/{id}")).await?;
    ensure!(
        status == "STOPPED",
        "the job ended {status}: {}",
        job["error"]
    );
    let file = folder.join("recording.mp4");
    check(&file, &ffmpeg.with_file_name("ffprobe")).await?;
    emit(format_args!("demo: recorded  {}", file.display()));
    let address = http.address();
    emit(format_args!("demo: the job   {address}/v1/jobs/{id}"));
    emit(format_args!("demo: its log   {address}/v1/jobs/{id}/logs"));
    emit(format_args!("demo: dashboard {address}/"));
    emit("demo: everything stays up until Ctrl-C");
    Ok(())
}

/// Serves video and a tone in real time to the first client.
///
/// It complains when its client leaves, as every client does at the end: into a file, which is read when it fails.
async fn start_source(ffmpeg: &Path, log: &Path) -> anyhow::Result<(Child, String)> {
    let complaints =
        File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let mut command = Command::new(ffmpeg);
    command
        .args(["-hide_banner", "-loglevel", "error", "-re", "-f", "lavfi"])
        .args([
            "-i",
            "testsrc2=size=640x360:rate=25[out0];sine=frequency=440[out1]",
        ])
        .args([
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-tune",
            "zerolatency",
            "-g",
            "25",
            "-pix_fmt",
            "yuv420p",
        ])
        .args(["-c:a", "aac", "-f", "mpegts", "-listen", "1"])
        .arg(format!("http://127.0.0.1:{port}/live.ts"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(complaints)
        .kill_on_drop(true);
    // A source without a client would wait for one for ever, also after a `kill -9` of this program. This runs
    // on the main thread, which runs as long as the program.
    deathsig::die_with_this_thread(command.as_std_mut());
    let mut child = command.spawn().context("cannot start the test stream")?;
    let until = Instant::now() + SOURCE_DEADLINE;
    while !listens(port)? {
        if let Some(status) = child.try_wait()? {
            bail!("the test stream ended ({status}): {}", last_line(log));
        }
        ensure!(Instant::now() < until, "the test stream does not listen");
        sleep(Duration::from_millis(50)).await;
    }
    Ok((child, format!("http://127.0.0.1:{port}/live.ts")))
}

/// Whether a port is listened on; asked of the kernel, since a connection would be taken for the listener's one client.
fn listens(port: u16) -> anyhow::Result<bool> {
    let table =
        std::fs::read_to_string("/proc/net/tcp").context("cannot read the table of sockets")?;
    let local = format!("0100007F:{port:04X}");
    Ok(table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(local.as_str()) && fields.nth(1) == Some("0A")
    }))
}

/// Shows every status as it comes, and returns the last.
async fn follow(http: &Http, id: &str) -> anyhow::Result<String> {
    let mut events = job_events::follow(http, id);
    let mut last = String::new();
    let mut reported = false;
    let began = Instant::now();
    loop {
        // Waiting for an event is cancel-safe.
        let event = match timeout(PLACEMENT, events.next()).await {
            Ok(Some(event)) => event?,
            Ok(None) => return Ok(last),
            Err(_) if last == "PENDING" && !reported => {
                emit(format_args!(
                    "demo: no agent has taken it yet; `quintet jobs explain {id}` shows why"
                ));
                reported = true;
                continue;
            }
            Err(_) => continue,
        };
        match event.event.as_str() {
            "job.status" => {
                last = event.data["status"].as_str().unwrap_or_default().to_owned();
                emit(format_args!(
                    "demo: {:>5.1} s  {last}",
                    began.elapsed().as_secs_f64()
                ));
            }
            "job.event" if event.data["type"] == "progress" => {
                emit(format_args!(
                    "demo: {:>5.1} s  {}",
                    began.elapsed().as_secs_f64(),
                    event.data["message"].as_str().unwrap_or("")
                ));
            }
            _ => {}
        }
    }
}

/// Asks ffprobe what was recorded.
async fn check(file: &Path, ffprobe: &Path) -> anyhow::Result<()> {
    let program = if ffprobe.parent() == Some(Path::new("")) {
        PathBuf::from("ffprobe")
    } else {
        ffprobe.to_owned()
    };
    let output = Command::new(program)
        .args([
            "-v",
            "error",
            "-of",
            "json",
            "-show_format",
            "-show_streams",
        ])
        .arg(file)
        .output()
        .await
        .context("cannot start ffprobe; it comes with ffmpeg")?;
    ensure!(
        output.status.success(),
        "ffprobe: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let facts: Value = serde_json::from_slice(&output.stdout)?;
    let seconds: f64 = facts["format"]["duration"]
        .as_str()
        .unwrap_or_default()
        .parse()
        .unwrap_or(0.0);
    let streams: Vec<String> = facts["streams"]
        .as_array()
        .map(|streams| {
            streams
                .iter()
                .map(|stream| {
                    format!(
                        "{} {}",
                        text(&stream["codec_type"]),
                        text(&stream["codec_name"])
                    )
                })
                .collect()
        })
        .unwrap_or_default();
    emit(format_args!(
        "demo: ffprobe shows {seconds:.1} s, {}",
        streams.join(", ")
    ));
    let both = ["video", "audio"]
        .iter()
        .all(|kind| streams.iter().any(|stream| stream.starts_with(kind)));
    ensure!(both, "the recording lacks video or sound");
    ensure!(
        (f64::from(SECONDS) - 1.5..=f64::from(SECONDS) + 1.0).contains(&seconds),
        "the recording is {seconds:.1} s long"
    );
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
