//! What `quintet up` takes when there is nothing to do, its nats-server included.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::process::{children, proportional, resident};
use crate::{Measured, TIMEOUT, push, spinner};

/// A `quintet up` of its own, killed when it is dropped.
pub(crate) struct Up {
    child: Child,
    /// The process.
    pub(crate) pid: u32,
    /// Where its edge is.
    pub(crate) url: String,
}

impl Up {
    pub(crate) async fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
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
    pub(crate) fn processes(&self) -> anyhow::Result<Vec<u32>> {
        Ok([vec![self.pid], children(self.pid)?].concat())
    }

    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}

pub(crate) async fn measure(
    program: &Path,
    folder: &Path,
    results: &mut Vec<Measured>,
) -> anyhow::Result<()> {
    let bar = spinner("an idle system");
    let up = Up::start(program, folder).await?;
    let ours = resident(up.pid)?;
    let whole = proportional(&up.processes()?)?;
    push(results, "idle `quintet up`, resident", ours, "MiB", None);
    let what = "the same with nats-server and the agents' reapers, shared pages once";
    push(results, what, whole, "MiB", None);
    up.kill().await?;
    bar.finish_and_clear();
    Ok(())
}
