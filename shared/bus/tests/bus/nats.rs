//! A nats-server of one test: started on a free port, killed and started again at will, gone with the test.

use std::time::Duration;

use quintet_bus::{Bus, BusConfig};
use quintet_contract::id::TemplateId;
use quintet_contract::template::Template;

/// Longest wait for anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// The test kit's server, with what the tests of this crate do with it.
pub(crate) struct Nats {
    server: quintet_testkit::Nats,
    pub(crate) port: u16,
}

impl Nats {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// With users and permissions, in the server's own configuration language.
    pub(crate) async fn start_with(configuration: &str) -> Self {
        let options = quintet_testkit::Nats::options().config(configuration);
        let server = options.start().await.unwrap();
        let port = server.client_port();
        Self { server, port }
    }

    /// Kills the server the hard way.
    pub(crate) async fn kill(&mut self) {
        self.server.kill().await.unwrap();
    }

    /// Starts it on the same data and port.
    pub(crate) async fn start_again(&mut self) {
        self.server.restart().await.unwrap();
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
