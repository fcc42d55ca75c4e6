//! The endpoints of a NATS micro service and their counters, as `nats micro stats` shows them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quintet_contract::error::ErrorReply;
use serde_json::{Value, json};

/// The queue group that endpoints of one service share; the protocol's default.
pub(crate) const QUEUE: &str = "q";

/// An endpoint and its counters.
pub(crate) struct Endpoint {
    name: String,
    subject: String,
    requests: AtomicU64,
    errors: AtomicU64,
    nanos: AtomicU64,
    last_error: Mutex<String>,
}

impl Endpoint {
    /// An endpoint that has processed nothing yet.
    pub(crate) fn new(name: &str, subject: &str) -> Self {
        Self {
            name: name.to_owned(),
            subject: subject.to_owned(),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            last_error: Mutex::default(),
        }
    }

    /// Counts a reply.
    pub(crate) fn answered(&self, took: Duration, error: Option<&ErrorReply>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(
            u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        if let Some(error) = error {
            self.errors.fetch_add(1, Ordering::Relaxed);
            error.error.clone_into(
                &mut self
                    .last_error
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }

    /// As `nats micro info` shows it.
    pub(crate) fn info(&self) -> Value {
        json!({"name": self.name, "subject": self.subject, "queue_group": QUEUE, "metadata": {}})
    }

    /// As `nats micro stats` shows it.
    pub(crate) fn stats(&self) -> Value {
        let (requests, nanos) = (
            self.requests.load(Ordering::Relaxed),
            self.nanos.load(Ordering::Relaxed),
        );
        json!({
            "name": self.name,
            "subject": self.subject,
            "queue_group": QUEUE,
            "num_requests": requests,
            "num_errors": self.errors.load(Ordering::Relaxed),
            "last_error": *self.last_error.lock().unwrap_or_else(PoisonError::into_inner),
            "processing_time": nanos,
            "average_processing_time": nanos / requests.max(1),
        })
    }
}
