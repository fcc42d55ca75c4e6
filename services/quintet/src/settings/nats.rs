//! Settings of NATS: the connection, how long owners keep what they store there, and the nats-server that `up` starts.

use std::path::PathBuf;

use quintet_bus::{Credentials, Secret, TlsFiles};
use quintet_contract::subject::Prefix;
use quintet_contract::topology::Retention;
use quintet_service::settings::{Reader, Setting};

use super::bus::BusSettings;
use super::shared::{JOB_RETENTION, RUN_RETENTION, secret, setting, url};
use crate::cli::exit::{self, Failure};

/// The settings of a connection.
pub(crate) const TABLE: &[Setting] = &[
    url(
        "nats_url",
        "NATS_URL",
        None,
        "NATS to use, several servers of one cluster separated by commas; `up` starts one of its own without it",
    ),
    setting("nats_user", "NATS_USER", None, "user at NATS"),
    secret("nats_password", "NATS_PASSWORD", None, "password at NATS"),
    setting(
        "nats_creds",
        "NATS_CREDS",
        None,
        "credentials file for NATS",
    ),
    setting(
        "nats_ca",
        "NATS_CA",
        None,
        "certificate authority of NATS, PEM",
    ),
    setting(
        "nats_cert",
        "NATS_CERT",
        None,
        "client certificate for NATS, PEM",
    ),
    setting(
        "nats_key",
        "NATS_KEY",
        None,
        "private key of the client certificate for NATS, PEM",
    ),
    setting(
        "prefix",
        "QUINTET_PREFIX",
        Some("quintet"),
        "first part of every subject and bucket",
    ),
    setting(
        "replicas",
        "QUINTET_REPLICAS",
        Some("1"),
        "copies of every stream and bucket; 3 in a cluster",
    ),
];

/// The settings of an owner of streams.
pub(crate) const RETENTION: &[Setting] = &[JOB_RETENTION, RUN_RETENTION];

/// The settings of the nats-server that `up` starts.
pub(crate) const EMBEDDED: &[Setting] = &[
    setting(
        "nats_server",
        "NATS_SERVER",
        Some("nats-server"),
        "the nats-server that `up` starts",
    ),
    setting(
        "nats_port",
        "NATS_PORT",
        Some("0"),
        "port of the nats-server that `up` starts; 0 takes a free one",
    ),
    setting(
        "nats_sync_interval",
        "NATS_SYNC_INTERVAL",
        Some("2m"),
        "how often the nats-server that `up` starts forces its store to disk; `always` survives a power cut, at about a sixth of the speed",
    ),
];

/// The connection to NATS.
#[derive(Clone)]
pub(crate) struct NatsSettings {
    /// None when no NATS was named.
    pub(crate) url: Option<String>,
    pub(crate) bus: BusSettings,
}

/// The nats-server that `up` starts.
#[derive(Clone, Debug)]
pub(crate) struct EmbeddedNatsSettings {
    pub(crate) program: PathBuf,
    pub(crate) port: u16,
    pub(crate) sync_interval: String,
}

impl NatsSettings {
    /// Services on their own need a NATS that others reach as well.
    pub(crate) fn require_nats(&self) -> anyhow::Result<()> {
        if self.url.is_none() {
            let text = "name the NATS to use with --nats-url or NATS_URL; `quintet up` starts one of its own";
            return Err(Failure::new(exit::USAGE, text).into());
        }
        Ok(())
    }
}

/// Reads [`TABLE`].
pub(crate) fn read(read: &mut Reader<'_>) -> NatsSettings {
    let url = read.optional("nats_url");
    let mut bus = BusSettings::open(url.clone().unwrap_or_default());
    bus.prefix = read.parse_or::<Prefix>("prefix", Prefix::default());
    bus.replicas = read.parse("replicas");
    read.check(
        "replicas",
        (1..=5).contains(&bus.replicas),
        "must be 1 to 5",
    );
    let (user, password) = (read.optional("nats_user"), read.optional("nats_password"));
    let creds = read.optional("nats_creds");
    bus.credentials = match (creds, user) {
        (Some(file), _) => Credentials::File(file.into()).into(),
        (None, Some(user)) => {
            let password = Secret::new(password.unwrap_or_default());
            Credentials::UserPassword { user, password }.into()
        }
        (None, None) => Credentials::None.into(),
    };
    let path = |text: Option<String>| text.map(PathBuf::from);
    let (ca, cert, key) = (
        path(read.optional("nats_ca")),
        path(read.optional("nats_cert")),
        path(read.optional("nats_key")),
    );
    read.check(
        "nats_key",
        cert.is_some() == key.is_some(),
        "certificate and key must be given together",
    );
    if ca.is_some() || cert.is_some() {
        bus.tls = Some(TlsFiles { ca, cert, key });
    }
    NatsSettings { url, bus }
}

/// Reads [`TABLE`] and [`RETENTION`].
pub(crate) fn read_of_owner(read: &mut Reader<'_>) -> NatsSettings {
    let mut nats = self::read(read);
    nats.bus.retention = Retention {
        jobs: read.duration("job_retention"),
        runs: read.duration("run_retention"),
    };
    nats
}

/// Reads [`EMBEDDED`].
pub(crate) fn read_embedded(read: &mut Reader<'_>) -> EmbeddedNatsSettings {
    EmbeddedNatsSettings {
        program: PathBuf::from(read.text("nats_server")),
        port: read.parse("nats_port"),
        sync_interval: read.text("nats_sync_interval"),
    }
}
