//! A loopback relay between a client and a server that a test can break.
//!
//! ```text
//! Pass ── stall ──▶ Stalled     connections stay, nothing moves, new ones are accepted and get nothing
//!   ▲ ╲── cut ────▶ Cut         connections are reset, new ones are reset at once
//!   └──── heal ──── from both
//! ```
//!
//! The port stays bound while the link is cut, so that no other process can take it in the meantime; a client sees a
//! reset instead of a refusal.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Bytes moved in one step; also what a stalled direction may hold back.
const BUFFER_BYTES: usize = 16 * 1024;

/// What the link does with traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Stalled,
    Cut,
}

/// The mode, and how often the link was cut: a connection older than a cut dies even if the link healed at once.
#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    cuts: u64,
}

/// A relay in front of a server; dropped, it closes everything.
#[derive(Debug)]
pub struct Link {
    addr: SocketAddr,
    state: watch::Sender<State>,
    relay: JoinHandle<()>,
}

impl Link {
    /// Listens on a free loopback port and relays every connection to this address.
    pub async fn to(server: impl ToSocketAddrs) -> anyhow::Result<Self> {
        let server = tokio::net::lookup_host(server)
            .await
            .context("resolving the relayed server")?;
        let server = server
            .into_iter()
            .next()
            .context("the relayed server has no address")?;
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("listening for the relay")?;
        let addr = listener
            .local_addr()
            .context("reading the relay's address")?;
        let (state, watched) = watch::channel(State {
            mode: Mode::Pass,
            cuts: 0,
        });
        let relay = tokio::spawn(accept(listener, server, watched));
        Ok(Self { addr, state, relay })
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Resets all connections, and new ones at once.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.mode = Mode::Cut;
            state.cuts += 1;
        });
    }

    /// Keeps all connections but moves nothing.
    pub fn stall(&self) {
        self.state.send_modify(|state| state.mode = Mode::Stalled);
    }

    /// Moves everything again; what was held back by a stall arrives.
    pub fn heal(&self) {
        self.state.send_modify(|state| state.mode = Mode::Pass);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The task owns the listener and the set of connections: aborting it closes them all.
        self.relay.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // Both are cancel-safe: a finished task is returned once, a connection stays in the backlog.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                // An accept can fail for a client that is already gone; the next one is not affected.
                let Ok((client, _)) = accepted else { continue };
                let now = *state.borrow();
                if now.mode == Mode::Cut {
                    let _ = client.set_zero_linger();
                } else {
                    connections.spawn(relay(client, server, state.clone(), now.cuts));
                }
            }
        }
    }
}

/// Relays one connection until both directions ended or the link is cut.
async fn relay(
    client: TcpStream,
    server: SocketAddr,
    mut state: watch::Receiver<State>,
    born: u64,
) {
    let pumps_state = state.clone();
    let pumps = async move {
        let server = TcpStream::connect(server).await?;
        for side in [&client, &server] {
            side.set_nodelay(true)?;
            side.set_zero_linger()?;
        }
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = server.into_split();
        tokio::try_join!(
            pump(client_in, server_out, pumps_state.clone()),
            pump(server_in, client_out, pumps_state)
        )
    };
    tokio::select! {
        biased;
        _ = state.wait_for(|now| now.cuts > born) => {}
        // How a connection ended is the business of its two ends.
        _ = pumps => {}
    }
}

/// Moves bytes one way while the link passes, and passes on the end of the stream.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        // Checked after the read, before the write: what arrives during a stall waits here.
        if state
            .wait_for(|now| now.mode != Mode::Stalled)
            .await
            .is_err()
        {
            return Ok(());
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}
