//! Real video: ffmpeg records, is muted in the middle, and the file is silent in exactly that span.

use std::path::Path;
use std::process::Command;

use quintet_testkit::wait_for;
use quintet_tests::{Stack, TIMEOUT, run_to_end};
use serde_json::{Value, json};

/// The report of ffprobe on a file.
async fn probe(file: &Path) -> Value {
    let mut command = Command::new("ffprobe");
    command
        .args([
            "-v",
            "error",
            "-of",
            "json",
            "-show_format",
            "-show_streams",
        ])
        .arg(file);
    let output = run_to_end(command, &[]).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Spans of silence in a file, in seconds.
async fn silences(file: &Path) -> Vec<(f64, f64)> {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-hide_banner", "-nostats", "-i"])
        .arg(file)
        .args([
            "-af",
            "silencedetect=noise=-60dB:duration=0.3",
            "-f",
            "null",
            "-",
        ]);
    let output = run_to_end(command, &[]).await;
    let text = String::from_utf8_lossy(&output.stderr);
    let after = |line: &str, word: &str| {
        let rest = line.split_once(word)?.1.trim();
        rest.split_whitespace().next()?.parse::<f64>().ok()
    };
    let mut spans = Vec::new();
    let mut start = None;
    for line in text.lines() {
        start = after(line, "silence_start:").or(start);
        if let (Some(from), Some(to)) = (start, after(line, "silence_end:")) {
            spans.push((from, to));
            start = None;
        }
    }
    spans.extend(start.map(|from| (from, f64::MAX)));
    spans
}

#[tokio::test]
async fn a_recording_is_silent_in_exactly_the_muted_span() {
    let stack = Stack::start().await;
    // A live source: an image and a tone in real time.
    let source = "testsrc2=size=320x180:rate=25[out0];sine=frequency=440[out1]";
    let config = json!({
        "streamUrl": source, "inputOptions": ["-re", "-f", "lavfi"], "outputPath": "muted.mkv"
    });
    let id = stack.api.submit(json!({"inlineConfig": config})).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    stack.api.until(&id, "RUNNING").await;
    let recorded = async |seconds: f64| {
        let what = format!("{seconds} s of recording");
        let at = wait_for(&what, TIMEOUT, async || {
            let job = stack.api.job(&id).await;
            let progress = &job["streamMetadata"]["progress"];
            let at = progress["outTimeMs"].as_f64().unwrap_or_default() / 1000.0;
            if at >= seconds {
                Ok(at)
            } else {
                Err(format!("{} {}", job["status"], job["streamMetadata"]))
            }
        });
        at.await.unwrap()
    };
    let before = recorded(1.5).await;
    let muted = stack
        .api
        .order(&format!("/v1/jobs/{id}/mute"))
        .await
        .expect(202);
    assert_eq!(muted.body["ok"], true);
    let during = recorded(before + 2.0).await;
    stack
        .api
        .order(&format!("/v1/jobs/{id}/unmute"))
        .await
        .expect(202);
    recorded(during + 2.0).await;
    stack
        .api
        .order(&format!("/v1/jobs/{id}/stop"))
        .await
        .expect(202);
    stack.api.until(&id, "STOPPED").await;
    let file = stack.folder.path().join("muted.mkv");
    let facts = probe(&file).await;
    let kinds: Vec<&Value> = facts["streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| &stream["codec_type"])
        .collect();
    assert_eq!(kinds, ["video", "audio"]);
    let spans = silences(&file).await;
    assert_eq!(spans.len(), 1, "{spans:?}");
    let (from, to) = spans[0];
    assert!(
        from >= before - 0.5 && to > from + 0.5 && to < f64::MAX,
        "{spans:?}, muted after {before} s"
    );
}

#[tokio::test]
async fn a_recording_of_a_given_length_ends_by_itself_and_a_missing_source_fails_with_ffmpegs_words()
 {
    let stack = Stack::start().await;
    let source = "testsrc2=size=320x180:rate=25[out0];sine=frequency=440[out1]";
    let config = json!({
        "streamUrl": source, "inputOptions": ["-f", "lavfi"], "outputPath": "short.mp4", "durationSec": 2
    });
    let good = stack.api.submit(json!({"inlineConfig": config})).await;
    let nothing = json!({"streamUrl": "nowhere.mp4", "outputPath": "out.mp4"});
    let bad = stack.api.submit(json!({"inlineConfig": nothing})).await;
    stack
        .api
        .until(good["id"].as_str().unwrap(), "STOPPED")
        .await;
    let seconds = probe(&stack.folder.path().join("short.mp4")).await["format"]["duration"]
        .as_str()
        .unwrap()
        .parse::<f64>();
    assert!(
        (1.8..2.3).contains(seconds.as_ref().unwrap()),
        "{seconds:?}"
    );
    let job = stack.api.until(bad["id"].as_str().unwrap(), "FAILED").await;
    assert!(
        job["error"].to_string().contains("nowhere.mp4"),
        "{}",
        job["error"]
    );
}
