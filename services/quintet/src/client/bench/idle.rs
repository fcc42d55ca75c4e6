//! What `quintet up` takes when there is nothing to do, its nats-server included.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::process::{children, proportional, resident};
use super::{Measured, PATIENCE, push, spinner};
use crate::exit::Outcome;

pub(super) async fn measure(folder: &Path, results: &mut Vec<Measured>) -> Outcome {
    let bar = spinner("an idle system");
    let mut up = Command::new(std::env::current_exe()?)
        .args(["up", "--port", "0", "--data-dir"])
        .arg(folder)
        .env_remove("NATS_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start `quintet up`")?;
    let mut lines = BufReader::new(up.stdout.take().context("no output")?).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("ready ") {
                return anyhow::Ok(());
            }
        }
        anyhow::bail!("`quintet up` ended before it was ready")
    };
    timeout(PATIENCE, ready)
        .await
        .context("not ready in time")??;
    let pid = up.id().context("`quintet up` has ended")?;
    let ours = resident(pid)?;
    let whole = proportional(&[vec![pid], children(pid)?].concat())?;
    push(results, "idle `quintet up`, resident", ours, "MiB", None);
    let what = "the same with nats-server and the agents' reapers, shared pages once";
    push(results, what, whole, "MiB", None);
    up.kill().await?;
    bar.finish_and_clear();
    Ok(())
}
