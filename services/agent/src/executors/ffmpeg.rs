//! `ffmpeg`: records or forwards a stream with the real ffmpeg.

use std::path::PathBuf;
use std::time::Duration;

use quintet_contract::JsonObject;

use super::{Abilities, fields};

const SECOND: Duration = Duration::from_secs(1);

/// An encoding to run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FfmpegPlan {
    /// Options before the input, such as `-re`.
    pub(crate) input_options: Vec<String>,
    /// What to read.
    pub(crate) source: String,
    /// Where to write.
    pub(crate) output: Output,
    /// The container, where its name does not imply it.
    pub(crate) format: Option<String>,
    /// The video encoder, `copy` or `none`.
    pub(crate) video_codec: Option<String>,
    /// The audio encoder, `copy` or `none`.
    pub(crate) audio_codec: Option<String>,
    /// How much to write.
    pub(crate) duration: Option<Duration>,
    /// Options before the output.
    pub(crate) output_options: Vec<String>,
    /// Where ffmpeg starts; relative names inside playlists and concat files start there, too.
    pub(crate) work_dir: PathBuf,
}

/// Where an encoding goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// A file; its folder is made.
    File(PathBuf),
    /// Anything that ffmpeg can write to.
    Url(String),
}

/// What happens to the audio, and so whether it can be muted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AudioPath {
    /// Through our volume filter.
    Filtered,
    /// Untouched.
    Copied,
    /// Left out.
    Absent,
}

pub(super) fn plan(config: &JsonObject, abilities: &Abilities) -> Result<FfmpegPlan, String> {
    let source = fields::text(config, "streamUrl")?.ok_or("ffmpeg needs streamUrl")?;
    let path = fields::text(config, "outputPath")?;
    let output = match (path, fields::text(config, "outputUrl")?) {
        (Some(path), None) => Output::File(abilities.work_dir.join(path)),
        (None, Some(url)) if url.starts_with('-') => {
            return Err("outputUrl must not begin with -".to_owned());
        }
        (None, Some(url)) => Output::Url(url),
        (Some(_), Some(_)) => {
            return Err("ffmpeg takes outputPath or outputUrl, not both".to_owned());
        }
        (None, None) => return Err("ffmpeg needs outputPath or outputUrl".to_owned()),
    };
    Ok(FfmpegPlan {
        input_options: fields::texts(config, "inputOptions")?,
        source,
        output,
        format: fields::text(config, "outputFormat")?,
        video_codec: fields::text(config, "videoCodec")?,
        audio_codec: fields::text(config, "audioCodec")?,
        duration: fields::duration(config, "durationSec", SECOND)?,
        output_options: fields::texts(config, "outputOptions")?,
        work_dir: abilities.work_dir.clone(),
    })
}

impl FfmpegPlan {
    /// What happens to the audio.
    pub(crate) fn audio_path(&self) -> AudioPath {
        match self.audio_codec.as_deref() {
            Some("copy") => AudioPath::Copied,
            Some("none") => AudioPath::Absent,
            Some(_) | None => AudioPath::Filtered,
        }
    }
}
