//! `exec`: any program, started from its arguments as they are. A shell only when asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use quintet_contract::JsonObject;
use serde_json::Value;

use super::{Abilities, fields};

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExecPlan {
    /// The program and its arguments.
    pub(crate) program: String,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Added to what it inherits of the agent's environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Where it starts.
    pub(crate) cwd: PathBuf,
    /// Whether live commands go to its standard input.
    pub(crate) stdin_commands: bool,
}

pub(super) fn plan(config: &JsonObject, abilities: &Abilities) -> Result<ExecPlan, String> {
    let (program, args) = argv(config)?;
    let cwd = fields::text(config, "cwd")?;
    Ok(ExecPlan {
        program,
        args,
        env: fields::map(config, "env")?,
        // Joining an absolute path gives that path.
        cwd: abilities.work_dir.join(cwd.unwrap_or_default()),
        stdin_commands: fields::flag(config, "stdinCommands")?,
    })
}

fn argv(config: &JsonObject) -> Result<(String, Vec<String>), String> {
    let shell = fields::flag(config, "shell")?;
    match config.get("command") {
        Some(Value::String(_)) if shell => {
            let script = fields::text(config, "command")?;
            let script = script.ok_or("command must not be empty")?;
            Ok(("/bin/sh".to_owned(), vec!["-c".to_owned(), script]))
        }
        Some(Value::String(_)) => Err(
            "command must be an array of strings; to run a line in a shell, set shell to true"
                .to_owned(),
        ),
        Some(Value::Array(_)) if shell => {
            Err("command must be a string when shell is true".to_owned())
        }
        _ => {
            let mut argv = fields::texts(config, "command")?.into_iter();
            match argv.next() {
                Some(program) if !program.is_empty() => Ok((program, argv.collect())),
                _ => Err("command must not be empty".to_owned()),
            }
        }
    }
}

impl ExecPlan {
    /// The command to start.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(&self.env);
        command.current_dir(&self.cwd);
        command
    }
}
