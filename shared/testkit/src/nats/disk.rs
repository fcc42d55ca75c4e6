//! A small disk for a server's store: memory mounted in a mount namespace of its own.
//!
//! A process that sleeps holds the namespace, the server enters it, and both see the disk where every other process
//! sees an empty folder. So nothing has to be unmounted, and the data stays as long as its holder runs, over restarts
//! of the server. Without root it takes a user namespace as well.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::fs::statvfs;
use rustix::process::geteuid;

use crate::process::Process;
use crate::wait::Wait;

/// How long mounting may take.
const MOUNT_DEADLINE: Duration = Duration::from_secs(10);
/// What takes the room away.
const FILLER: &str = "filler";
/// Written at once.
const CHUNK: usize = 64 * 1024;

/// The disk of one server.
#[derive(Debug)]
pub struct Disk {
    holder: Process,
    /// The disk as it is seen from outside its namespace.
    path: PathBuf,
}

impl Disk {
    pub(super) async fn mount(at: &Path, bytes: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(at).context("creating the place of a disk")?;
        let mut command = Command::new("unshare");
        if !geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let script = "mount -t tmpfs -o size=\"$1\" quintet-test \"$0\" && exec sleep infinity";
        command
            .args(["--mount", "sh", "-c", script])
            .arg(at)
            .arg(bytes.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let mut holder = Process::spawn(command).context("a small disk needs unshare and mount")?;
        let inside = at
            .strip_prefix("/")
            .context("a store has an absolute path")?;
        let path = Path::new("/proc")
            .join(holder.id().to_string())
            .join("root")
            .join(inside);
        let mut wait = Wait::new("a small disk to be mounted", MOUNT_DEADLINE);
        loop {
            if let Some(status) = holder.exited()? {
                anyhow::bail!(
                    "cannot mount a small disk here ({status}): it takes root or user namespaces"
                );
            }
            let check = async {
                let found = statvfs(&path).context("looking at the disk")?;
                let size = found.f_blocks * found.f_frsize;
                ensure!(size <= bytes + found.f_frsize, "it is not mounted yet");
                anyhow::Ok(())
            };
            if wait.check(check).await?.is_some() {
                return Ok(Self { holder, path });
            }
        }
    }

    /// A command that runs where the disk is.
    pub(super) fn enter(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--mount"]);
        if !geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command
    }

    /// Bytes that are free.
    pub fn room(&self) -> anyhow::Result<u64> {
        let found = statvfs(&self.path).context("looking at the disk")?;
        Ok(found.f_bavail * found.f_frsize)
    }

    /// Takes the room away but for so many bytes.
    pub fn fill(&self, leave: u64) -> anyhow::Result<()> {
        let mut filler = File::create(self.path.join(FILLER)).context("creating a filler")?;
        loop {
            let more = self.room()?.saturating_sub(leave);
            let more = usize::try_from(more).unwrap_or(CHUNK).min(CHUNK);
            // The last page is never taken whole.
            if more < CHUNK {
                return Ok(());
            }
            filler
                .write_all(&vec![0; more])
                .context("filling the disk")?;
        }
    }

    /// Releases the space that [`Disk::fill`] took.
    pub fn make_room(&self) -> anyhow::Result<()> {
        fs::remove_file(self.path.join(FILLER)).context("removing the filler")
    }
}
