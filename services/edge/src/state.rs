//! What every handler gets.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use quintet_bus::Bus;
use quintet_contract::error::ErrorCode;
use quintet_service::health::Health;
use quintet_service::telemetry::Prometheus;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::auth::Keys;
use crate::config::EdgeConfig;
use crate::error::HttpError;
use crate::feeds::Feeds;
use crate::pace::Paces;
use crate::pools::Pools;
use crate::rate::RateLimit;
use crate::run_rate::RunRate;

/// The edge, as its handlers see it; clones are the same.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: EdgeConfig,
    pub(crate) bus: Bus,
    pub(crate) pools: Pools,
    pub(crate) feeds: Feeds,
    pub(crate) health: Health,
    pub(crate) prometheus: Prometheus,
    pub(crate) keys: Keys,
    pub(crate) rate: Option<RateLimit>,
    /// The limit of requests about runs.
    pub(crate) run_rate: Option<RunRate>,
    /// Cancelled when the edge leaves: streams end, sockets close.
    pub(crate) shutdown: CancellationToken,
    /// Open WebSockets and event streams.
    pub(crate) streams: Places,
    pub(crate) paces: Paces,
    /// Held by whoever draws a step of a large picture.
    pub(crate) drawing: Semaphore,
}

impl App {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Open connections, or sockets and event streams, by address, so that none can take them all.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    limit: usize,
}

/// One of them; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    all: Places,
    address: IpAddr,
}

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            open: Arc::default(),
            limit,
        }
    }

    pub(crate) fn enter(&self, address: IpAddr) -> Result<Place, HttpError> {
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
        Ok(Place {
            all: self.clone(),
            address,
        })
    }
}

impl Drop for Place {
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
