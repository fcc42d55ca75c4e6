//! SIGTERM and SIGINT as a request to stop; a second one as an order.
//!
//! The first signal cancels a token, and the process winds down at its own pace. The second ends the
//! process at once with exit code 130: the operator has lost patience, and nothing here may be in the way.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code after a second signal.
pub const EXIT_IMPATIENT: i32 = 130;

/// Why signals cannot be listened to.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen to {name}")]
pub struct Error {
    name: &'static str,
    source: std::io::Error,
}

/// Listens to SIGTERM and SIGINT from now on. The returned token is cancelled by the first of them.
///
/// To be called once, by the program, within a Tokio runtime.
///
/// # Errors
/// [`Error`] when the signals cannot be subscribed to.
pub fn listen() -> Result<CancellationToken, Error> {
    let mut terminate = open(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = open(SignalKind::interrupt(), "SIGINT")?;
    let token = CancellationToken::new();
    let requested = token.clone();
    // Belongs to no group of tasks: it must still listen while every group is being stopped.
    tokio::spawn(async move {
        let name = next(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = name, "stopping");
        requested.cancel();
        let name = next(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = name, "second signal, leaving at once");
        std::process::exit(EXIT_IMPATIENT);
    });
    Ok(token)
}

fn open(kind: SignalKind, name: &'static str) -> Result<Signal, Error> {
    signal(kind).map_err(|source| Error { name, source })
}

/// Cancel-safe, as `Signal::recv` is.
async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        biased;
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Lines};
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::time::Duration;

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    const CHILD: &str = "QUINTET_TEST_SIGNAL_CHILD";

    /// The other half of the test below, run in a process of its own.
    #[test]
    fn child_process_listens_and_never_ends_by_itself() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let token = listen().unwrap();
            println!("\nlistening");
            token.cancelled().await;
            println!("\nstopping");
            tokio::time::sleep(Duration::from_secs(30)).await;
        });
    }

    #[test]
    fn the_first_signal_asks_and_the_second_ends_the_process() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("signals::tests::child_process_listens_and_never_ends_by_itself")
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        expect_line(&mut lines, "listening");
        send(&child, Signal::TERM);
        expect_line(&mut lines, "stopping");
        send(&child, Signal::INT);
        assert_eq!(child.wait().unwrap().code(), Some(EXIT_IMPATIENT));
    }

    /// The child ends after 30 s at the latest, which closes its output and fails this.
    fn expect_line(lines: &mut Lines<BufReader<ChildStdout>>, wanted: &str) {
        let found = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line == wanted);
        assert!(
            found,
            "the child closed its output without printing {wanted:?}"
        );
    }

    fn send(child: &Child, signal: Signal) {
        kill_process(Pid::from_child(child), signal).unwrap();
    }
}
