//! The bind policy: an edge listens where others can reach it only with an API key and an agent token of its own.

use quintet_edge::{EdgeConfig, OpenTo};
use tracing::warn;

use crate::cli::exit::{self, Failure};

/// What an edge that others can reach lacks.
struct Lack {
    what: &'static str,
    /// The setting that mends it.
    setting: &'static str,
}

const NO_KEY: Lack = Lack {
    what: "no API key is set, so every client there can run programs here",
    setting: "API_KEYS",
};
const KNOWN_TOKEN: Lack = Lack {
    what: "AGENT_TOKEN is the default that everyone knows",
    setting: "an AGENT_TOKEN of your own",
};

/// Refuses an address that others can reach together with the agent token that everyone knows, or without an API key:
/// jobs are programs. `--insecure-dev` lifts both, and serves everyone while there is no key.
pub(crate) fn apply(edge: &mut EdgeConfig, insecure: bool) -> anyhow::Result<()> {
    edge.open_to = match insecure {
        true => OpenTo::Everyone,
        false => OpenTo::ThisMachine,
    };
    let lacks = lacks(edge);
    if lacks.is_empty() || insecure {
        return Ok(());
    }
    let settings: Vec<&str> = lacks.iter().map(|lack| lack.setting).collect();
    let text = format!(
        "the edge would listen on {}, which others can reach; set {}, listen on 127.0.0.1, or give --insecure-dev",
        edge.listen,
        settings.join(" and ")
    );
    Err(Failure::new(exit::USAGE, text).into())
}

/// Warns of what `insecure` allowed.
pub(crate) fn warn_of_open_edge(edge: &EdgeConfig) {
    for lack in lacks(edge) {
        warn!(address = %edge.listen, lack = lack.what, "the edge is open to others by --insecure-dev");
    }
}

fn lacks(edge: &EdgeConfig) -> Vec<Lack> {
    if edge.listen.ip().is_loopback() {
        return Vec::new();
    }
    let key = edge.api_keys.is_empty().then_some(NO_KEY);
    let token = edge.has_default_token().then_some(KNOWN_TOKEN);
    key.into_iter().chain(token).collect()
}

#[cfg(test)]
mod tests {
    use quintet_bus::Secret;
    use quintet_edge::{ApiKey, Role};

    use super::*;

    fn edge(listen: &str, key: bool, token: bool) -> EdgeConfig {
        let mut edge = EdgeConfig::new(listen.parse().unwrap());
        if key {
            edge.api_keys = vec![ApiKey::new("me", Role::Operator, "a long key")];
        }
        if token {
            edge.agent_token = Secret::new("a token of its own");
        }
        edge
    }

    #[test]
    fn an_edge_that_others_can_reach_needs_a_key_and_a_token_of_its_own() {
        for listen in ["0.0.0.0:8080", "192.168.1.1:8080", "[::]:8080"] {
            assert!(
                apply(&mut edge(listen, true, true), false).is_ok(),
                "{listen}"
            );
            for (key, token) in [(false, true), (true, false), (false, false)] {
                let mut config = edge(listen, key, token);
                let error = apply(&mut config, false).unwrap_err();
                let failure = error.downcast_ref::<Failure>().unwrap();
                assert_eq!(failure.code(), exit::USAGE, "{error}");
                let text = error.to_string();
                assert_eq!(text.contains("API_KEYS"), !key, "{text}");
                assert_eq!(text.contains("AGENT_TOKEN"), !token, "{text}");
                assert!(text.contains("--insecure-dev"), "{text}");
                assert!(apply(&mut config, true).is_ok(), "{listen}");
                assert_eq!(config.open_to, OpenTo::Everyone);
            }
        }
    }

    #[test]
    fn an_edge_on_loopback_needs_neither() {
        for listen in ["127.0.0.1:8080", "127.0.0.2:0", "[::1]:8080"] {
            assert!(
                apply(&mut edge(listen, false, false), false).is_ok(),
                "{listen}"
            );
        }
    }
}
