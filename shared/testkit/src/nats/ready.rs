//! Whether a NATS server answers. A proxy in front of a container accepts connections long before the server does, so
//! a connection proves nothing: the server's greeting does.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// How long a server may take to recover its store and answer, on a machine busy with other tests.
pub(super) const START_DEADLINE: Duration = Duration::from_secs(30);
/// The greeting of a server.
const GREETING: &[u8] = b"INFO ";

/// Looks once whether the server at this address greets.
pub(super) async fn greeting(host: &str, port: u16) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect((host, port))
        .await
        .context("connecting")?;
    let mut first = [0; GREETING.len()];
    socket
        .read_exact(&mut first)
        .await
        .context("reading the greeting")?;
    ensure!(first == GREETING, "it is not NATS that answers");
    Ok(())
}
