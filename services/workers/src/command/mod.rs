//! Programs: the handler of nodes of kind `command`.
//!
//! One program is one process group in a fresh folder. It is stopped by SIGTERM, and killed after the grace; what it
//! leaves behind is killed with its group, and the folder is removed. What it prints is read by `output`.

mod folder;
mod output;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_worker::process::{Group, Spawner, Started};
use quintet_worker::program::{EXIT_RETRYABLE, ProgramInput};
use rustix::process::Signal;
use tokio::process::Child;
use tokio::time::{Instant, sleep_until};

use crate::config::RunWorkerConfig;
use crate::error::Error;
use crate::handler::{Handler, TaskContext, TaskFailure};
use folder::{Folder, Root};
use output::{LastOutput, Readers};

/// Starts programs.
#[derive(Debug)]
pub(crate) struct CommandHandler {
    spawner: Spawner,
    root: Arc<Root>,
    kill_grace: Duration,
}

impl CommandHandler {
    /// Makes the folder in which programs work.
    pub(crate) async fn new(config: &RunWorkerConfig, spawner: Spawner) -> Result<Self, Error> {
        let root = Root::open(&config.work_dir, &config.worker);
        let root = root.await.map_err(|source| Error::WorkDir {
            path: config.work_dir.clone(),
            source,
        })?;
        Ok(Self {
            spawner,
            root: Arc::new(root),
            kill_grace: config.kill_grace,
        })
    }

    async fn start(
        &self,
        task: &TaskContext,
        folder: &Folder,
        input: &ProgramInput,
    ) -> Result<Started, TaskFailure> {
        let spec = task.task().command.as_ref();
        let argv = spec.map_or(&[][..], |spec| &spec.argv);
        let Some((program, arguments)) = argv.split_first() else {
            return Err(TaskFailure::new("the task names no program to start"));
        };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder.work());
        // The contract's own variables come last: a node cannot make a program believe that it is another one.
        if let Some(spec) = spec {
            command.envs(&spec.env);
        }
        command.env_remove("RESUME_STATE");
        command.envs(input.variables(task.task(), task.attempt()));
        command.envs(folder.files());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = self.spawner.spawn(command, false).await;
        started.map_err(|error| TaskFailure::new(format!("cannot start {program}: {error}")))
    }

    /// Waits for the end; a program that is to be stopped gets SIGTERM, and is killed when it does not end.
    async fn supervise(
        &self,
        task: &TaskContext,
        child: &mut Child,
        group: &Group,
    ) -> std::io::Result<ExitStatus> {
        let mut kill_at: Option<Instant> = None;
        let mut is_killed = false;
        loop {
            let at = kill_at.unwrap_or_else(Instant::now);
            // All are cancel-safe: waiting for a child and for a stop only look.
            tokio::select! {
                biased;
                status = child.wait() => return status,
                () = task.stopping(), if kill_at.is_none() => {
                    group.signal(Signal::TERM);
                    kill_at = Some(Instant::now() + self.kill_grace);
                }
                () = sleep_until(at), if kill_at.is_some() && !is_killed => {
                    group.signal(Signal::KILL);
                    is_killed = true;
                }
            }
        }
    }
}

impl Handler for CommandHandler {
    async fn handle(&self, task: TaskContext) -> Result<JsonObject, TaskFailure> {
        let input = ProgramInput::of(task.task(), task.resume_state());
        let input = input.map_err(|error| TaskFailure::new(error.to_string()))?;
        let made = self.root.make(&task, &input).await;
        // Another worker may have room.
        let folder = made.map_err(|error| {
            TaskFailure::retryable(format!("cannot make a folder to work in: {error}"))
        })?;
        let done = async {
            let Started { mut child, group } = self.start(&task, &folder, &input).await?;
            let readers = Readers::of(&mut child, &task);
            let status = self.supervise(&task, &mut child, &group).await;
            // Before the last output is read: what the program left behind may hold its pipes open.
            drop(group);
            judge(status, readers.finish(&task).await)
        };
        let done = done.await;
        folder.remove().await;
        done
    }
}

/// What the end of a program means.
fn judge(status: std::io::Result<ExitStatus>, last: LastOutput) -> Result<JsonObject, TaskFailure> {
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            let text = format!("cannot wait for the program: {error}");
            return Err(TaskFailure::retryable(text));
        }
    };
    if status.success() {
        return Ok(JsonObject::new());
    }
    let (how, by_code) = match (status.code(), status.signal()) {
        (Some(code), _) => (
            format!("the program exited with status {code}"),
            code == EXIT_RETRYABLE,
        ),
        (None, signal) => (
            format!(
                "the program was killed by signal {}",
                signal.unwrap_or_default()
            ),
            false,
        ),
    };
    let error = match (last.error, last.stderr) {
        (Some(error), _) => error,
        (None, Some(line)) => format!("{how}; its last line: {line}"),
        (None, None) => how,
    };
    Err(TaskFailure {
        error,
        retryable: last.retryable.unwrap_or(by_code),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(raw: i32, last: LastOutput) -> (String, bool) {
        let failure = judge(Ok(ExitStatus::from_raw(raw)), last).unwrap_err();
        (failure.error, failure.retryable)
    }

    #[test]
    fn the_end_of_a_program_decides_the_outcome() {
        assert!(judge(Ok(ExitStatus::from_raw(0)), LastOutput::default()).is_ok());
        let last = || LastOutput {
            stderr: Some("no disk".to_owned()),
            ..LastOutput::default()
        };
        let text = "the program exited with status 1; its last line: no disk".to_owned();
        assert_eq!(failure(1 << 8, last()), (text, false));
        let text = "the program exited with status 3".to_owned();
        assert_eq!(failure(3 << 8, LastOutput::default()), (text, true));
        let text = "the program was killed by signal 9".to_owned();
        assert_eq!(failure(9, LastOutput::default()), (text, false));
    }

    #[test]
    fn an_error_event_of_the_program_overrides_its_exit_code() {
        let last = LastOutput {
            error: Some("the disk is full".to_owned()),
            retryable: Some(true),
            stderr: Some("trace".to_owned()),
        };
        assert_eq!(failure(1 << 8, last), ("the disk is full".to_owned(), true));
    }
}
