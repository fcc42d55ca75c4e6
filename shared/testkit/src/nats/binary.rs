//! NATS as a local process: a free port, a temporary store, an end by process id.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use super::Options;
use super::disk::Disk;
use super::ready::{START_DEADLINE, greeting};
use crate::port::free_port;
use crate::process::Process;
use crate::wait::Wait;

/// Names the nats-server to use instead of the one found.
const SERVER_VARIABLE: &str = "QUINTET_NATS_SERVER";
/// Oldest usable version: per-message expiry, delete markers, priority groups.
const OLDEST: (u32, u32) = (2, 12);
/// How long a server may take to close its store after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(15);
/// Ports tried when another process takes the free one before the server does.
const PORT_ATTEMPTS: usize = 5;
/// The server's log line in that case.
const PORT_TAKEN: &str = "address already in use";
/// Lines of the server's log shown when it does not start.
const SHOWN_LOG_LINES: usize = 15;
/// What to do where there is none.
const HOW_TO_INSTALL: &str = "install one with `make setup`, or with \
    `CGO_ENABLED=0 go install github.com/nats-io/nats-server/v2@v2.15.3`, or name one in QUINTET_NATS_SERVER";

#[derive(Debug)]
pub(super) struct BinaryServer {
    // Before the folder: fields are dropped in this order, and the process must be gone before its store is removed.
    process: Process,
    disk: Option<Disk>,
    folder: TempDir,
    program: PathBuf,
    args: Vec<String>,
    port: u16,
}

impl BinaryServer {
    pub(super) async fn start(options: Options) -> anyhow::Result<Self> {
        let program = find_server()?;
        let folder = tempfile::Builder::new()
            .prefix("quintet-nats-")
            .tempdir()
            .context("creating a store")?;
        let mut args = options.args;
        if let Some(text) = options.config {
            let path = folder.path().join("nats.conf");
            fs::write(&path, text).context("writing the server's configuration")?;
            args.extend(["-c".to_owned(), path.display().to_string()]);
        }
        let disk = match options.disk_bytes {
            Some(bytes) => Some(Disk::mount(&store_path(folder.path()), bytes).await?),
            None => None,
        };
        let mut server = Self::spawn(program, folder, disk, args)?;
        for _ in 1..PORT_ATTEMPTS {
            match server.wait_until_ready().await {
                Err(_) if server.log().contains(PORT_TAKEN) => server.start_on_another_port()?,
                other => return other.map(|()| server),
            }
        }
        server.wait_until_ready().await.map(|()| server)
    }

    fn spawn(
        program: PathBuf,
        folder: TempDir,
        disk: Option<Disk>,
        args: Vec<String>,
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let process = spawn(&program, folder.path(), disk.as_ref(), &args, port)?;
        Ok(Self {
            process,
            disk,
            folder,
            program,
            args,
            port,
        })
    }

    fn start_on_another_port(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        fs::write(log_path(self.folder.path()), "").context("emptying the server's log")?;
        self.port = free_port()?;
        self.spawn_again()
    }

    fn spawn_again(&mut self) -> anyhow::Result<()> {
        let (folder, disk) = (self.folder.path(), self.disk.as_ref());
        self.process = spawn(&self.program, folder, disk, &self.args, self.port)?;
        Ok(())
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        if self.process.exited()?.is_some() {
            return Ok(());
        }
        // First, because a paused process takes no other signal.
        self.process.resume()?;
        self.process.signal(Signal::TERM)?;
        self.process.wait(STOP_DEADLINE).await?;
        Ok(())
    }

    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop().await?;
        self.spawn_again()?;
        self.wait_until_ready().await
    }

    pub(super) async fn pause(&mut self) -> anyhow::Result<()> {
        self.process.pause().await
    }

    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        self.process.resume()
    }

    /// Waits for the greeting, and for the file in which this very process notes that it listens: the greeting alone
    /// may be that of another server, when this one is about to end because the port is taken.
    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let file = format!("nats-server_{}.ports", self.process.id());
        let file = self.folder.path().join(file);
        let mut wait = Wait::new(
            format!("NATS to answer on port {}", self.port),
            START_DEADLINE,
        );
        loop {
            self.check_alive()?;
            let check = async {
                ensure!(file.is_file(), "it does not listen yet");
                greeting("127.0.0.1", self.port).await
            };
            if wait.check(check).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Fails with the end of the server's log when it has ended and will never answer.
    fn check_alive(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.process.exited()? else {
            return Ok(());
        };
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(SHOWN_LOG_LINES)..].join("\n");
        bail!("nats-server ended ({status}); its log ends with:\n{tail}")
    }

    fn log(&self) -> String {
        fs::read_to_string(log_path(self.folder.path())).unwrap_or_default()
    }
}

/// A nats-server that is new enough: the one named in `QUINTET_NATS_SERVER`, else the first on PATH, else the one
/// `make setup` built.
pub(super) fn find_server() -> anyhow::Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| search().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

fn search() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os(SERVER_VARIABLE) {
        let named = PathBuf::from(named);
        check_version(&named)
            .with_context(|| format!("{SERVER_VARIABLE} names {}", named.display()))?;
        return Ok(named);
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bin");
    let mut refused = Vec::new();
    for folder in std::env::split_paths(&on_path).chain([built]) {
        let program = folder.join("nats-server");
        if !program.is_file() {
            continue;
        }
        match check_version(&program) {
            Ok(()) => return Ok(program),
            Err(error) => refused.push(format!("{}: {error:#}", program.display())),
        }
    }
    if refused.is_empty() {
        bail!("there is no nats-server on PATH; {HOW_TO_INSTALL}");
    }
    bail!(
        "no usable nats-server ({}); {HOW_TO_INSTALL}",
        refused.join("; ")
    )
}

fn check_version(program: &Path) -> anyhow::Result<()> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .context("asking for its version")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version =
        parse_version(&text).ok_or_else(|| anyhow!("its version is {:?}", text.trim()))?;
    if version < OLDEST {
        bail!(
            "it is version {}.{}, {}.{} or newer is needed",
            version.0,
            version.1,
            OLDEST.0,
            OLDEST.1
        );
    }
    Ok(())
}

/// Major and minor of `nats-server: v2.15.2`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let version = text.trim().rsplit_once('v')?.1;
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn spawn(
    program: &Path,
    folder: &Path,
    disk: Option<&Disk>,
    args: &[String],
    port: u16,
) -> anyhow::Result<Process> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_path(folder))
        .context("opening the server's log")?;
    let mut command = match disk {
        Some(disk) => disk.enter(program),
        None => Command::new(program),
    };
    command
        .args(["-a", "127.0.0.1", "-js", "-p"])
        .arg(port.to_string())
        .arg("-sd")
        .arg(store_path(folder))
        .arg("--ports_file_dir")
        .arg(folder)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Process::spawn(command)
}

fn store_path(folder: &Path) -> PathBuf {
    folder.join("store")
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("nats-server.log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_distinguished_from_a_new_one() {
        assert_eq!(parse_version("nats-server: v2.15.2\n"), Some((2, 15)));
        assert_eq!(parse_version("nats-server: v2.12.0-RC.1"), Some((2, 12)));
        assert_eq!(parse_version("something else"), None);
        assert!(parse_version("nats-server: v2.9.10").unwrap() < OLDEST);
    }
}
