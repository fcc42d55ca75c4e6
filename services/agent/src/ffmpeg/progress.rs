//! ffmpeg's progress: blocks of `name=value` lines, each block ended by a line `progress=`.

use std::time::Duration;

use quintet_contract::JsonObject;
use serde_json::Value;

/// How far ffmpeg is. A number that ffmpeg does not know, such as the size of a network stream, is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Progress {
    frame: Option<u64>,
    fps: Option<f64>,
    bitrate_kbps: Option<f64>,
    out_time_ms: Option<u64>,
    speed: Option<f64>,
    total_size: Option<u64>,
    drop_frames: Option<u64>,
}

impl Progress {
    /// As stream metadata.
    pub(crate) fn to_object(&self) -> JsonObject {
        let fields = [
            ("frame", self.frame.map(Value::from)),
            ("fps", self.fps.map(Value::from)),
            ("bitrateKbps", self.bitrate_kbps.map(Value::from)),
            ("outTimeMs", self.out_time_ms.map(Value::from)),
            ("speed", self.speed.map(Value::from)),
            ("totalSize", self.total_size.map(Value::from)),
            ("dropFrames", self.drop_frames.map(Value::from)),
        ];
        let known = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        known.collect()
    }

    /// Whether anything has come out.
    pub(crate) fn has_output(&self) -> bool {
        self.position() != Position::default()
    }

    fn position(&self) -> Position {
        let at = |number: Option<u64>| number.unwrap_or_default();
        Position {
            frame: at(self.frame),
            total_size: at(self.total_size),
            out_time_ms: at(self.out_time_ms),
        }
    }
}

/// Puts lines together.
#[derive(Debug, Default)]
pub(crate) struct ProgressReader {
    block: Progress,
}

impl ProgressReader {
    /// Takes a line; returns the block that it ends.
    pub(crate) fn line(&mut self, line: &str) -> Option<Progress> {
        let (name, value) = line.split_once('=')?;
        let value = value.trim();
        match name.trim() {
            "frame" => self.block.frame = value.parse().ok(),
            "fps" => self.block.fps = number(value),
            "bitrate" => self.block.bitrate_kbps = number(value.trim_end_matches("kbits/s")),
            "out_time_us" => {
                let micros = value.parse::<u64>().ok();
                self.block.out_time_ms = micros.map(|micros| micros / 1000);
            }
            "speed" => self.block.speed = number(value.trim_end_matches('x')),
            "total_size" => self.block.total_size = value.parse().ok(),
            "drop_frames" => self.block.drop_frames = value.parse().ok(),
            "progress" => return Some(std::mem::take(&mut self.block)),
            _ => {}
        }
        None
    }
}

/// JSON has no infinity.
fn number(text: &str) -> Option<f64> {
    text.trim()
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    frame: u64,
    total_size: u64,
    out_time_ms: u64,
}

/// Notices when frames and bytes stand still.
#[derive(Debug)]
pub(crate) struct StallWatch {
    limit: Duration,
    position: Position,
    since: Duration,
}

impl StallWatch {
    /// Begins to watch; times count from here.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            position: Position::default(),
            since: Duration::ZERO,
        }
    }

    /// Whether nothing has moved for too long.
    pub(crate) fn is_stalled(&mut self, progress: &Progress, now: Duration) -> bool {
        let position = progress.position();
        if position != self.position {
            self.position = position;
            self.since = now;
        }
        now.saturating_sub(self.since) >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Option<Progress> {
        let mut reader = ProgressReader::default();
        text.lines().filter_map(|line| reader.line(line)).last()
    }

    #[test]
    fn a_block_is_read_and_unknown_numbers_are_left_out() {
        let progress = read(
            "frame=132\nfps=24.98\nstream_0_0_q=-1.0\nbitrate= 206.1kbits/s\ntotal_size=135018\nout_time_us=5240078\n\
             out_time=00:00:05.240078\ndup_frames=0\ndrop_frames=1\nspeed=0.992x\nprogress=continue\n",
        )
        .unwrap();
        assert_eq!(
            Value::Object(progress.to_object()),
            json!({"frame": 132, "fps": 24.98, "bitrateKbps": 206.1, "outTimeMs": 5240, "speed": 0.992, "totalSize": 135018, "dropFrames": 1})
        );
        let unknown = read("frame=0\nbitrate=N/A\ntotal_size=N/A\nout_time_us=-9223372036854775807\nspeed=N/A\nprogress=continue").unwrap();
        assert_eq!(Value::Object(unknown.to_object()), json!({"frame": 0}));
        assert!(!unknown.has_output());
        assert_eq!(read("frame=1\nfps=2"), None, "a block that has not ended");
    }

    #[test]
    fn standing_still_is_noticed_and_any_movement_counts() {
        let at = |frame, size| Progress {
            frame: Some(frame),
            total_size: Some(size),
            ..Progress::default()
        };
        let seconds = Duration::from_secs;
        let mut watch = StallWatch::new(seconds(15));
        assert!(!watch.is_stalled(&at(0, 0), seconds(14)));
        assert!(!watch.is_stalled(&at(1, 0), seconds(15)));
        assert!(!watch.is_stalled(&at(1, 9), seconds(29)));
        assert!(!watch.is_stalled(&at(1, 9), seconds(43)));
        assert!(watch.is_stalled(&at(1, 9), seconds(44)));
    }

    #[test]
    fn a_source_that_never_sends_anything_stalls_as_well() {
        let mut watch = StallWatch::new(Duration::from_secs(15));
        assert!(watch.is_stalled(&Progress::default(), Duration::from_secs(15)));
    }
}
