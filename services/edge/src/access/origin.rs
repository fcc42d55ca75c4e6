//! Host and Origin: which requests of browsers are let in at all, before anything else is asked.
//!
//! Two attacks need no key. A page of a stranger whose name resolves to this machine (DNS rebinding) is of the same origin as
//! what it asks, but the Host is the stranger's name: where no key is set, only loopback names and `ALLOWED_HOSTS` are
//! served. And a page may send a form, or open a socket, to any host without asking first: so every unsafe method and every
//! upgrade is refused when its Origin is neither the edge's own, nor allowed. A request without Origin is not a browser's.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use quintet_contract::error::ErrorCode;

use crate::error::HttpError;

/// Stands for all hosts in ALLOWED_HOSTS, and for all origins in CORS_ORIGINS.
const ANY: &str = "*";

/// Which hosts and origins are let in.
#[derive(Clone, Debug, Default)]
pub(crate) struct OriginPolicy {
    hosts: Vec<String>,
    origins: Vec<String>,
}

/// Whether a key is needed, and so whether the Host matters: a page that is not let in by name has no key either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostCheck {
    /// No key is set.
    Required,
    /// Keys are set, or the route shows nothing that matters.
    Exempt,
}

impl OriginPolicy {
    /// `hosts` are names without ports, `origins` are as browsers send them.
    pub(crate) fn new(hosts: &[String], origins: &[String]) -> Self {
        let lower = |text: &String| text.trim().trim_end_matches('.').to_ascii_lowercase();
        Self {
            hosts: hosts.iter().map(lower).collect(),
            origins: origins.to_vec(),
        }
    }

    /// Refuses a request whose Host or Origin is a stranger's.
    ///
    /// # Errors
    /// A 403 that names the setting which would let it in.
    pub(crate) fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        host_check: HostCheck,
    ) -> Result<(), HttpError> {
        if host_check == HostCheck::Required {
            self.check_host(uri, headers)?;
        }
        if is_safe(method) && !is_upgrade(headers) {
            return Ok(());
        }
        self.check_origin(uri, headers)
    }

    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), HttpError> {
        // Both count: the server takes a whole address, and a client may send another Host beside it.
        let named = headers.get_all(header::HOST).iter().map(authority);
        let mut hosts = named.chain(uri.authority().cloned().map(Some)).peekable();
        if hosts.peek().is_none() {
            return Err(foreign_host(""));
        }
        for host in hosts {
            let name = host.as_ref().map(name_of).unwrap_or_default();
            if !is_loopback_name(&name)
                && !self.hosts.iter().any(|host| *host == name || host == ANY)
            {
                return Err(foreign_host(&name));
            }
        }
        Ok(())
    }

    fn check_origin(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), HttpError> {
        let host = host(uri, headers);
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match origins.find(|origin| !self.allows(origin, host.as_ref())) {
            None => Ok(()),
            Some(_) => Err(foreign_origin()),
        }
    }

    /// Whether every origin is allowed.
    pub(crate) fn is_any(&self) -> bool {
        self.origins.iter().any(|allowed| allowed == ANY)
    }

    /// Whether pages of an origin may use the interface of an edge that was asked as `host`.
    pub(crate) fn allows(&self, origin: &HeaderValue, host: Option<&Authority>) -> bool {
        if self
            .origins
            .iter()
            .any(|allowed| allowed == ANY || allowed.as_bytes() == origin.as_bytes())
        {
            return true;
        }
        let Some((authority, default_port)) = web_origin(origin) else {
            return false;
        };
        let is_own = host.is_some_and(|host| is_same(host, &authority, default_port));
        is_own || (self.origins.is_empty() && is_loopback_name(&name_of(&authority)))
    }
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// The host that a request is to.
pub(crate) fn host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let host = headers.get(header::HOST).and_then(authority);
    host.or_else(|| uri.authority().cloned())
}

fn authority(host: &HeaderValue) -> Option<Authority> {
    // A browser sends no user with a host; a client that does is malicious.
    let host = host.to_str().ok().filter(|host| !host.contains('@'))?;
    host.parse().ok()
}

/// The authority of an origin of the web, and the port that it leaves out.
fn web_origin(origin: &HeaderValue) -> Option<(Authority, u16)> {
    let origin: Uri = origin.to_str().ok()?.parse().ok()?;
    let default_port = match origin.scheme_str()? {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    Some((origin.authority()?.clone(), default_port))
}

/// Whether both name the same place.
fn is_same(host: &Authority, origin: &Authority, default_port: u16) -> bool {
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    name_of(host) == name_of(origin) && port(host) == port(origin)
}

/// The name without port, in one spelling.
fn name_of(authority: &Authority) -> String {
    authority.host().trim_end_matches('.').to_ascii_lowercase()
}

/// Names that only this machine itself can be reached by.
fn is_loopback_name(name: &str) -> bool {
    let is_address = || {
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        let address: Option<std::net::IpAddr> = bare.unwrap_or(name).parse().ok();
        address.is_some_and(|address| address.to_canonical().is_loopback())
    };
    name == "localhost" || name.ends_with(".localhost") || is_address()
}

fn foreign_host(name: &str) -> HttpError {
    let text = format!(
        "no API key is set, so that only requests to this machine by a loopback name are served, and this one is to {name:?}; \
         set API_KEYS, or name the host in ALLOWED_HOSTS"
    );
    HttpError::new(ErrorCode::Forbidden, text)
}

fn foreign_origin() -> HttpError {
    let text = "pages of this origin may change nothing and open no socket here; name it in CORS_ORIGINS to let them";
    HttpError::new(ErrorCode::Forbidden, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            let name = header::HeaderName::from_static(name);
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    fn policy(hosts: &[&str], origins: &[&str]) -> OriginPolicy {
        let owned = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        OriginPolicy::new(&owned(hosts), &owned(origins))
    }

    fn serves_host(policy: &OriginPolicy, uri: &str, hosts: &[&'static str]) -> bool {
        let hosts: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let uri = uri.parse().unwrap();
        let checked = policy.check(&Method::GET, &uri, &headers(&hosts), HostCheck::Required);
        checked.is_ok()
    }

    #[test]
    fn without_keys_only_loopback_names_and_allowed_hosts_are_served() {
        let plain = policy(&[], &[]);
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.:8080",
            "app.localhost",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(serves_host(&plain, "/", &[host]), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "xlocalhost",
            "192.168.1.5:8080",
            "0.0.0.0:8080",
            "evil.example@localhost.",
            "",
            " ",
            "a b",
        ] {
            assert!(!serves_host(&plain, "/", &[host]), "{host}");
        }
        assert!(!serves_host(&plain, "/", &[]), "no Host at all");
        assert!(!serves_host(&plain, "/", &["localhost", "evil.example"]));
        assert!(!serves_host(&plain, "http://evil.example/", &["localhost"]));
        assert!(serves_host(
            &plain,
            "http://localhost:8080/",
            &["localhost"]
        ));
        let named = policy(&["Edge.Example.", "10.0.0.1"], &[]);
        assert!(serves_host(&named, "/", &["edge.example:443"]));
        assert!(serves_host(&named, "/", &["10.0.0.1:8080"]));
        assert!(!serves_host(&named, "/", &["evil.example"]));
        assert!(serves_host(&policy(&["*"], &[]), "/", &["evil.example"]));
    }

    fn lets_in(policy: &OriginPolicy, method: Method, extra: &[(&'static str, &str)]) -> bool {
        let mut pairs = vec![("host", "edge.example:8080")];
        pairs.extend(extra);
        let checked = policy.check(
            &method,
            &Uri::from_static("/"),
            &headers(&pairs),
            HostCheck::Exempt,
        );
        checked.is_ok()
    }

    #[test]
    fn unsafe_methods_and_upgrades_are_refused_to_pages_of_strangers() {
        let plain = policy(&[], &[]);
        let evil = ("origin", "https://evil.example");
        let upgrade = ("upgrade", "websocket");
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert!(lets_in(&plain, method.clone(), &[evil]), "{method}");
            assert!(!lets_in(&plain, method, &[evil, upgrade]));
        }
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert!(!lets_in(&plain, method.clone(), &[evil]), "{method}");
            assert!(lets_in(&plain, method, &[]), "no browser sends it");
        }
    }

    #[test]
    fn own_near_and_named_origins_are_let_in() {
        let plain = policy(&[], &[]);
        let named = policy(&[], &["https://app.example"]);
        // Whether it is let in without CORS_ORIGINS, and with one named there.
        for (origin, without, with) in [
            ("http://edge.example:8080", true, true),
            ("https://edge.example:8080", true, true),
            ("http://EDGE.example:8080", true, true),
            ("http://edge.example", false, false),
            ("http://edge.example:80", false, false),
            ("http://localhost", true, false),
            ("http://localhost:5173", true, false),
            ("http://LOCALHOST:3", true, false),
            ("http://app.localhost:3000", true, false),
            ("http://127.0.0.2:1", true, false),
            ("https://127.0.0.1", true, false),
            ("http://[::1]:3000", true, false),
            ("https://app.example", false, true),
            ("http://app.example", false, false),
            ("http://localhost.evil.example", false, false),
            ("http://localhost@evil.example", false, false),
            ("http://evil.example/localhost", false, false),
            ("ftp://localhost", false, false),
            ("null", false, false),
            ("", false, false),
        ] {
            let sent = [("origin", origin)];
            assert_eq!(lets_in(&plain, Method::POST, &sent), without, "{origin}");
            assert_eq!(lets_in(&named, Method::POST, &sent), with, "{origin}");
        }
        let any = policy(&[], &["*"]);
        assert!(lets_in(
            &any,
            Method::POST,
            &[("origin", "https://evil.example")]
        ));
        let both = [
            ("origin", "http://localhost"),
            ("origin", "https://evil.example"),
        ];
        assert!(!lets_in(&plain, Method::POST, &both));
    }

    #[test]
    fn an_origin_without_port_is_that_of_a_host_without_port() {
        // As Python's websocket-client sends it.
        let plain = policy(&[], &[]);
        let sent = [
            ("host", "edge.example"),
            ("origin", "http://edge.example"),
            ("upgrade", "websocket"),
        ];
        let uri = Uri::from_static("/ui");
        assert!(
            plain
                .check(&Method::GET, &uri, &headers(&sent), HostCheck::Exempt)
                .is_ok()
        );
        let sent = [
            ("host", "edge.example:443"),
            ("origin", "https://edge.example"),
        ];
        assert!(
            plain
                .check(&Method::POST, &uri, &headers(&sent), HostCheck::Exempt)
                .is_ok()
        );
    }
}
