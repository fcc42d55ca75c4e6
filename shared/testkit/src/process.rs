//! A child process that cannot outlive its test: dropped, it is killed and reaped, and it dies with the test process
//! also when that is killed.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::deathsig::die_with_parent;
use crate::wait::Wait;

/// Waiting room of the starting thread; a full room only makes the next test wait its turn.
const STARTS_WAITING: usize = 16;

/// How long a stop signal may take to reach the last thread on a busy machine.
const PAUSE_DEADLINE: Duration = Duration::from_secs(10);

/// A command to start and where to send the child.
type Start = (Command, mpsc::SyncSender<io::Result<Child>>);

/// The thread that starts every child, because the kernel ties a child to its starting thread.
static STARTER: LazyLock<mpsc::SyncSender<Start>> = LazyLock::new(|| {
    let (sender, starts) = mpsc::sync_channel::<Start>(STARTS_WAITING);
    std::thread::Builder::new()
        .name("testkit-starter".to_owned())
        .spawn(move || {
            for (mut command, answer) in starts {
                // A test that gave up waiting has dropped its end; the child is then dropped with the answer.
                let _ = answer.send(command.spawn());
            }
        })
        .expect("a thread can be started");
    sender
});

/// A running (or ended, not yet dropped) child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts the command.
    pub fn spawn(mut command: Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        die_with_parent(&mut command);
        let (answer, child) = mpsc::sync_channel(1);
        STARTER
            .send((command, answer))
            .context("the starting thread is gone")?;
        let child = child.recv().context("the starting thread is gone")?;
        let child = child.with_context(|| format!("starting {name}"))?;
        Ok(Self { name, child })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes.
    pub fn child_mut(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal; a process that has already ended is an error.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if let Some(status) = self.exited()? {
            anyhow::bail!(
                "signalling {}: it has already ended with {status}",
                self.name
            );
        }
        kill_process(self.pid()?, signal)
            .with_context(|| format!("sending {signal:?} to {}", self.name))
    }

    /// Freezes the process; returns once it really stands still.
    pub async fn pause(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        // The signal is only sent: a thread on another core runs on for a moment. The kernel reports the stop to the
        // parent when the last thread has stopped.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let pid = self.pid()?;
        let mut wait = Wait::new(format!("{} to stand still", self.name), PAUSE_DEADLINE);
        while wait
            .check(async { waitid(WaitId::Pid(pid), stopped).is_ok_and(|seen| seen.is_some()) })
            .await?
            .is_none()
        {}
        Ok(())
    }

    /// Lets a paused process continue; a running one takes no notice.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.context("a process id is positive")
    }

    /// The exit status, when the process has ended.
    pub fn exited(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("asking whether {} has ended", self.name))
    }

    /// Kills the process outright (SIGKILL) and reaps it; an ended one is fine.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .with_context(|| format!("killing {}", self.name))?;
        self.child
            .wait()
            .with_context(|| format!("waiting for the killed {}", self.name))?;
        Ok(())
    }

    /// Waits until the process has ended by itself.
    pub async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let mut wait = Wait::new(format!("{} to end", self.name), deadline);
        loop {
            let status = self.exited()?;
            if let Some(status) = wait.check(async { status.ok_or("still running") }).await? {
                return Ok(status);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to do when this fails; the kernel's tie still holds.
        let _ = self.kill();
    }
}
