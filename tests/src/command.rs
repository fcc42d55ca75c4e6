//! Programs that a test runs to their end.

use std::process::{Command, Output, Stdio};

use tokio::io::AsyncWriteExt;

use crate::TIMEOUT;

/// Runs a program to its end, with these bytes on its standard input, and returns its exit status and what it printed.
/// The program may talk to services on the test's own runtime, which continues meanwhile. It is killed, and the test
/// fails, when it has not ended after twice [`TIMEOUT`].
pub async fn run_to_end(command: Command, input: &[u8]) -> Output {
    let shown = format!("{command:?}");
    let mut child = tokio::process::Command::from(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let mut stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin.take() {
            // A program that reads nothing may have ended already.
            let _ = stdin.write_all(input).await;
        }
    };
    let run = async { tokio::join!(write, child.wait_with_output()).1 };
    tokio::time::timeout(TIMEOUT * 2, run)
        .await
        .unwrap_or_else(|_| panic!("{shown} did not end in {:?}", TIMEOUT * 2))
        .unwrap_or_else(|error| panic!("{shown}: {error}"))
}
