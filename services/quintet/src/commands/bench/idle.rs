//! What `quintet up` takes when there is nothing to do, its nats-server included.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::process::{children, proportional, resident};
use super::{Measured, TIMEOUT, push, spinner};
use crate::cli::exit::Outcome;

/// A `quintet up` of its own, killed when it is dropped.
pub(super) struct Up {
    child: Child,
    /// The process.
    pub(super) pid: u32,
    /// Where its edge is.
    pub(super) url: String,
}

impl Up {
    pub(super) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["up", "--port", "0", "--data-dir"])
            .arg(folder)
            .env_remove("NATS_URL")
            .env("RATE_LIMIT_MAX", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start `quintet up`")?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(url) = line.strip_prefix("ready ") {
                    return anyhow::Ok(url.to_owned());
                }
            }
            anyhow::bail!("`quintet up` ended before it was ready")
        };
        let url = timeout(TIMEOUT, ready)
            .await
            .context("not ready in time")??;
        let pid = child.id().context("`quintet up` has ended")?;
        Ok(Self { child, pid, url })
    }

    /// It and the processes that it has started.
    pub(super) fn processes(&self) -> anyhow::Result<Vec<u32>> {
        Ok([vec![self.pid], children(self.pid)?].concat())
    }

    pub(super) async fn kill(mut self) -> Outcome {
        Ok(self.child.kill().await?)
    }
}

pub(super) async fn measure(folder: &Path, results: &mut Vec<Measured>) -> Outcome {
    let bar = spinner("an idle system");
    let up = Up::start(folder).await?;
    let ours = resident(up.pid)?;
    let whole = proportional(&up.processes()?)?;
    push(results, "idle `quintet up`, resident", ours, "MiB", None);
    let what = "the same with nats-server and the agents' reapers, shared pages once";
    push(results, what, whole, "MiB", None);
    up.kill().await?;
    bar.finish_and_clear();
    Ok(())
}
