//! What a job's configuration asks for, read once: a [`Plan`], or a sentence with the problem.
//!
//! The executor is named, or follows from the fields: `command` is exec, `streamUrl` ffmpeg, `durationMs` or
//! `failAfterMs` noop. Fields that an executor does not know are left alone: configurations are shared with
//! third-party agents.

mod exec;
mod ffmpeg;
mod fields;
mod noop;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use quintet_contract::JsonObject;
use quintet_contract::job::executor_of;

pub(crate) use exec::ExecPlan;
pub(crate) use ffmpeg::{AudioPath, FfmpegPlan, Output};
pub(crate) use noop::{NoopEnd, NoopPlan};

/// Commands that every executor knows.
pub(crate) const COMMANDS: [&str; 2] = ["mute", "unmute"];

/// A way to run a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Executor {
    /// Any program.
    Exec,
    /// An encoder.
    Ffmpeg,
    /// Nothing, for a while.
    Noop,
}

/// A name of no executor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no executor {0:?}; there are exec, ffmpeg and noop")]
pub struct UnknownExecutor(String);

impl Executor {
    /// Every executor.
    pub const ALL: [Self; 3] = [Self::Exec, Self::Ffmpeg, Self::Noop];

    /// As configurations name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Ffmpeg => "ffmpeg",
            Self::Noop => "noop",
        }
    }
}

impl fmt::Display for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Executor {
    type Err = UnknownExecutor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL
            .into_iter()
            .find(|executor| executor.as_str() == text);
        found.ok_or_else(|| UnknownExecutor(text.to_owned()))
    }
}

/// What this agent can do.
#[derive(Clone, Debug)]
pub(crate) struct Abilities {
    /// What it may run.
    pub(crate) allowed: BTreeSet<Executor>,
    /// Whether ffmpeg was found.
    pub(crate) ffmpeg: bool,
    /// Where relative paths start.
    pub(crate) work_dir: PathBuf,
}

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Plan {
    /// A program.
    Exec(ExecPlan),
    /// An encoder.
    Ffmpeg(FfmpegPlan),
    /// Nothing, for a while.
    Noop(NoopPlan),
}

/// What becomes of a live command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The running job is asked.
    Deliver,
    /// It cannot be done, and why.
    Decline(String),
    /// There is no such command; these there are.
    Unknown(&'static [&'static str]),
}

impl Abilities {
    /// Names of the executors.
    pub(crate) fn executors(&self) -> Vec<String> {
        let has_program = |executor: &&Executor| match executor {
            Executor::Ffmpeg => self.ffmpeg,
            Executor::Exec | Executor::Noop => true,
        };
        let usable = self.allowed.iter().filter(has_program);
        usable.map(Executor::to_string).collect()
    }

    /// Reads a configuration.
    pub(crate) fn plan(&self, config: &JsonObject) -> Result<Plan, String> {
        let Some(name) = executor_of(config) else {
            return Err(format!(
                "the configuration names no executor; set executor to one of {}, or give command, streamUrl or durationMs",
                self.executors().join(", ")
            ));
        };
        let Ok(executor) = name.parse::<Executor>() else {
            return Err(format!(
                "this agent has no executor {name:?}, only {}",
                self.executors().join(", ")
            ));
        };
        if !self.allowed.contains(&executor) {
            return Err(format!(
                "this agent may not run the executor {executor}, only {}",
                self.executors().join(", ")
            ));
        }
        match executor {
            Executor::Exec => exec::plan(config, self).map(Plan::Exec),
            Executor::Ffmpeg if self.ffmpeg => ffmpeg::plan(config, self).map(Plan::Ffmpeg),
            Executor::Ffmpeg => Err("this agent has no ffmpeg program".to_owned()),
            Executor::Noop => noop::plan(config).map(Plan::Noop),
        }
    }
}

impl Plan {
    /// What becomes of a live command to a job that runs by this plan.
    pub(crate) fn verdict(&self, command: &str) -> Verdict {
        match self {
            Self::Exec(plan) if plan.stdin_commands => Verdict::Deliver,
            Self::Exec(_) => Verdict::Decline(
                "the program takes no commands; its configuration lacks stdinCommands".to_owned(),
            ),
            Self::Ffmpeg(_) | Self::Noop(_) if !COMMANDS.contains(&command) => {
                Verdict::Unknown(&COMMANDS)
            }
            Self::Ffmpeg(plan) => match plan.audio_path() {
                AudioPath::Filtered => Verdict::Deliver,
                AudioPath::Copied => Verdict::Decline(
                    "the audio is copied and not encoded, so it cannot be changed".to_owned(),
                ),
                AudioPath::Absent => Verdict::Decline("the output has no audio".to_owned()),
            },
            Self::Noop(_) => Verdict::Deliver,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(config: serde_json::Value) -> Result<Plan, String> {
        let abilities = Abilities {
            allowed: Executor::ALL.into(),
            ffmpeg: true,
            work_dir: PathBuf::from("/work"),
        };
        abilities.plan(config.as_object().unwrap())
    }

    #[test]
    fn the_executor_follows_from_the_fields() {
        assert!(matches!(
            plan(json!({"command": ["true"]})),
            Ok(Plan::Exec(_))
        ));
        assert!(matches!(plan(json!({"durationMs": 5})), Ok(Plan::Noop(_))));
        assert!(matches!(
            plan(json!({"executor": "noop"})),
            Ok(Plan::Noop(_))
        ));
        let record = json!({"streamUrl": "http://a/b", "outputPath": "x.mp4"});
        assert!(matches!(plan(record), Ok(Plan::Ffmpeg(_))));
    }

    #[test]
    fn an_executor_that_is_not_allowed_is_neither_announced_nor_run() {
        let abilities = Abilities {
            allowed: [Executor::Noop].into(),
            ffmpeg: false,
            work_dir: PathBuf::from("/work"),
        };
        assert_eq!(abilities.executors(), ["noop"]);
        let plan = |config: serde_json::Value| abilities.plan(config.as_object().unwrap());
        assert!(plan(json!({"durationMs": 5})).is_ok());
        let text = "this agent may not run the executor exec, only noop";
        assert_eq!(plan(json!({"command": ["true"]})), Err(text.to_owned()));
        let record = json!({"streamUrl": "http://a/b", "outputPath": "x.mp4"});
        let text = "this agent may not run the executor ffmpeg, only noop";
        assert_eq!(plan(record), Err(text.to_owned()));
    }

    #[test]
    fn an_invalid_configuration_is_reported_in_a_sentence() {
        let cases = [
            (json!({}), "names no executor"),
            (json!({"templateId": "t"}), "names no executor"),
            (json!({"executor": 5}), "names no executor"),
            (
                json!({"executor": "docker"}),
                "no executor \"docker\", only exec, ffmpeg, noop",
            ),
            (json!({"command": []}), "command must not be empty"),
            (json!({"command": "ls -l"}), "set shell to true"),
            (
                json!({"command": ["a", 5]}),
                "command must be an array of strings",
            ),
            (json!({"command": ["a\u{0}"]}), "must not hold NUL"),
            (
                json!({"command": ["a"], "env": {"A": 5}}),
                "env must be an object of strings",
            ),
            (
                json!({"command": ["a"], "stdinCommands": "yes"}),
                "stdinCommands must be true or false",
            ),
            (json!({"streamUrl": "x"}), "needs outputPath or outputUrl"),
            (
                json!({"streamUrl": "x", "outputPath": "a", "outputUrl": "b"}),
                "not both",
            ),
            (
                json!({"streamUrl": "x", "outputPath": "a", "durationSec": -1}),
                "durationSec must be",
            ),
            (
                json!({"executor": "ffmpeg", "outputPath": "a"}),
                "needs streamUrl",
            ),
            (json!({"durationMs": "long"}), "durationMs must be"),
        ];
        for (config, wanted) in cases {
            let error = plan(config.clone()).unwrap_err();
            assert!(error.contains(wanted), "{config}: {error}");
        }
    }

    #[test]
    fn an_agent_without_ffmpeg_reports_it() {
        let abilities = Abilities {
            allowed: Executor::ALL.into(),
            ffmpeg: false,
            work_dir: PathBuf::from("/work"),
        };
        assert_eq!(abilities.executors(), ["exec", "noop"]);
        let config = json!({"streamUrl": "x", "outputPath": "a"});
        let error = abilities.plan(config.as_object().unwrap()).unwrap_err();
        assert_eq!(error, "this agent has no ffmpeg program");
    }

    #[test]
    fn commands_go_only_to_programs_that_can_handle_them() {
        let verdict = |config, command| plan(config).unwrap().verdict(command);
        let exec = json!({"command": ["a"]});
        assert!(matches!(verdict(exec, "mute"), Verdict::Decline(_)));
        let listens = json!({"command": ["a"], "stdinCommands": true});
        assert_eq!(verdict(listens, "anything"), Verdict::Deliver);
        let records = json!({"streamUrl": "x", "outputPath": "a.mp4"});
        assert_eq!(verdict(records.clone(), "mute"), Verdict::Deliver);
        assert_eq!(verdict(records, "dance"), Verdict::Unknown(&COMMANDS));
        let copies = json!({"streamUrl": "x", "outputPath": "a.mp4", "audioCodec": "copy"});
        assert!(matches!(verdict(copies, "mute"), Verdict::Decline(_)));
    }
}
