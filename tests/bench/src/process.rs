//! Parts of the system as processes of their own, so that their cost can be measured apart from ours, and what the
//! kernel reports of processes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use quintet::system::{BusSettings, RoleCredentials};
use quintet_bus::Credentials;
use quintet_contract::permission::Role;
use tokio::process::{Child, Command};

/// What parts are started with.
pub(crate) struct Parts<'a> {
    pub(crate) program: &'a Path,
    pub(crate) settings: &'a BusSettings,
}

impl Parts<'_> {
    /// Starts one service under its own credentials.
    pub(crate) fn serve(
        &self,
        role: Role,
        arguments: &[&str],
        output: Stdio,
    ) -> anyhow::Result<Child> {
        let service = role.user();
        let mut command = Command::new(self.program);
        command
            .args(["serve", &service, "--nats-url", &self.settings.url])
            .args(arguments)
            .env("RUST_LOG", "warn")
            .env("RATE_LIMIT_MAX", "0")
            .stdin(Stdio::null())
            .stdout(output)
            .kill_on_drop(true);
        let credentials = match &self.settings.credentials {
            RoleCredentials::Same(credentials) => Some(credentials),
            RoleCredentials::Each(each) => each.get(&role),
        };
        if let Some(Credentials::UserPassword { user, password }) = credentials {
            command
                .env("NATS_USER", user)
                .env("NATS_PASSWORD", password.expose());
        }
        command
            .spawn()
            .with_context(|| format!("cannot start the {service}"))
    }
}

/// What this process and those that it started have used of processors so far.
pub(crate) fn ours() -> anyhow::Result<Duration> {
    let pid = std::process::id();
    let mut used = processor_time(pid)?;
    for child in children(pid)? {
        used += processor_time(child)?;
    }
    Ok(used)
}

/// What a process has used of processors so far: fields 14 and 15 of `/proc/PID/stat`, in hundredths of a second.
pub(crate) fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces; what follows its bracket does not.
    let (_, rest) = stat
        .rsplit_once(')')
        .context("the kernel speaks otherwise")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
    };
    let (user, system) = ticks(11)
        .zip(ticks(12))
        .context("the kernel speaks otherwise")?;
    Ok(Duration::from_millis((user + system) * 10))
}

/// Resident memory of a process in MiB.
pub(crate) fn resident(pid: u32) -> anyhow::Result<f64> {
    mebibytes(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Memory of several processes in MiB, what they share counted once: their proportional set sizes.
pub(crate) fn proportional(pids: &[u32]) -> anyhow::Result<f64> {
    let own = |pid| mebibytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
    pids.iter().map(own).sum()
}

/// A line of a file about memory.
fn mebibytes(file: &str, field: &str) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.context("the kernel speaks otherwise")? / 1024.0)
}

/// The processes that a process has started and that still run.
pub(crate) fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("children"))?;
        children.extend(
            text.split_whitespace()
                .filter_map(|child| child.parse::<u32>().ok()),
        );
    }
    Ok(children)
}
