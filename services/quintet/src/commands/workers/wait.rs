//! `quintet workers wait`: until enough workers are there.

use std::time::Duration;

use clap::Args;
use quintet_contract::worker::WorkerKind;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::cli::exit::{self, Failure};

/// Wait between two polls of the list.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Args)]
pub(crate) struct WaitCommand {
    /// Their kind: run, frames, infer, tts or asr
    #[arg(long)]
    pub(super) kind: WorkerKind,
    /// How many
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// Seconds after which it gives up with exit code 1
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// The workers that are present, as soon as enough of them are not draining.
pub(super) async fn wait(
    command: &WaitCommand,
    list: impl AsyncFn() -> anyhow::Result<Vec<Value>>,
) -> anyhow::Result<Vec<Value>> {
    let deadline = Instant::now() + Duration::from_secs(command.timeout);
    loop {
        let mut present = list().await?;
        present.retain(|worker| worker["state"] != "draining");
        if present.len() >= command.count {
            return Ok(present);
        }
        if Instant::now() >= deadline {
            let text = format!(
                "{} of {} workers of kind {} are present and not draining after {} s",
                present.len(),
                command.count,
                command.kind,
                command.timeout
            );
            return Err(Failure::new(exit::FAILED, text).into());
        }
        sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::json;

    use super::*;

    fn command(count: usize) -> WaitCommand {
        WaitCommand {
            kind: WorkerKind::Run,
            count,
            timeout: 1,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn draining_workers_do_not_count_and_the_wait_has_an_end() {
        let polls = Cell::new(0);
        let list = async || {
            polls.set(polls.get() + 1);
            let state = if polls.get() < 3 { "draining" } else { "ready" };
            anyhow::Ok(vec![json!({"state": state}), json!({"state": "busy"})])
        };
        let present = wait(&command(2), &list).await.unwrap();
        assert_eq!((present.len(), polls.get()), (2, 3));
        let failed = wait(&command(3), &list).await.unwrap_err();
        let text = "2 of 3 workers of kind run are present and not draining after 1 s";
        assert_eq!(failed.to_string(), text);
    }
}
