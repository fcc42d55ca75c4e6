//! The protocol of ffmpeg: its arguments, its progress, its answers to commands. All pure.
//!
//! ffmpeg reads commands from its standard input also when that is a pipe: a `c`, then a line with the filter,
//! the time (`-1` is now), the filter's command and its argument. It answers on standard error with one
//! line per filter graph, of which only the one that has our filter answers `ret:0`.

mod args;
mod progress;

use std::time::Duration;

pub(crate) use args::arguments;
pub(crate) use progress::{Progress, ProgressReader, StallWatch};

/// How often ffmpeg prints its progress.
const STATS_PERIOD: Duration = Duration::from_millis(500);

/// The line that sets the volume of our filter.
pub(crate) fn volume_command(muted: bool) -> &'static str {
    if muted {
        "cvolume@mute -1 volume 0\n"
    } else {
        "cvolume@mute -1 volume 1\n"
    }
}

/// What a line of standard error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StderrLine {
    /// A filter graph executed a command.
    Obeyed,
    /// A filter graph did not.
    Refused,
    /// Part of the dialog, of no interest to people.
    Prompt,
    /// Anything else, for the log.
    Talk,
}

/// Distinguishes answers to commands from other output.
pub(crate) fn parse(line: &str) -> StderrLine {
    if let Some(reply) = line.strip_prefix("Command reply for stream ") {
        return match reply.split_once("ret:") {
            Some((_, result)) if result.trim_start().starts_with("0 ") || result.trim() == "0" => {
                StderrLine::Obeyed
            }
            _ => StderrLine::Refused,
        };
    }
    if line.is_empty() || line.starts_with("Enter command: ") {
        return StderrLine::Prompt;
    }
    StderrLine::Talk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_distinguished_from_other_output() {
        assert_eq!(
            parse("Command reply for stream 1: ret:0 res:"),
            StderrLine::Obeyed
        );
        assert_eq!(
            parse("Command reply for stream 0: ret:-38 res:"),
            StderrLine::Refused
        );
        assert_eq!(
            parse("Enter command: <target>|all <time>|-1 <command>"),
            StderrLine::Prompt
        );
        assert_eq!(parse(""), StderrLine::Prompt);
        assert_eq!(parse("Input #0, lavfi, from 'testsrc':"), StderrLine::Talk);
    }
}
