//! A JetStream-enabled NATS server for one test.
//!
//! It runs as a local `nats-server` process with a store of its own, or, for a test that is about that, in a container
//! (testcontainers, image [`IMAGE`]). A machine without the one that is wanted gets an error that names the commands;
//! `QUINTET_TEST_NATS=docker|binary` chooses for every test that does not name one.
//!
//! ```text
//! Running ── stop, kill ──▶ Ended ── restart ──▶ Running     same data, same port
//! Running ── pause ──▶ Paused ── resume ──▶ Running          connections stay, nothing is answered
//! any ── drop, panic, death of the test process ──▶ gone, data included
//! ```

mod binary;
mod cluster;
mod disk;
mod docker;
mod ready;
mod stream;

use anyhow::Context;

use binary::BinaryServer;
use docker::DockerServer;

pub use cluster::NatsCluster;
pub use disk::Disk;
pub use docker::IMAGE;

/// Forces a backend for every test that does not name one: `docker` or `binary`.
pub const BACKEND_VARIABLE: &str = "QUINTET_TEST_NATS";

/// Where a server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A container on the Docker engine that answers.
    Docker,
    /// A local process.
    Binary,
}

/// How to start a server. The defaults: JetStream on, no users, a local process.
#[derive(Debug, Clone, Default)]
pub struct Options {
    config: Option<String>,
    args: Vec<String>,
    backend: Option<Backend>,
    disk_bytes: Option<u64>,
}

impl Options {
    /// The text of a configuration file, for users, permissions, limits. It must not set the port or the JetStream
    /// store: the kit does.
    pub fn config(mut self, text: impl Into<String>) -> Self {
        self.config = Some(text.into());
        self
    }

    /// One more command line argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// This backend and no other.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = Some(backend);
        self
    }

    /// A disk of its own of this size for the store. The server is a local process then: the data of a container's
    /// memory disk is gone when it stops.
    pub fn disk(self, bytes: u64) -> Self {
        Self {
            disk_bytes: Some(bytes),
            ..self.backend(Backend::Binary)
        }
    }

    /// Starts the server and waits until it answers.
    pub async fn start(self) -> anyhow::Result<Nats> {
        let server = match choose(self.backend)? {
            Backend::Docker => Server::Docker(
                DockerServer::start(&self)
                    .await
                    .context("starting NATS in a container")?,
            ),
            Backend::Binary => Server::Binary(
                BinaryServer::start(self)
                    .await
                    .context("starting a local nats-server")?,
            ),
        };
        Ok(Nats { server })
    }
}

/// A server that belongs to one test.
#[derive(Debug)]
pub struct Nats {
    server: Server,
}

#[derive(Debug)]
enum Server {
    Docker(DockerServer),
    Binary(BinaryServer),
}

impl Nats {
    /// A server with JetStream and without users.
    pub async fn start() -> anyhow::Result<Self> {
        Self::options().start().await
    }

    /// A server with settings.
    pub fn options() -> Options {
        Options::default()
    }

    /// Where it runs.
    pub fn backend(&self) -> Backend {
        match self.server {
            Server::Docker(_) => Backend::Docker,
            Server::Binary(_) => Backend::Binary,
        }
    }

    /// The URL for clients, without credentials.
    pub fn url(&self) -> String {
        format!("nats://{}:{}", self.host(), self.client_port())
    }

    /// The host clients connect to.
    pub fn host(&self) -> &str {
        match &self.server {
            Server::Docker(server) => server.host(),
            Server::Binary(_) => "127.0.0.1",
        }
    }

    /// The port clients connect to; a restart keeps it.
    pub fn client_port(&self) -> u16 {
        match &self.server {
            Server::Docker(server) => server.port(),
            Server::Binary(server) => server.port(),
        }
    }

    /// The disk that [`Options::disk`] gave it.
    pub fn disk(&self) -> Option<&Disk> {
        match &self.server {
            Server::Docker(_) => None,
            Server::Binary(server) => server.disk(),
        }
    }

    /// Ends it in order (a lame duck it is not: connections close at once) and keeps data and port.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        match &mut self.server {
            Server::Docker(server) => server.stop().await,
            Server::Binary(server) => server.stop().await,
        }
        .context("stopping NATS")
    }

    /// Ends it as `kill -9` does and keeps data and port.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        match &mut self.server {
            Server::Docker(server) => server.kill().await,
            Server::Binary(server) => server.kill(),
        }
        .context("killing NATS")
    }

    /// Starts it again on the same data and port, stopping it first when it runs.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        match &mut self.server {
            Server::Docker(server) => server.restart().await,
            Server::Binary(server) => server.restart().await,
        }
        .context("restarting NATS")
    }

    /// Freezes it: connections stay, nothing is answered.
    pub async fn pause(&mut self) -> anyhow::Result<()> {
        match &mut self.server {
            Server::Docker(server) => server.pause().await,
            Server::Binary(server) => server.pause().await,
        }
        .context("pausing NATS")
    }

    /// Lets a paused server continue.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        match &mut self.server {
            Server::Docker(server) => server.resume().await,
            Server::Binary(server) => server.resume(),
        }
        .context("resuming NATS")
    }
}

/// The backend to use.
fn choose(named: Option<Backend>) -> anyhow::Result<Backend> {
    if let Some(backend) = named {
        return Ok(backend);
    }
    if let Ok(forced) = std::env::var(BACKEND_VARIABLE) {
        return match forced.as_str() {
            "docker" => Ok(Backend::Docker),
            "binary" => Ok(Backend::Binary),
            other => anyhow::bail!("{BACKEND_VARIABLE} is {other:?}: it must be docker or binary"),
        };
    }
    // Starts in a fraction of a container's time.
    Ok(Backend::Binary)
}
