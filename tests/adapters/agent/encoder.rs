//! Jobs of the real ffmpeg: what is recorded, muted, stopped, stalled.

use std::path::Path;
use std::time::Duration;

use quintet_contract::agent::AgentSettings;
use quintet_testkit::wait_for;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;

use super::owner::{Fixture, TIMEOUT};

const PICTURE_AND_TONE: &str = "testsrc=size=320x240:rate=25[out0];sine=frequency=440[out1]";

async fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().await.unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

async fn seconds(file: &Path) -> f64 {
    let args = [
        "-v",
        "error",
        "-show_entries",
        "format=duration",
        "-of",
        "csv=p=0",
        file.to_str().unwrap(),
    ];
    let text = output("ffprobe", &args).await;
    text.trim()
        .parse()
        .unwrap_or_else(|_| panic!("no duration: {text}"))
}

/// Beginning and end of every silence, in seconds.
async fn silences(file: &Path) -> Vec<(f64, f64)> {
    let args = [
        "-hide_banner",
        "-i",
        file.to_str().unwrap(),
        "-af",
        "silencedetect=n=-60dB:d=0.2",
        "-f",
        "null",
        "-",
    ];
    let text = output("ffmpeg", &args).await;
    let after = |name: &str| -> Vec<f64> {
        let found = text.split(name).skip(1);
        found
            .map(|rest| rest.split_whitespace().next().unwrap().parse().unwrap())
            .collect()
    };
    after("silence_start: ")
        .into_iter()
        .zip(after("silence_end: "))
        .collect()
}

/// Waits until the job's output has got this much further than `from`; returns where it is.
async fn recorded(fixture: &Fixture, job: &str, from: f64, more: f64) -> f64 {
    let what = format!("{more} s more of {job}");
    let at = wait_for(&what, TIMEOUT, async || {
        let at = position(fixture, job);
        if at >= from + more {
            Ok(at)
        } else {
            Err(at.to_string())
        }
    });
    at.await.unwrap()
}

fn position(fixture: &Fixture, job: &str) -> f64 {
    let newest = fixture.metadata(job).pop().unwrap_or_default();
    newest["progress"]["outTimeMs"].as_f64().unwrap_or_default() / 1000.0
}

#[tokio::test]
async fn a_recording_is_silent_in_exactly_the_muted_span_and_playable_after_a_stop() {
    let mut fixture = Fixture::start().await;
    let config = json!({
        "streamUrl": PICTURE_AND_TONE, "inputOptions": ["-re", "-f", "lavfi"], "outputPath": "deep/down/tone.mp4",
    });
    fixture.run_job("j", config).await;
    let begin = recorded(&fixture, "j", 0.0, 0.5).await;
    assert_eq!(fixture.control("j", "mute").await, json!({"success": true}));
    let muted = recorded(&fixture, "j", begin, 2.5).await;
    assert_eq!(
        fixture.control("j", "unmute").await,
        json!({"success": true})
    );
    recorded(&fixture, "j", muted, 1.5).await;
    fixture.stop("j", TIMEOUT).await;
    assert_eq!(fixture.end("j").await, None);
    let story = fixture.story("j");
    let wanted = [
        "accepted true",
        "STARTING",
        "RUNNING",
        "muted true true",
        "muted false true",
        "STOPPING",
        "STOPPED",
    ];
    assert_eq!(story, wanted);
    let file = fixture.folder.path().join("deep/down/tone.mp4");
    let length = seconds(&file).await;
    assert!(length > 3.5, "recorded {length} s");
    let silences = silences(&file).await;
    let [(from, to)] = silences[..] else {
        panic!("{silences:?}")
    };
    assert!(
        to - from > 1.5 && from > 0.1 && to < length - 0.3,
        "silent from {from} to {to} of {length} s"
    );
    let events = fixture.events("j").await;
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert!(
        ["progress", "mute", "unmute"]
            .iter()
            .all(|kind| kinds.contains(kind)),
        "{kinds:?}"
    );
    fixture.logged("j", "Output #0, mp4").await;
    let log = fixture.log("j").await;
    assert!(
        !log.iter()
            .any(|(_, line)| line.starts_with("Enter command")),
        "{log:?}"
    );
    fixture.shut_down().await.unwrap();
}

#[tokio::test]
async fn a_recording_ends_by_itself_and_one_without_sound_cannot_be_muted() {
    let fixture = Fixture::start().await;
    let config = |file: &str, seconds: u32| {
        json!({
            "streamUrl": "testsrc=size=320x240:rate=25", "inputOptions": ["-re", "-f", "lavfi"], "outputPath": file,
            "durationSec": seconds,
        })
    };
    fixture.run_job("mute", config("mute.mkv", 60)).await;
    let answer = fixture.control("mute", "mute").await;
    assert_eq!(
        answer,
        json!({"success": false, "reason": "the stream has no audio"})
    );
    fixture.until("mute", "muted true false").await;
    fixture.offer("short", config("short.mp4", 1)).await;
    assert_eq!(fixture.end("short").await, None);
    let length = seconds(&fixture.folder.path().join("short.mp4")).await;
    assert!((0.8..1.2).contains(&length), "{length}");
    let last = fixture.metadata("short").pop().unwrap();
    assert_eq!(last["progress"]["frame"], json!(25), "{last}");
    assert!(last["progress"]["totalSize"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_source_that_stands_still_ends_the_job_as_stalled() {
    let fixture = Fixture::with(AgentSettings::default(), |config| {
        config.stall_timeout = Duration::from_millis(1500);
    })
    .await;
    let sample = fixture.folder.path().join("sample.ts");
    let args = [
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=320x240:rate=25",
        "-t",
        "20",
        "-c:v",
        "mpeg2video",
    ];
    let made = Command::new("ffmpeg")
        .args(args)
        .arg(&sample)
        .status()
        .await
        .unwrap();
    assert!(made.success());
    let source = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", source.local_addr().unwrap());
    let sample = tokio::fs::read(&sample).await.unwrap();
    let serving = tokio::spawn(async move {
        let (mut viewer, _) = source.accept().await.unwrap();
        viewer.write_all(&sample).await.unwrap();
        // Open, and silent.
        std::future::pending::<()>().await;
        drop(viewer);
    });
    let config = json!({"streamUrl": url, "outputPath": "stalled.ts", "videoCodec": "copy"});
    fixture.offer("j", config).await;
    let error = fixture.end("j").await.unwrap();
    assert_eq!(error.code, "STALLED");
    assert_eq!(error.message, "no frame and no byte for 1500 ms");
    let story = fixture.story("j");
    assert_eq!(story.last().unwrap(), "FAILED STALLED");
    let events = fixture.events("j").await;
    assert!(events.iter().any(|event| event.kind == "stalled"));
    serving.abort();
}

#[tokio::test]
async fn an_encoder_that_waits_for_its_source_obeys_a_stop_and_keeps_what_it_has() {
    let fixture = Fixture::start().await;
    let sample = fixture.folder.path().join("sample.ts");
    let args = [
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=320x240:rate=25",
        "-t",
        "20",
        "-c:v",
        "mpeg2video",
    ];
    let made = Command::new("ffmpeg")
        .args(args)
        .arg(&sample)
        .status()
        .await
        .unwrap();
    assert!(made.success());
    let source = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", source.local_addr().unwrap());
    let sample = tokio::fs::read(&sample).await.unwrap();
    let serving = tokio::spawn(async move {
        let (mut viewer, _) = source.accept().await.unwrap();
        viewer.write_all(&sample).await.unwrap();
        std::future::pending::<()>().await;
        drop(viewer);
    });
    let config = json!({"streamUrl": url, "outputPath": "waits.mp4", "videoCodec": "copy"});
    fixture.run_job("j", config).await;
    fixture.stop("j", TIMEOUT).await;
    assert_eq!(fixture.end("j").await, None);
    assert!(seconds(&fixture.folder.path().join("waits.mp4")).await > 10.0);
    serving.abort();
}

#[tokio::test]
async fn an_encoder_that_cannot_write_fails_with_its_own_words() {
    let fixture = Fixture::start().await;
    let config = json!({
        "streamUrl": "testsrc", "inputOptions": ["-f", "lavfi"], "outputPath": "x.mp4", "videoCodec": "no_such_codec",
    });
    fixture.offer("j", config).await;
    let error = fixture.end("j").await.unwrap();
    assert_eq!(error.code, "EXIT_STATUS");
    let tail = error.detail.unwrap()["stderrTail"].to_string();
    assert!(tail.contains("Unknown encoder"), "{tail}");
}

#[tokio::test]
async fn an_agent_without_ffmpeg_refuses_its_jobs() {
    let fixture = Fixture::with(AgentSettings::default(), |config| {
        config.ffmpeg = "/no/such/ffmpeg".into();
    })
    .await;
    let config: Value = json!({"streamUrl": "x", "outputPath": "y.mp4"});
    fixture.offer("j", config).await;
    fixture
        .until("j", "refused: this agent has no ffmpeg program")
        .await;
}
