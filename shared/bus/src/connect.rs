//! A connection: how it is opened, watched and closed.
//!
//! It reconnects for ever, with a backoff of at most [`RECONNECT_MAX`]; what async-nats reports on the way is
//! logged here and drives [`Bus::link`]. Clones share the connection.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use quintet_contract::id::MessageId;
use quintet_contract::permission::inbox;
use quintet_contract::subject::Prefix;
use quintet_contract::topology::Retention;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::error::{BusError, ConnectError};
use crate::metrics;
use crate::probe::{Probe, SharedWriteHealth};
use crate::write_health::WriteHealth;

/// The oldest server that works: per-message expiry, delete markers, batched direct get.
const OLDEST_SERVER: &str = "2.12.0";
/// Commands waiting for the socket; publishers wait when it is full.
const COMMAND_CAPACITY: usize = 8_192;
/// JetStream publishes in flight. A group commit starts all its writes before it awaits the first, so the
/// bound must exceed any group: with async-nats' default of 5 000 a larger one would wait for itself.
const ACKS_IN_FLIGHT: usize = 1 << 20;
/// How long the server may take to confirm a stored message or to answer an API request.
pub(crate) const API_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the connection is probed; a dead one is noticed after two missed answers.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// First wait between attempts to reconnect; it doubles.
const RECONNECT_MIN: Duration = Duration::from_millis(25);
/// Longest wait between attempts to reconnect.
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// How long a drain may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Who we are to the server.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// No identity.
    #[default]
    None,
    /// A user of the server's configuration; it gets an inbox of its own, [`quintet_contract::permission::inbox`].
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A NATS credentials file.
    File(PathBuf),
    /// A token.
    Token(Secret),
}

/// Files for TLS.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Certificates to trust; the system's when absent.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Where the bus is and how to use it.
#[derive(Clone, Debug)]
pub struct BusConfig {
    /// One or more addresses, separated by commas.
    pub url: String,
    /// The first tokens of every subject.
    pub prefix: Prefix,
    /// What the connection is called in server tools.
    pub name: String,
    /// Who we are.
    pub credentials: Credentials,
    /// Use TLS, with these files.
    pub tls: Option<TlsFiles>,
    /// Copies of every stream and bucket.
    pub replicas: usize,
    /// Messages that one subscription may hold unread: [`BusConfig::PENDING_LIMIT`], or fewer where they are large. When it is
    /// full the client drops further ones and reports "slow consumer"; watches notice the gap and repair it, plain
    /// subscriptions are at most once by nature.
    pub pending_limit: usize,
    /// How long events and logs stay.
    pub retention: Retention,
}

impl BusConfig {
    /// Messages that a subscription may hold where they are of the usual size.
    pub const PENDING_LIMIT: usize = 65_536;

    /// A single NATS server without authentication, and defaults elsewhere.
    pub fn open(url: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: Prefix::default(),
            name: name.into(),
            credentials: Credentials::None,
            tls: None,
            replicas: 1,
            pending_limit: Self::PENDING_LIMIT,
            retention: Retention::default(),
        }
    }
}

/// Whether the server is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It is.
    Connected,
    /// It is not; the client tries to reconnect.
    Disconnected,
}

/// The state of the connection by its events; the epoch grows with every connection made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) epoch: u64,
    pub(crate) closed: bool,
}

struct Shared {
    client: Client,
    jetstream: jetstream::Context,
    config: BusConfig,
    state: watch::Receiver<LinkState>,
    link: watch::Receiver<Link>,
    write_health: SharedWriteHealth,
    /// Runs as long as the connection is used.
    _probe: Probe,
}

/// A connection to the bus; clones are cheap and share it.
#[derive(Clone)]
pub struct Bus {
    shared: Arc<Shared>,
    cause: Option<MessageId>,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("name", &self.shared.config.name)
            .finish_non_exhaustive()
    }
}

impl Bus {
    /// Connects, and refuses a server that is too old.
    ///
    /// # Errors
    /// [`ConnectError::Refused`] when the server rejects the credentials, [`ConnectError::Unreachable`] when none answers,
    /// [`ConnectError::ServerTooOld`] when it lacks what is needed here; the other variants are faults of the configuration.
    pub async fn connect(config: BusConfig) -> Result<Bus, ConnectError> {
        let (state, state_seen) = watch::channel(LinkState::Connected);
        let (link, link_seen) = watch::channel(Link {
            epoch: 0,
            closed: false,
        });
        let write_health = SharedWriteHealth::default();
        let reconnected = write_health.clone();
        let options = options(&config).await?.event_callback(move |event| {
            if matches!(event, Event::Connected) {
                reconnected.update(WriteHealth::reconnected);
            }
            record_event(event, &state, &link);
            std::future::ready(())
        });
        let url = redact_url(&config.url);
        let addresses = addresses(&config.url)?;
        let client = options
            .connect(addresses)
            .await
            .map_err(|error| not_connected(&config, error))?;
        let found = client.server_info().version;
        if !client.is_server_compatible(2, 12, 0) {
            return Err(ConnectError::ServerTooOld {
                url,
                found,
                needed: OLDEST_SERVER,
            });
        }
        info!(server = %found, name = %config.name, "connected to the bus");
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(API_TIMEOUT)
            .ack_timeout(API_TIMEOUT)
            .max_ack_inflight(ACKS_IN_FLIGHT)
            .build(client.clone());
        let probe = Probe::start(write_health.clone(), jetstream.clone());
        let shared = Shared {
            client,
            jetstream,
            config,
            state: state_seen,
            link: link_seen,
            write_health,
            _probe: probe,
        };
        Ok(Bus {
            shared: Arc::new(shared),
            cause: None,
        })
    }

    /// The first tokens of every subject.
    pub fn prefix(&self) -> &Prefix {
        &self.shared.config.prefix
    }

    /// The version of the server we are connected to.
    pub fn server_version(&self) -> String {
        self.shared.client.server_info().version
    }

    /// The largest message that the server takes, in bytes, with headers.
    pub fn max_payload(&self) -> usize {
        self.shared.client.max_payload()
    }

    /// Whether the server is there, now and whenever that changes.
    pub fn link(&self) -> watch::Receiver<LinkState> {
        self.shared.state.clone()
    }

    /// The buckets that are unwritable: a write to them was not confirmed although the connection is up. The bus probes
    /// them, and takes each off this list once a probe or a write is confirmed.
    pub fn unwritable(&self) -> watch::Receiver<BTreeSet<String>> {
        self.shared.write_health.unwritable()
    }

    /// The same connection; what is sent through it names `cause` as its cause.
    #[must_use]
    pub fn caused_by(&self, cause: Option<MessageId>) -> Bus {
        Bus {
            shared: Arc::clone(&self.shared),
            cause,
        }
    }

    /// Waits until everything published so far has left.
    ///
    /// # Errors
    /// [`BusError::Flush`] when the connection is closed.
    pub async fn flush(&self) -> Result<(), BusError> {
        self.shared
            .client
            .flush()
            .await
            .map_err(|error| BusError::Flush {
                source: error.into(),
            })
    }

    /// Ends subscriptions after what they hold, sends what is waiting, and closes the connection.
    pub async fn drain(&self) {
        let mut link = self.shared.link.clone();
        if let Err(error) = self.shared.client.drain().await {
            debug!(%error, "the connection was closed before its drain");
            return;
        }
        let closed = link.wait_for(|link| link.closed);
        if tokio::time::timeout(DRAIN_TIMEOUT, closed).await.is_err() {
            warn!("the connection did not drain in time");
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.shared.client
    }

    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.shared.jetstream
    }

    pub(crate) fn config(&self) -> &BusConfig {
        &self.shared.config
    }

    pub(crate) fn cause(&self) -> Option<MessageId> {
        self.cause
    }

    pub(crate) fn link_events(&self) -> watch::Receiver<Link> {
        self.shared.link.clone()
    }

    pub(crate) fn write_health(&self) -> &SharedWriteHealth {
        &self.shared.write_health
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.shared.client.connection_state() == async_nats::connection::State::Connected
    }
}

fn not_connected(config: &BusConfig, error: async_nats::ConnectError) -> ConnectError {
    let url = redact_url(&config.url);
    let kind = error.kind();
    let source = error.into();
    match kind {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            let name = config.name.clone();
            ConnectError::Refused { url, name, source }
        }
        _ => ConnectError::Unreachable { url, source },
    }
}

async fn options(config: &BusConfig) -> Result<ConnectOptions, ConnectError> {
    let mut options = ConnectOptions::new()
        .name(&config.name)
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(API_TIMEOUT))
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(config.pending_limit)
        .client_capacity(COMMAND_CAPACITY)
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_delay);
    options = match &config.credentials {
        Credentials::None => options,
        Credentials::UserPassword { user, password } => options
            .custom_inbox_prefix(inbox(user))
            .user_and_password(user.clone(), password.expose().to_owned()),
        Credentials::Token(token) => options.token(token.expose().to_owned()),
        Credentials::File(path) => {
            options
                .credentials_file(path)
                .await
                .map_err(|error| ConnectError::Credentials {
                    path: path.display().to_string(),
                    source: error.into(),
                })?
        }
    };
    let Some(tls) = &config.tls else {
        return Ok(options);
    };
    options = options.require_tls(true);
    if let Some(ca) = &tls.ca {
        options = options.add_root_certificates(ca.clone());
    }
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => Ok(options.add_client_certificate(cert.clone(), key.clone())),
        (None, None) => Ok(options),
        (Some(_), None) | (None, Some(_)) => Err(ConnectError::IncompleteTls),
    }
}

/// 25 ms, doubling to 2 s, each shortened by up to half so that clients of one server do not return in step.
fn reconnect_delay(attempts: usize) -> Duration {
    if attempts <= 1 {
        return Duration::ZERO;
    }
    let exponent = u32::try_from(attempts.min(8)).unwrap_or(8);
    (RECONNECT_MIN * 2_u32.pow(exponent))
        .min(RECONNECT_MAX)
        .mul_f64(rand::random_range(0.5..=1.0))
}

fn addresses(url: &str) -> Result<Vec<async_nats::ServerAddr>, ConnectError> {
    url.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            part.parse()
                .map_err(|error: std::io::Error| ConnectError::Address {
                    // Of all, since a comma in a password splits it.
                    url: redact_url(url),
                    source: error.into(),
                })
        })
        .collect()
}

/// One or more URLs without their users, passwords and tokens, to be shown to people.
///
/// Whatever stands before the last `@` of a URL is left out, so that no part of a password with special characters stays.
pub fn redact_url(url: &str) -> String {
    let mut schemes = url.split("://");
    let first = schemes.next().unwrap_or_default();
    let host = |part: &str| match part.rsplit_once('@') {
        Some((_, host)) => host.to_owned(),
        None => part.to_owned(),
    };
    let hosts: Vec<String> = std::iter::once(host(first))
        .chain(schemes.map(host))
        .collect();
    hosts.join("://").replace(", ", ",")
}

fn record_event(event: Event, state: &watch::Sender<LinkState>, link: &watch::Sender<Link>) {
    match event {
        Event::Connected => {
            state.send_replace(LinkState::Connected);
            let epoch = link.borrow().epoch + 1;
            link.send_modify(|link| link.epoch = epoch);
            if epoch > 1 {
                metrics::reconnected();
                info!("reconnected to the bus");
            }
        }
        Event::Disconnected => {
            state.send_replace(LinkState::Disconnected);
            warn!("lost the connection to the bus");
        }
        Event::Closed => {
            state.send_replace(LinkState::Disconnected);
            link.send_modify(|link| link.closed = true);
            debug!("closed the connection to the bus");
        }
        Event::SlowConsumer(subscription) => {
            metrics::slow_consumer();
            warn!(
                subscription,
                "a subscription is too slow and loses messages"
            );
        }
        Event::LameDuckMode => info!("the bus server is about to leave"),
        Event::Draining => debug!("draining the connection to the bus"),
        Event::ServerError(error) => warn!(%error, "the bus server reported an error"),
        Event::ClientError(error) => warn!(%error, "the bus client reported an error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(
            redact_url("nats://me:secret@host:4222, tls://b:4222"),
            "nats://host:4222,tls://b:4222"
        );
        assert_eq!(redact_url("token@host"), "host");
        assert_eq!(redact_url("nats://me:a,b@c@host"), "nats://host");
        assert_eq!(redact_url("http://127.0.0.1:8080"), "http://127.0.0.1:8080");
        assert_eq!(format!("{:?}", Secret::new("x")), "***");
    }

    #[test]
    fn waits_between_reconnects_grow_and_stay_bounded() {
        assert_eq!(reconnect_delay(1), Duration::ZERO);
        assert!(reconnect_delay(2) <= Duration::from_millis(100));
        assert!((2..200).all(|attempts| reconnect_delay(attempts) <= RECONNECT_MAX));
    }
}
