//! ffmpeg's arguments for a plan.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::STATS_PERIOD;
use crate::executors::{AudioPath, FfmpegPlan, Output};

/// Containers in which H.264 and AAC are what players expect, and what ffmpeg's own choice may not be.
const H264_CONTAINERS: [&str; 9] = [
    "mp4", "m4v", "mov", "mkv", "flv", "ts", "mpegts", "m3u8", "hls",
];

/// Containers whose index is written last: without it nothing plays, and an encoder that is killed, or that
/// waits for its source and must be interrupted, never writes it. In fragments at most the last second is lost.
const INDEX_LAST: [&str; 3] = ["mp4", "m4v", "mov"];

/// How such a container is written in fragments, each as soon as it is whole.
const FRAGMENTS: [&str; 6] = [
    "-movflags",
    "+frag_keyframe+delay_moov+default_base_moof",
    "-frag_duration",
    "1000000",
    "-flush_packets",
    "1",
];

/// The whole command line after the program.
pub(crate) fn arguments(plan: &FfmpegPlan) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    let mut add = |list: &[&str]| args.extend(list.iter().map(OsString::from));
    let period = STATS_PERIOD.as_secs_f64().to_string();
    add(&["-hide_banner", "-loglevel", "info", "-nostats"]);
    add(&["-progress", "pipe:1", "-stats_period", &period, "-y"]);
    add(&plan
        .input_options
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>());
    add(&["-i", &plan.source]);
    if let Some(duration) = plan.duration {
        add(&["-t", &duration.as_secs_f64().to_string()]);
    }
    let container = container(plan);
    video(plan, container.as_deref(), &mut add);
    audio(plan, container.as_deref(), &mut add);
    if container.is_some_and(|name| INDEX_LAST.contains(&name.as_str())) {
        // Before the job's own options, which may override them.
        add(&FRAGMENTS);
    }
    add(&plan
        .output_options
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>());
    let format = plan
        .format
        .as_deref()
        .or_else(|| implied_format(&plan.output));
    if let Some(format) = format {
        add(&["-f", format]);
    }
    args.push(match &plan.output {
        // A name such as `a:b.mp4` would be read as a protocol.
        Output::File(path) => {
            let mut url = OsString::from("file:");
            url.push(path);
            url
        }
        Output::Url(url) => OsString::from(url),
    });
    args
}

fn video(plan: &FfmpegPlan, container: Option<&str>, add: &mut impl FnMut(&[&str])) {
    let chosen = match plan.video_codec.as_deref() {
        Some("none") => return add(&["-vn"]),
        Some(codec) => codec,
        None if container.is_some_and(|name| H264_CONTAINERS.contains(&name)) => "libx264",
        None => return,
    };
    add(&["-c:v", chosen]);
    if chosen == "libx264" {
        // Test sources are RGB; without this the result plays in few players.
        add(&["-preset", "veryfast", "-pix_fmt", "yuv420p"]);
    }
}

fn audio(plan: &FfmpegPlan, container: Option<&str>, add: &mut impl FnMut(&[&str])) {
    match plan.audio_path() {
        AudioPath::Absent => add(&["-an"]),
        AudioPath::Copied => add(&["-c:a", "copy"]),
        AudioPath::Filtered => {
            let default = container.filter(|name| H264_CONTAINERS.contains(name));
            let codec = plan.audio_codec.as_deref().or(default.map(|_| "aac"));
            if let Some(codec) = codec {
                add(&["-c:a", codec]);
            }
            // Evaluated for every frame, or commands would have no effect; without audio it is ignored.
            add(&["-af", "volume@mute=volume=1:eval=frame"]);
        }
    }
}

/// The container by the format field, the address or the extension.
fn container(plan: &FfmpegPlan) -> Option<String> {
    if let Some(format) = &plan.format {
        return Some(format.clone());
    }
    if let Some(format) = implied_format(&plan.output) {
        return Some(format.to_owned());
    }
    let path = match &plan.output {
        Output::File(path) => path.as_path(),
        Output::Url(url) => Path::new(url.split(['?', '#']).next().unwrap_or(url)),
    };
    path.extension()
        .and_then(OsStr::to_str)
        .map(str::to_ascii_lowercase)
}

/// Protocols that carry one container and whose addresses do not name it.
fn implied_format(output: &Output) -> Option<&'static str> {
    let Output::Url(url) = output else {
        return None;
    };
    match url.split_once("://")?.0 {
        "rtmp" | "rtmps" => Some("flv"),
        "udp" | "srt" | "tcp" | "rist" => Some("mpegts"),
        "rtsp" => Some("rtsp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;
    use crate::executors::{Abilities, Executor, Plan};

    fn line(config: serde_json::Value) -> String {
        let abilities = Abilities {
            allowed: Executor::ALL.into(),
            ffmpeg: true,
            work_dir: PathBuf::from("/work"),
        };
        match abilities.plan(config.as_object().unwrap()).unwrap() {
            Plan::Ffmpeg(plan) => arguments(&plan)
                .join(OsStr::new(" "))
                .into_string()
                .unwrap(),
            other => panic!("not ffmpeg: {other:?}"),
        }
    }

    #[test]
    fn a_recording_is_encoded_so_that_it_plays_and_can_be_muted() {
        assert_eq!(
            line(json!({
                "streamUrl": "testsrc", "inputOptions": ["-re", "-f", "lavfi"], "outputPath": "a/b.mp4", "durationSec": 2.5,
            })),
            "-hide_banner -loglevel info -nostats -progress pipe:1 -stats_period 0.5 -y -re -f lavfi -i testsrc -t 2.5 \
             -c:v libx264 -preset veryfast -pix_fmt yuv420p -c:a aac -af volume@mute=volume=1:eval=frame \
             -movflags +frag_keyframe+delay_moov+default_base_moof -frag_duration 1000000 -flush_packets 1 file:/work/a/b.mp4"
        );
    }

    #[test]
    fn what_is_copied_is_not_touched() {
        let copied = line(json!({
            "streamUrl": "s", "outputUrl": "rtmp://host/app", "videoCodec": "copy", "audioCodec": "copy",
        }));
        assert!(
            copied.ends_with("-i s -c:v copy -c:a copy -f flv rtmp://host/app"),
            "{copied}"
        );
    }

    #[test]
    fn codecs_and_formats_can_be_chosen_and_left_out() {
        let chosen = line(json!({
            "streamUrl": "s", "outputPath": "/x/y.webm", "videoCodec": "libvpx", "audioCodec": "none",
        }));
        assert!(
            chosen.ends_with("-c:v libvpx -an file:/x/y.webm"),
            "{chosen}"
        );
        let sound = line(
            json!({"streamUrl": "s", "outputPath": "y", "videoCodec": "none", "outputFormat": "ogg"}),
        );
        assert!(
            sound.ends_with("-vn -af volume@mute=volume=1:eval=frame -f ogg file:/work/y"),
            "{sound}"
        );
    }
}
