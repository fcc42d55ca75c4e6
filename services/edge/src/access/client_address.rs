//! Client addresses: where a request comes from, also behind proxies that are trusted, and what counts as one client.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName};

/// Names the addresses that a request passed through, the client's first.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Bits of an IPv6 address that one client has in common: a provider gives each customer a network of that size or more.
const CLIENT_PREFIX_BITS: u32 = 64;

/// A network of addresses, such as `10.0.0.0/8`; a single address is one, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor a network such as 10.0.0.0/8")]
pub struct NoNetwork(String);

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NoNetwork(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wrong()))?;
        match bits <= most {
            true => Ok(Self { address, bits }),
            false => Err(wrong()),
        }
    }
}

impl Network {
    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let differs = match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()).checked_shr(32 - u32::from(self.bits))
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differs =
                    (network.to_bits() ^ address.to_bits()).checked_shr(128 - u32::from(self.bits));
                differs.map(|differs| u32::from(differs != 0))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        // A shift by everything leaves nothing that could differ.
        differs.unwrap_or(0) == 0
    }
}

/// The address of the client: that of the connection, or, when a trusted proxy holds it, the last one before the trusted
/// ones that the proxy was asked by. What stands before that was sent by the client itself, and counts for nothing.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer) {
        return peer;
    }
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    let mut client = peer;
    for hop in hops {
        let Some(address) = hop_address(hop.trim()) else {
            // The sender of that is the client, as far as is known.
            return client;
        };
        client = address;
        if !is_trusted(client) {
            return client;
        }
    }
    client
}

/// An address as proxies write it, some with a port.
fn hop_address(text: &str) -> Option<IpAddr> {
    let address = text.parse().ok();
    let with_port = || {
        text.parse()
            .ok()
            .map(|address: std::net::SocketAddr| address.ip())
    };
    address
        .or_else(with_port)
        .map(|address: IpAddr| address.to_canonical())
}

/// What limits count as one client: an IPv4 address, or a whole /64 of IPv6.
pub(crate) fn limit_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mask = u128::MAX << (128 - CLIENT_PREFIX_BITS);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_network_holds_its_addresses() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::1", "::1", true),
            ("::1", "::2", false),
            ("::/0", "2001:db8::1", true),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(
                network.contains(ip(address)),
                expected,
                "{network:?} {address}"
            );
        }
        for wrong in ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "::/129", "proxy"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_trusted_proxies_set_the_address_of_the_client() {
        let trusted = networks(&["10.0.0.0/8", "::1"]);
        let of = |peer: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            client_address(ip(peer), &headers, &trusted).to_string()
        };
        assert_eq!(of("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(of("::1", &["198.51.100.1:5000"]), "198.51.100.1");
        assert_eq!(of("::1", &["[2001:db8::1]:5000"]), "2001:db8::1");
        assert_eq!(
            of("10.0.0.1", &["8.8.8.8, 198.51.100.1, 10.0.0.2"]),
            "198.51.100.1"
        );
        assert_eq!(of("10.0.0.1", &["8.8.8.8", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(of("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(of("10.0.0.1", &["8.8.8.8, unknown"]), "10.0.0.1");
        assert_eq!(of("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
    }

    #[test]
    fn limits_count_a_network_of_ipv6_as_one_client() {
        let first = limit_address(ip("2001:db8:1:2:3:4:5:6"));
        assert_eq!(first, limit_address(ip("2001:db8:1:2:ffff::1")));
        assert_ne!(first, limit_address(ip("2001:db8:1:3::1")));
        assert_eq!(limit_address(ip("::ffff:198.51.100.1")), ip("198.51.100.1"));
        assert_ne!(
            limit_address(ip("198.51.100.1")),
            limit_address(ip("198.51.100.2"))
        );
    }
}
