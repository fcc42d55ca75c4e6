//! Settings of the edge.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use quintet_bus::Secret;
use quintet_edge::{ApiKey, EdgeConfig, Role, RunRateLimit, Tls};
use quintet_service::settings::{Reader, Setting};

use super::shared::{secret, setting};

/// The settings of this file.
pub(crate) const TABLE: &[Setting] = &[
    setting(
        "port",
        "PORT",
        Some("8080"),
        "port of the edge; 0 takes a free one",
    ),
    setting(
        "host",
        "HOST",
        Some("127.0.0.1"),
        "address the edge listens on",
    ),
    secret(
        "agent_token",
        "AGENT_TOKEN",
        Some(quintet_edge::DEFAULT_AGENT_TOKEN),
        "the token of agents on WebSockets",
    ),
    secret(
        "api_keys",
        "API_KEYS",
        None,
        "API keys of the clients of the interface, as name:role:key, separated by commas, or as a JSON array of such texts, in which a key may hold commas; roles are viewer and operator; without any, this machine alone is served; see also `quintet keys`",
    ),
    secret(
        "orchestrator_api_key",
        "ORCHESTRATOR_API_KEY",
        None,
        "one more key, of the name orchestrator and the role operator",
    ),
    setting(
        "cors_origins",
        "CORS_ORIGINS",
        None,
        "origins whose pages may use the interface, separated by commas; * allows all; without it those of localhost and of the edge itself",
    ),
    setting(
        "allowed_hosts",
        "ALLOWED_HOSTS",
        None,
        "names, beside those of this machine, by which the edge may be asked while there is no API key, without ports, separated by commas; * allows all",
    ),
    setting(
        "trusted_proxies",
        "TRUSTED_PROXIES",
        None,
        "addresses or networks, such as 10.0.0.0/8, of proxies whose X-Forwarded-For names the client, separated by commas",
    ),
    setting(
        "rate_limit",
        "RATE_LIMIT",
        None,
        "requests per second of one caller, but for those about runs; without it there is no limit",
    ),
    setting(
        "rate_limit_max",
        "RATE_LIMIT_MAX",
        Some("120"),
        "requests about runs of one caller in a window, over all edges; 0 lifts the limit",
    ),
    setting(
        "rate_limit_window_ms",
        "RATE_LIMIT_WINDOW_MS",
        Some("60000"),
        "how long such a window is; at most an hour, and the same at all edges",
    ),
    setting(
        "body_limit",
        "BODY_LIMIT",
        Some("1048576"),
        "most bytes of a request's body",
    ),
    setting(
        "connections",
        "CONNECTIONS",
        Some("50000"),
        "most open connections",
    ),
    setting(
        "connections_per_address",
        "CONNECTIONS_PER_ADDRESS",
        Some("20000"),
        "most open connections from one address, of IPv6 from one /64; trusted proxies have no such limit",
    ),
    setting(
        "streams_per_address",
        "STREAMS_PER_ADDRESS",
        Some("10000"),
        "most open WebSockets and event streams from one address, of IPv6 from one /64",
    ),
    setting(
        "tls_cert",
        "TLS_CERT",
        None,
        "certificate chain of the edge, PEM",
    ),
    setting("tls_key", "TLS_KEY", None, "private key of the edge, PEM"),
];

/// Reads [`TABLE`].
pub(crate) fn read(read: &mut Reader<'_>) -> EdgeConfig {
    let host: Result<IpAddr, _> = read.text("host").trim().parse();
    let text = "expected an IP address such as 127.0.0.1";
    read.check("host", host.is_ok(), text);
    let host = host.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let port = read.parse("port");
    let mut edge = EdgeConfig::new(SocketAddr::new(host, port));
    edge.agent_token = Secret::new(read.text("agent_token"));
    let keys = read
        .optional("api_keys")
        .map(|text| quintet_edge::parse_api_keys(&text));
    match keys.transpose() {
        Ok(keys) => edge.api_keys = keys.unwrap_or_default(),
        Err(error) => read.check("api_keys", false, &error.to_string()),
    }
    if let Some(key) = read.optional("orchestrator_api_key") {
        let key = ApiKey::new("orchestrator", Role::Operator, &key);
        edge.api_keys.push(key);
    }
    edge.cors_origins = read.list("cors_origins");
    edge.allowed_hosts = read.list("allowed_hosts");
    read.check(
        "allowed_hosts",
        edge.allowed_hosts.iter().all(|host| is_host(host)),
        "must be names or addresses without scheme and port, such as edge.example, or *",
    );
    read.check(
        "cors_origins",
        edge.cors_origins.iter().all(|origin| is_origin(origin)),
        "must be origins as browsers send them, such as https://app.example or http://app.example:3000, or *",
    );
    edge.trusted_proxies = read.parse_list("trusted_proxies");
    edge.rate_limit = read.parse_optional("rate_limit");
    edge.run_rate = run_rate(read);
    edge.body_limit = read.parse("body_limit");
    edge.max_connections = read.parse("connections");
    edge.max_connections_per_address = read.parse("connections_per_address");
    edge.max_streams_per_address = read.parse("streams_per_address");
    let (cert, key) = (read.optional("tls_cert"), read.optional("tls_key"));
    read.check(
        "tls_key",
        cert.is_some() == key.is_some(),
        "certificate and key must be given together",
    );
    edge.tls = cert.zip(key).map(|(cert, key)| Tls {
        cert: cert.into(),
        key: key.into(),
    });
    edge
}

fn is_host(text: &str) -> bool {
    let is_address = || {
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        bare.is_some_and(|text| text.parse::<Ipv6Addr>().is_ok())
    };
    text == "*" || is_address() || !text.contains([':', '/', '@', ' '])
}

fn is_origin(text: &str) -> bool {
    let authority = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let is_authority = |text: &str| !text.is_empty() && !text.contains(['/', '@', ' ', '?', '#']);
    text == "*" || authority.is_some_and(is_authority)
}

fn run_rate(read: &mut Reader<'_>) -> Option<RunRateLimit> {
    let window = read.millis("rate_limit_window_ms");
    let is_countable = !window.is_zero() && window <= RunRateLimit::LONGEST_WINDOW;
    let text = "must be 1 ms to one hour";
    read.check("rate_limit_window_ms", is_countable, text);
    let max = NonZeroU32::new(read.parse("rate_limit_max"))?;
    Some(RunRateLimit { max, window })
}
