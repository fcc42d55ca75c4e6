//! Child processes of workers: started by one thread, each in a group of its own, none able to outlive its worker.
//!
//! The kernel's parent-death signal fires when the *thread* that started the child ends, and the runtime's
//! worker threads come and go; so all children are started by one thread that runs as long as the worker.
//! The signal reaches the child only. What the child started is killed by the [`reaper`].

mod environment;
mod pre_exec;
pub mod reaper;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::warn;

use crate::clock::Moment;
pub use environment::EnvironmentFilter;

/// Why a worker cannot start child processes.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The thread that starts child processes cannot be started.
    #[error("cannot start the thread that starts child processes")]
    Spawner {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process that cleans up after the worker cannot be started.
    #[error("cannot start the reaper {}", .program.display())]
    Reaper {
        /// Its program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Starts child processes; clones are the same thread. The thread ends, and with it every child, when the
/// last clone is dropped.
#[derive(Clone, Debug)]
pub struct Spawner {
    requests: mpsc::Sender<Request>,
    reaper: Option<Arc<OwnedFd>>,
    environment: Arc<EnvironmentFilter>,
}

#[derive(Debug)]
struct Request {
    command: Command,
    answer: oneshot::Sender<io::Result<Child>>,
}

/// A child and its process group.
#[derive(Debug)]
pub struct Started {
    /// The child.
    pub child: Child,
    /// It and all that it starts.
    pub group: Group,
}

/// A process group of ours; what is left of it is killed when it is dropped.
#[derive(Debug)]
pub struct Group {
    id: Pid,
    reaper: Option<Arc<OwnedFd>>,
}

impl Spawner {
    /// Starts the thread, and the reaper if there is a program for it; children inherit what `environment` lets through.
    ///
    /// # Errors
    /// [`ProcessError`] when the thread or the reaper cannot be started.
    pub fn start(
        reaper: Option<&Path>,
        environment: EnvironmentFilter,
    ) -> Result<Self, ProcessError> {
        let reaper = reaper.map(start_reaper).transpose()?;
        let (requests, work) = mpsc::channel::<Request>();
        let runtime = Handle::current();
        let thread = std::thread::Builder::new().name("quintet-spawner".to_owned());
        let spawned = thread.spawn(move || {
            let _context = runtime.enter();
            while let Ok(Request { command, answer }) = work.recv() {
                let mut command = tokio::process::Command::from(command);
                // Fails when the asker is gone; then the child is killed by being dropped.
                let _ = answer.send(command.kill_on_drop(true).spawn());
            }
        });
        spawned.map_err(|source| ProcessError::Spawner { source })?;
        Ok(Self {
            requests,
            reaper,
            environment: Arc::new(environment),
        })
    }

    /// Starts a child in its own process group; `restartable` is whether it must end when this worker loses contact.
    ///
    /// # Errors
    /// The error of the system when the program cannot be started.
    pub async fn spawn(&self, mut command: Command, restartable: bool) -> io::Result<Started> {
        self.environment.apply(&mut command);
        pre_exec::tie_to_parent(&mut command, self.reaper.clone(), restartable);
        let (answer, started) = oneshot::channel();
        let request = Request { command, answer };
        let gone = || io::Error::other("the thread that starts child processes has ended");
        self.requests.send(request).map_err(|_| gone())?;
        let child = started.await.map_err(|_| gone())??;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let id = id.and_then(Pid::from_raw).ok_or_else(gone)?;
        let reaper = self.reaper.clone();
        Ok(Started {
            child,
            group: Group { id, reaper },
        })
    }
}

impl Spawner {
    /// Sets the deadline by which the reaper ends restartable children, unless it is changed before.
    pub fn fence_at(&self, at: Moment) {
        if let Some(reaper) = &self.reaper {
            let line = format!("={}\n", at.since_start().as_millis());
            pre_exec::notify(reaper.as_fd(), line.as_bytes());
        }
    }
}

impl Group {
    /// Signals every process of the group; one that is gone is no failure.
    pub fn signal(&self, signal: Signal) {
        match kill_process_group(self.id, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => warn!(group = %self.id.as_raw_nonzero(), %error, "cannot signal a group"),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The child itself may be reaped already. Its number is not reused while anything is left
        // of the group, and not within the moment that has passed if nothing is.
        self.signal(Signal::KILL);
        if let Some(reaper) = &self.reaper {
            let line = format!("-{}\n", self.id.as_raw_nonzero());
            pre_exec::notify(reaper.as_fd(), line.as_bytes());
        }
    }
}

fn start_reaper(program: &Path) -> Result<Arc<OwnedFd>, ProcessError> {
    let failed = |source| ProcessError::Reaper {
        program: PathBuf::from(program),
        source,
    };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new(program);
    command
        .arg("reaper")
        .stdin(Stdio::from(OwnedFd::from(theirs)));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    let waiter = std::thread::Builder::new().name("quintet-reaper".to_owned());
    let waited = waiter.spawn(move || {
        let ended = child.wait();
        tracing::debug!(?ended, "the reaper ended");
    });
    waited.map_err(failed)?;
    Ok(Arc::new(OwnedFd::from(ours)))
}
