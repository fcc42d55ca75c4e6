//! Buckets: typed records under typed keys, written by compare and swap.
//!
//! A bucket is the stream `KV_<bucket>` over `$KV.<bucket>.<key>`, one message per key, as every NATS tool
//! knows it. A revision is the sequence of a record's message. A write names the revision it replaces, and
//! loses when that is no longer the newest. A time to live belongs to the message: a write without one
//! makes the record permanent again.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL};
use async_nats::jetstream::context::{
    PublishAckFuture, PublishError as AckError, PublishErrorKind as AckErrorKind,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use quintet_contract::bucket::{Bucket, PROBE_KEY};
use tokio::time::Instant;
use tracing::warn;

use crate::codec::{Encoding, decode, encode};
use crate::connect::Bus;
use crate::error::{KvError, ReadError};
use crate::headers::{delete_headers, outgoing, ttl_text};
use crate::metrics::{self, DecodeSite};
use crate::ordered_consumer::OrderedConsumer;
use crate::publish::is_server_failure;
use crate::stored::Stored;

/// How often a load looks whether it has reached the end before it takes "nothing pending" for an answer. Only
/// a bucket that is written without pause gets there; what a load misses then is a record written again
/// in every one of these moments, and a watch after the load brings it.
pub(crate) const END_CHECKS: u32 = 100;

/// The version of one record; zero stands for "there is none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A record and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<R> {
    /// The record.
    pub record: R,
    /// Its version.
    pub revision: Revision,
}

/// A write in flight; resolves to the record's new revision. Dropping it does not take the write back.
#[must_use = "await it to know whether the record is stored"]
pub struct PendingWrite(BoxFuture<'static, Result<Revision, KvError>>);

impl Future for PendingWrite {
    type Output = Result<Revision, KvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

/// Access to one bucket; cheap to make and to clone.
pub struct BucketHandle<B> {
    pub(crate) bus: Bus,
    names: Names,
    bucket: PhantomData<fn() -> B>,
}

#[derive(Clone)]
struct Names {
    bucket: String,
    stream: String,
    subjects: String,
}

impl<B> Clone for BucketHandle<B> {
    fn clone(&self) -> Self {
        Self {
            bus: self.bus.clone(),
            names: self.names.clone(),
            bucket: PhantomData,
        }
    }
}

impl Bus {
    /// Access to a bucket; nothing is sent.
    pub fn bucket<B: Bucket>(&self) -> BucketHandle<B> {
        let bucket = B::bucket(self.prefix());
        let names = Names {
            stream: stream_of(&bucket),
            subjects: format!("$KV.{bucket}."),
            bucket,
        };
        BucketHandle {
            bus: self.clone(),
            names,
            bucket: PhantomData,
        }
    }
}

/// The stream that holds a bucket.
pub(crate) fn stream_of(bucket: &str) -> String {
    format!("KV_{bucket}")
}

impl<B: Bucket> BucketHandle<B> {
    /// The record under a key. Reads what this process wrote before.
    ///
    /// # Errors
    /// [`KvError::Codec`] for a record that cannot be read, [`KvError::NoBucket`] and [`KvError::Read`] when the bucket cannot be.
    pub async fn get(&self, key: &B::Key) -> Result<Option<Versioned<B::Record>>, KvError> {
        let key = B::render_key(key);
        let found = self.newest(&key).await?.filter(|stored| !stored.is_marker);
        let Some(stored) = found else { return Ok(None) };
        let revision = Revision(stored.sequence);
        match decode(&stored.body) {
            Ok((record, _)) => Ok(Some(Versioned { record, revision })),
            Err(source) => {
                metrics::malformed(DecodeSite::Record);
                Err(KvError::Codec {
                    bucket: self.names.bucket.clone(),
                    key,
                    source,
                })
            }
        }
    }

    /// Starts a write that replaces the `expected` revision, zero for a record that must not exist, be it
    /// that there never was one or that it was deleted or expired. Returns once the write is in flight, so
    /// that several can be pipelined; they are stored in the order of the calls.
    ///
    /// # Errors
    /// The write itself fails with [`KvError::Codec`], [`KvError::Rejected`] or [`KvError::NoBucket`]. What it resolves to:
    /// [`KvError::Conflict`] when the record is at another revision, [`KvError::Unanswered`] when it may or may not be stored,
    /// [`KvError::Rejected`] when the server refuses this record, such as for its size.
    pub async fn begin(
        &self,
        key: &B::Key,
        record: &B::Record,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<PendingWrite, KvError> {
        let key = B::render_key(key);
        let body = encode(record, Encoding::MessagePack).map_err(|source| KvError::Codec {
            bucket: self.names.bucket.clone(),
            key: key.clone(),
            source,
        })?;
        let write = Write {
            bus: self.bus.clone(),
            names: self.names.clone(),
            key,
            body,
            ttl,
        };
        let (bus, bucket, sent) = (
            self.bus.clone(),
            self.names.bucket.clone(),
            Sent::now(&self.bus),
        );
        let confirmation = write.send(expected).await?;
        Ok(PendingWrite(Box::pin(async move {
            let outcome = write.finish(expected, confirmation).await;
            record_outcome(&bus, &bucket, sent, &outcome);
            metrics::write(match &outcome {
                Ok(_) => "ok",
                Err(KvError::Conflict { .. }) => "conflict",
                Err(_) => "failed",
            });
            outcome
        })))
    }

    /// Writes a record that must not exist.
    ///
    /// # Errors
    /// [`KvError::Conflict`] when there is a record; otherwise as [`BucketHandle::begin`].
    pub async fn create(
        &self,
        key: &B::Key,
        record: &B::Record,
        ttl: Option<Duration>,
    ) -> Result<Revision, KvError> {
        self.begin(key, record, Revision(0), ttl).await?.await
    }

    /// Writes a record that must be at the `expected` revision.
    ///
    /// # Errors
    /// As [`BucketHandle::begin`].
    pub async fn update(
        &self,
        key: &B::Key,
        record: &B::Record,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, KvError> {
        self.begin(key, record, expected, ttl).await?.await
    }

    /// Deletes a record, if wanted only at the `expected` revision. Watchers see it go.
    ///
    /// # Errors
    /// [`KvError::Conflict`] when the record is at another revision; otherwise as [`BucketHandle::begin`].
    pub async fn delete(&self, key: &B::Key, expected: Option<Revision>) -> Result<(), KvError> {
        let key = B::render_key(key);
        let mut headers = delete_headers(self.bus.cause());
        if let Some(Revision(expected)) = expected {
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        }
        let sent = Sent::now(&self.bus);
        let pending = publish(&self.bus, &self.names, &key, headers, Bytes::new()).await?;
        let outcome = pending.await.map(|_| ());
        let outcome = outcome.map_err(|error| failed(&self.names.bucket, &key, error));
        record_outcome(&self.bus, &self.names.bucket, sent, &outcome);
        outcome
    }

    pub(crate) fn read_key(&self, stored: &Stored) -> Option<B::Key> {
        let text = stored.subject.strip_prefix(&self.names.subjects);
        if text == Some(PROBE_KEY) {
            return None;
        }
        let key = text.and_then(B::parse_key);
        if key.is_none() {
            metrics::malformed(DecodeSite::Record);
            warn!(subject = %stored.subject, "skipped a record with an unreadable key");
        }
        key
    }

    /// A consumer of the keys that match a filter; of all when it is empty.
    pub(crate) async fn ordered_consumer(
        &self,
        keys: &str,
        after: Revision,
    ) -> Result<OrderedConsumer, KvError> {
        let filter = match keys {
            "" => String::new(),
            keys => format!("{}{keys}", self.names.subjects),
        };
        OrderedConsumer::start(&self.bus, &self.names.stream, &filter, after.0)
            .await
            .map_err(|error| self.read_error(error))
    }

    /// Whether a consumer of this bucket has handed out everything that there is.
    pub(crate) async fn is_at_end(&self, consumer: &OrderedConsumer) -> Result<bool, KvError> {
        let at_end = match consumer.filter() {
            "" => {
                consumer
                    .is_at_end(&format!("{}>", self.names.subjects))
                    .await
            }
            filter => consumer.is_at_end(filter).await,
        };
        at_end.map_err(|error| self.read_error(error))
    }

    pub(crate) fn read_error(&self, error: ReadError) -> KvError {
        let bucket = self.names.bucket.clone();
        match error {
            ReadError::NoStream => KvError::NoBucket { bucket },
            ReadError::Other(source) => KvError::Read { bucket, source },
        }
    }

    /// The newest revision of the whole bucket.
    pub(crate) async fn last_revision(&self) -> Result<Revision, KvError> {
        let bucket = || self.names.bucket.clone();
        let stream = self
            .bus
            .jetstream()
            .get_stream_no_info(&self.names.stream)
            .await;
        let stream = stream.map_err(|error| KvError::Read {
            bucket: bucket(),
            source: error.into(),
        })?;
        let info = stream.get_info().await;
        let info = info.map_err(|error| KvError::Read {
            bucket: bucket(),
            source: error.into(),
        })?;
        Ok(Revision(info.state.last_sequence))
    }

    async fn newest(&self, key: &str) -> Result<Option<Stored>, KvError> {
        newest(&self.bus, &self.names, key).await
    }
}

/// When a write was sent, to judge its outcome.
#[derive(Clone, Copy)]
struct Sent {
    epoch: u64,
}

impl Sent {
    fn now(bus: &Bus) -> Self {
        let epoch = bus.link_events().borrow().epoch;
        Self { epoch }
    }

    /// Whether the connection has stood since then.
    fn is_on_this_connection(self, bus: &Bus) -> bool {
        bus.is_connected() && bus.link_events().borrow().epoch == self.epoch
    }
}

/// Records the outcome of a write in the write health of its bucket.
fn record_outcome<T>(bus: &Bus, bucket: &str, sent: Sent, outcome: &Result<T, KvError>) {
    match outcome {
        Ok(_) => bus.write_health().update(|health| health.confirmed(bucket)),
        Err(KvError::Unanswered { .. }) if sent.is_on_this_connection(bus) => bus
            .write_health()
            .update(|health| health.unconfirmed(bucket, Instant::now())),
        // Anything else is an answer about this one write, or the connection is lost.
        Err(_) => {}
    }
}

/// One compare-and-swap write; kept whole since "must not exist" may need a second try.
struct Write {
    bus: Bus,
    names: Names,
    key: String,
    body: Bytes,
    ttl: Option<Duration>,
}

impl Write {
    async fn send(&self, expected: Revision) -> Result<PublishAckFuture, KvError> {
        let mut headers = outgoing(self.bus.cause());
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.0.to_string());
        if let Some(ttl) = self.ttl {
            headers.insert(NATS_MESSAGE_TTL, ttl_text(ttl));
        }
        publish(
            &self.bus,
            &self.names,
            &self.key,
            headers,
            self.body.clone(),
        )
        .await
    }

    async fn finish(
        self,
        expected: Revision,
        confirmation: PublishAckFuture,
    ) -> Result<Revision, KvError> {
        let error = match confirmation.await {
            Ok(stored) => return Ok(Revision(stored.sequence)),
            Err(error) => failed(&self.names.bucket, &self.key, error),
        };
        if !matches!(error, KvError::Conflict { .. }) || expected != Revision(0) {
            return Err(error);
        }
        // Something is there. When it is only the marker of a deletion or expiry, replace that.
        let marker = match newest(&self.bus, &self.names, &self.key).await? {
            Some(stored) if stored.is_marker => Revision(stored.sequence),
            // Whatever refused us expired between the two looks.
            None => Revision(0),
            Some(_) => return Err(error),
        };
        let confirmation = self.send(marker).await?;
        let stored = confirmation
            .await
            .map_err(|error| failed(&self.names.bucket, &self.key, error))?;
        Ok(Revision(stored.sequence))
    }
}

async fn publish(
    bus: &Bus,
    names: &Names,
    key: &str,
    headers: HeaderMap,
    body: Bytes,
) -> Result<PublishAckFuture, KvError> {
    let subject = format!("{}{key}", names.subjects);
    let sent = bus
        .jetstream()
        .publish_with_headers(subject, headers, body)
        .await;
    sent.map_err(|error| failed(&names.bucket, key, error))
}

fn failed(bucket: &str, key: &str, error: AckError) -> KvError {
    let (bucket, key) = (bucket.to_owned(), key.to_owned());
    if is_server_failure(&error) {
        return KvError::Unanswered {
            bucket,
            key,
            source: error.into(),
        };
    }
    match error.kind() {
        AckErrorKind::WrongLastSequence => KvError::Conflict { bucket, key },
        AckErrorKind::TimedOut | AckErrorKind::BrokenPipe => KvError::Unanswered {
            bucket,
            key,
            source: error.into(),
        },
        AckErrorKind::StreamNotFound => KvError::NoBucket { bucket },
        AckErrorKind::WrongLastMessageId
        | AckErrorKind::MaxAckPending
        | AckErrorKind::MaxPayloadExceeded
        | AckErrorKind::Other => KvError::Rejected {
            bucket,
            key,
            source: error.into(),
        },
    }
}

/// The newest message of a key, marker or not. With several copies the leader is asked, since a copy may
/// not have our own last write yet.
async fn newest(bus: &Bus, names: &Names, key: &str) -> Result<Option<Stored>, KvError> {
    let subject = format!("{}{key}", names.subjects);
    let found = if bus.config().replicas > 1 {
        crate::direct_get::last_from_leader(bus, &names.stream, &subject).await
    } else {
        crate::direct_get::last_for_subject(bus, &names.stream, &subject).await
    };
    found.map_err(|error| match error {
        ReadError::NoStream => KvError::NoBucket {
            bucket: names.bucket.clone(),
        },
        ReadError::Other(source) => KvError::Read {
            bucket: names.bucket.clone(),
            source,
        },
    })
}
