//! NATS in a container, through testcontainers. The image is built on this machine by `make nats-image`, so that no
//! image registry is needed.

use std::net::TcpListener;

use anyhow::{Context, bail};
use testcontainers::bollard::Docker;
use testcontainers::bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder,
};
use testcontainers::core::client::docker_client_instance;
use testcontainers::core::{ContainerPort, IntoContainerPort};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};

use super::Options;
use super::ready::{START_DEADLINE, greeting};
use crate::port::free_port;
use crate::wait::Wait;

/// The image, as `make nats-image` names it.
pub const IMAGE: &str = "quintet-nats:dev";
/// Name and tag of [`IMAGE`].
const IMAGE_PARTS: (&str, &str) = ("quintet-nats", "dev");
/// Carries the test's process id, so that `make test` can remove what a killed test left.
const OWNER_LABEL: &str = "quintet.testkit.pid";
/// Where the server listens inside the container.
const CLIENT_PORT: u16 = 4222;
/// Where its configuration is put.
const CONFIG_PATH: &str = "/nats.conf";
/// Seconds a server may take to close its store before Docker kills it.
const STOP_SECONDS: i32 = 15;
/// Other ports tried when another process takes the free one before Docker does.
const PORT_ATTEMPTS: usize = 5;

pub(super) struct DockerServer {
    /// Taken only by drop.
    container: Option<ContainerAsync<GenericImage>>,
    docker: Docker,
    host: String,
    port: u16,
}

impl std::fmt::Debug for DockerServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerServer")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl DockerServer {
    pub(super) async fn start(options: &Options) -> anyhow::Result<Self> {
        let docker = docker_ready().await?;
        let (container, port) = start_on_free_port(options).await?;
        let host = container
            .get_host()
            .await
            .context("asking where Docker publishes ports")?
            .to_string();
        // The name may resolve to an address Docker does not publish on.
        let host = if host == "localhost" {
            "127.0.0.1".to_owned()
        } else {
            host
        };
        let server = Self {
            container: Some(container),
            docker,
            host,
            port,
        };
        server.wait_until_ready().await?;
        Ok(server)
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        if self.is_paused().await? {
            self.resume().await?;
        }
        self.container()
            .stop_with_timeout(Some(STOP_SECONDS))
            .await
            .context("asking Docker to stop it")
    }

    pub(super) async fn kill(&self) -> anyhow::Result<()> {
        if !self.is_running().await? {
            return Ok(());
        }
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        self.docker
            .kill_container(self.container().id(), Some(options))
            .await
            .context("asking Docker to kill it")?;
        // Docker answers when the signal is sent, not when the container has ended.
        let mut wait = Wait::new("the killed container to end", START_DEADLINE);
        while wait
            .check(async { self.is_running().await.is_ok_and(|running| !running) })
            .await?
            .is_none()
        {}
        Ok(())
    }

    pub(super) async fn restart(&self) -> anyhow::Result<()> {
        self.stop().await?;
        self.container()
            .start()
            .await
            .context("asking Docker to start it again")?;
        self.wait_until_ready().await
    }

    pub(super) async fn pause(&self) -> anyhow::Result<()> {
        self.container()
            .pause()
            .await
            .context("asking Docker to pause it")
    }

    pub(super) async fn resume(&self) -> anyhow::Result<()> {
        self.container()
            .unpause()
            .await
            .context("asking Docker to resume it")
    }

    async fn is_running(&self) -> anyhow::Result<bool> {
        self.container()
            .is_running()
            .await
            .context("asking Docker whether it runs")
    }

    async fn is_paused(&self) -> anyhow::Result<bool> {
        let seen = self
            .docker
            .inspect_container(self.container().id(), None::<InspectContainerOptions>)
            .await;
        let state = seen.context("asking Docker whether it is paused")?.state;
        Ok(state.and_then(|state| state.paused).unwrap_or(false))
    }

    fn container(&self) -> &ContainerAsync<GenericImage> {
        self.container
            .as_ref()
            .expect("the container is taken only by drop")
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let mut wait = Wait::new(
            format!("NATS to answer on port {}", self.port),
            START_DEADLINE,
        );
        loop {
            if !self.is_running().await? {
                bail!("the container ended; its log:\n{}", self.log().await);
            }
            if wait.check(greeting(&self.host, self.port)).await?.is_some() {
                return Ok(());
            }
        }
    }

    async fn log(&self) -> String {
        match self.container().stderr_to_vec().await {
            Ok(log) => String::from_utf8_lossy(&log).into_owned(),
            Err(error) => format!("(unreadable: {error})"),
        }
    }
}

impl Drop for DockerServer {
    fn drop(&mut self) {
        let container = self.container.take();
        if tokio::runtime::Handle::try_current().is_ok() {
            return;
        }
        // Removing a container needs a runtime; a test may drop the server after its own has ended.
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            let _inside = runtime.enter();
            drop(container);
        }
    }
}

/// The engine, when one answers and has the image; else what is missing and the command to get it.
async fn docker_ready() -> anyhow::Result<Docker> {
    let docker = docker_client_instance()
        .await
        .context("looking for a Docker engine")?;
    docker
        .ping()
        .await
        .context("no Docker engine answers; `make setup` installs and starts one")?;
    if docker.inspect_image(IMAGE).await.is_err() {
        bail!("Docker answers but has no image {IMAGE}; `make nats-image` builds it");
    }
    Ok(docker)
}

/// The port is fixed, because a random published port changes with every start of a container.
async fn start_on_free_port(
    options: &Options,
) -> anyhow::Result<(ContainerAsync<GenericImage>, u16)> {
    for _ in 1..PORT_ATTEMPTS {
        let port = free_port()?;
        match request(options, port).start().await {
            Ok(container) => return Ok((container, port)),
            Err(_) if TcpListener::bind(("127.0.0.1", port)).is_err() => {}
            Err(error) => return Err(error).context("creating the container"),
        }
    }
    let port = free_port()?;
    let container = request(options, port)
        .start()
        .await
        .context("creating the container, in the last attempt")?;
    Ok((container, port))
}

fn request(options: &Options, port: u16) -> ContainerRequest<GenericImage> {
    let client_port: ContainerPort = CLIENT_PORT.tcp();
    let mut args = ["-js", "-sd", "/data", "-a", "0.0.0.0", "-p"]
        .map(str::to_owned)
        .to_vec();
    args.push(CLIENT_PORT.to_string());
    args.extend(options.args.iter().cloned());
    if options.config.is_some() {
        args.extend(["-c".to_owned(), CONFIG_PATH.to_owned()]);
    }
    let request = GenericImage::new(IMAGE_PARTS.0, IMAGE_PARTS.1)
        .with_cmd(args)
        .with_mapped_port(port, client_port)
        .with_label(OWNER_LABEL, std::process::id().to_string());
    match &options.config {
        Some(text) => request.with_copy_to(CONFIG_PATH, text.clone().into_bytes()),
        None => request,
    }
}
