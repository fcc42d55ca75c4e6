//! How many connections, or sockets and event streams, may be open from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use quintet_contract::error::ErrorCode;

use crate::error::HttpError;

/// Open connections, or sockets and event streams, by address, so that none can take them all.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionQuota {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    limit: usize,
}

/// One of them; given back when dropped.
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
        }
    }

    pub(crate) fn acquire(&self, address: IpAddr) -> Result<QuotaPermit, HttpError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.limit {
            let text = format!(
                "{} are open from this address; close some first",
                self.limit
            );
            return Err(HttpError::new(ErrorCode::RateLimited, text));
        }
        *count += 1;
        Ok(QuotaPermit {
            all: self.clone(),
            address,
        })
    }
}

impl Drop for QuotaPermit {
    fn drop(&mut self) {
        let mut open = self.all.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}
