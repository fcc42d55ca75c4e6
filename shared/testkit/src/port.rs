//! Free loopback ports that stay free while a server is down.
//!
//! They come from below the range the kernel gives to outgoing connections: a port from inside it may be taken, while
//! its server restarts, by any client's connection, even by that of a client trying to reach this very port, which
//! then talks to itself. Between the answer and its use another process may still take the port, so a starter tries
//! again with another one.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;

/// Below it live well-known services.
const FIRST_PORT: u16 = 20_000;
/// Where the kernel's own range starts unless configured otherwise.
const DEFAULT_KERNEL_FIRST: u16 = 32_768;
/// Fewer ports than this are not worth a search.
const FEWEST_PORTS: u16 = 1_000;

/// Each call of a process looks further from a place of its own, so that neither tests nor processes meet.
static NEXT: LazyLock<AtomicUsize> = LazyLock::new(|| {
    // A hasher with random keys is the randomness the standard library has; any part of it will do.
    AtomicUsize::new(usize::from(RandomState::new().hash_one("port") as u16))
});

/// A TCP port of the loopback interface that was free a moment ago.
pub fn free_port() -> anyhow::Result<u16> {
    let ports = ports();
    for _ in ports.clone() {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % ports.len();
        let port = ports.start + u16::try_from(step).expect("a step within the range fits a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    let any = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free loopback port")?;
    Ok(any
        .local_addr()
        .context("reading the free port's number")?
        .port())
}

/// The ports to look at; none where the kernel's own range leaves no room.
fn ports() -> Range<u16> {
    let setting =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let kernel_first = setting
        .split_whitespace()
        .next()
        .and_then(|first| first.parse().ok());
    let end = kernel_first
        .unwrap_or(DEFAULT_KERNEL_FIRST)
        .min(DEFAULT_KERNEL_FIRST);
    if end < FIRST_PORT + FEWEST_PORTS {
        FIRST_PORT..FIRST_PORT
    } else {
        FIRST_PORT..end
    }
}
