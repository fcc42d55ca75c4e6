//! Quotas: how many connections, or sockets and event streams, may be open from one client and altogether.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use quintet_contract::error::ErrorCode;

use crate::access::client_address::{Network, limit_address};
use crate::error::HttpError;

/// Open connections, or sockets and event streams, by address, so that none can take them all.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionQuota {
    open: Arc<Mutex<Open>>,
    limit: usize,
    total: usize,
    exempt: Arc<[Network]>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One of them; released when dropped.
#[derive(Debug)]
pub(crate) struct QuotaPermit {
    all: ConnectionQuota,
    address: IpAddr,
}

impl ConnectionQuota {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            open: Arc::default(),
            limit,
            total: usize::MAX,
            exempt: Arc::default(),
        }
    }

    /// At most so many altogether.
    pub(crate) fn with_total(self, total: usize) -> Self {
        Self { total, ..self }
    }

    /// Without a limit for each of these addresses: proxies, behind which all clients have the same.
    pub(crate) fn without(self, exempt: Vec<Network>) -> Self {
        let exempt = exempt.into();
        Self { exempt, ..self }
    }

    pub(crate) fn acquire(&self, address: IpAddr) -> Result<QuotaPermit, HttpError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= self.total {
            let text = format!("{} are open, which is all there may be", self.total);
            return Err(HttpError::new(ErrorCode::RateLimited, text));
        }
        let is_exempt = self.exempt.iter().any(|network| network.contains(address));
        let address = limit_address(address);
        let count = open.by_address.entry(address).or_default();
        if *count >= self.limit && !is_exempt {
            let text = format!(
                "{} are open from this address; close some first",
                self.limit
            );
            return Err(HttpError::new(ErrorCode::RateLimited, text));
        }
        *count += 1;
        open.total += 1;
        Ok(QuotaPermit {
            all: self.clone(),
            address,
        })
    }
}

impl Drop for QuotaPermit {
    fn drop(&mut self) {
        let mut open = self.all.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_has_its_limit_and_all_together_have_one() {
        let proxy: Network = "10.0.0.1".parse().unwrap();
        let quota = ConnectionQuota::new(1).with_total(4).without(vec![proxy]);
        let first = quota.acquire(ip("2001:db8::1")).unwrap();
        assert!(quota.acquire(ip("2001:db8::2")).is_err(), "of the same /64");
        let _other = quota.acquire(ip("2001:db8:0:1::2")).unwrap();
        let _proxied = [
            quota.acquire(ip("10.0.0.1")).unwrap(),
            quota.acquire(ip("10.0.0.1")).unwrap(),
        ];
        assert!(quota.acquire(ip("198.51.100.1")).is_err(), "no more at all");
        drop(first);
        let _again = quota.acquire(ip("2001:db8::2")).unwrap();
        assert!(quota.acquire(ip("10.0.0.1")).is_err(), "nor for a proxy");
    }
}
