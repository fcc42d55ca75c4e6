//! A nats-server of one test: started on a free port, killed and started again at will, gone with the test.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quintet_bus::{Bus, BusConfig};
use quintet_contract::id::TemplateId;
use quintet_contract::template::Template;

/// Longest wait for anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);
const CONFIGURATION: &str = "nats.conf";
const POLL: Duration = Duration::from_millis(10);

pub(crate) struct Nats {
    folder: tempfile::TempDir,
    server: Option<Child>,
    pub(crate) port: u16,
}

impl Nats {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// With users and permissions, in the server's own configuration language.
    pub(crate) fn start_with(configuration: &str) -> Self {
        let mut nats = Self {
            folder: tempfile::tempdir().unwrap(),
            server: None,
            port: 0,
        };
        std::fs::write(nats.folder.path().join(CONFIGURATION), configuration).unwrap();
        nats.start_again();
        nats
    }

    /// Kills the server the hard way.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Starts it on the same data, and after the first time on the same port.
    pub(crate) fn start_again(&mut self) {
        let port = if self.port == 0 {
            "-1".to_owned()
        } else {
            self.port.to_string()
        };
        let server = Command::new("nats-server")
            .args(["-js", "-a", "127.0.0.1", "-p", &port, "--ports_file_dir"])
            .arg(self.folder.path())
            .arg("-c")
            .arg(self.folder.path().join(CONFIGURATION))
            .arg("-sd")
            .arg(self.folder.path().join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server must be on PATH");
        let ports = self
            .folder
            .path()
            .join(format!("nats-server_{}.ports", server.id()));
        self.server = Some(server);
        self.port = read_port(&ports);
    }

    pub(crate) fn config(&self) -> BusConfig {
        BusConfig::open(format!("nats://127.0.0.1:{}", self.port), "test")
    }

    pub(crate) async fn connect(&self) -> Bus {
        Bus::connect(self.config()).await.unwrap()
    }

    /// Connected, with streams and buckets made.
    pub(crate) async fn bus(&self) -> Bus {
        let bus = self.connect().await;
        let report = bus.ensure_topology().await.unwrap();
        assert!(report.is_ok(), "{:?}", report.problems());
        bus
    }

    pub(crate) async fn raw(&self) -> async_nats::Client {
        async_nats::connect(format!("127.0.0.1:{}", self.port))
            .await
            .unwrap()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_port(file: &Path) -> u16 {
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let ports: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some(port) = ports["nats"][0]
            .as_str()
            .and_then(|url| url.rsplit(':').next())
        {
            return port.parse().unwrap();
        }
        std::thread::sleep(POLL);
    }
    panic!("nats-server wrote no {}", file.display());
}

/// Awaits with a deadline.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen in {SOON:?}"),
    }
}

pub(crate) fn template(name: &str) -> Template {
    serde_json::from_value(
        serde_json::json!({"id": name, "executor": "noop", "config": {"seconds": 1}}),
    )
    .unwrap()
}

pub(crate) fn template_id(name: &str) -> TemplateId {
    TemplateId::parse(name).unwrap()
}
