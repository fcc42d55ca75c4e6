//! Watching a bucket: every change in order, without gaps over reconnects.
//!
//! A deletion or expiry is seen through its marker, which stays for a minute; a process that was cut off
//! for longer must load again to be sure about what went meanwhile.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::{self, BoxStream};
use quintet_contract::bucket::Bucket;
use quintet_contract::time::Timestamp;

use crate::error::KvError;
use crate::kv::{BucketHandle, END_CHECKS, Revision, Versioned};
use crate::ordered_consumer::{ConsumerItem, OrderedConsumer};
use crate::stored::Stored;

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFrom {
    /// With the next change.
    New,
    /// With the current records, then [`Change::UpToDate`], then changes.
    Start,
    /// With the first change after a revision, such as [`Loaded::last`](crate::Loaded::last).
    After(Revision),
}

/// What happened to a record.
pub enum Change<B: Bucket> {
    /// It was written.
    Put {
        /// Its key.
        key: B::Key,
        /// Its new revision.
        revision: Revision,
        /// What it is now.
        record: B::Record,
        /// When the server stored it.
        at: Timestamp,
    },
    /// It was deleted or expired; may be reported more than once.
    Gone {
        /// Its key.
        key: B::Key,
        /// The revision of the deletion.
        revision: Revision,
    },
    /// The current records were delivered; what follows is new. Only after [`WatchFrom::Start`], once.
    UpToDate,
}

/// Changes of one bucket. Survives reconnects; ends after an error, which means that the bucket is gone or
/// the connection closed. Cancel-safe to await: a change is lost only when it was returned.
pub struct Watch<B: Bucket>(BoxStream<'static, Result<Change<B>, KvError>>);

impl<B: Bucket> Stream for Watch<B> {
    type Item = Result<Change<B>, KvError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

struct Watching<B> {
    handle: BucketHandle<B>,
    consumer: OrderedConsumer,
    catching_up: CatchingUp,
}

/// Whether [`Change::UpToDate`] is still owed.
#[derive(PartialEq, Eq)]
enum CatchingUp {
    /// Not yet; so often it seemed that everything was delivered.
    Reading {
        checks: u32,
    },
    /// The last current record was delivered.
    Reached,
    Over,
}

impl<B: Bucket> BucketHandle<B> {
    /// Watches the bucket.
    ///
    /// # Errors
    /// [`KvError::NoBucket`] when there is no bucket, [`KvError::Read`] when it cannot be watched.
    pub async fn watch(&self, from: WatchFrom) -> Result<Watch<B>, KvError> {
        self.watch_keys("", from).await
    }

    /// Watches one record.
    ///
    /// # Errors
    /// As [`BucketHandle::watch`].
    pub async fn watch_of(&self, key: &B::Key, from: WatchFrom) -> Result<Watch<B>, KvError> {
        self.watch_keys(&B::render_key(key), from).await
    }

    async fn watch_keys(&self, keys: &str, from: WatchFrom) -> Result<Watch<B>, KvError> {
        let (after, catching_up) = match from {
            WatchFrom::New => (self.last_revision().await?, CatchingUp::Over),
            WatchFrom::Start => (Revision(0), CatchingUp::Reading { checks: 0 }),
            WatchFrom::After(revision) => (revision, CatchingUp::Over),
        };
        let watching = Watching {
            handle: self.clone(),
            consumer: self.ordered_consumer(keys, after).await?,
            catching_up,
        };
        let changes = stream::unfold(Some(watching), |watching| async move {
            let mut watching = watching?;
            match watching.next().await {
                Ok(change) => Some((Ok(change), Some(watching))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Watch(Box::pin(changes)))
    }
}

impl<B: Bucket> Watching<B> {
    async fn next(&mut self) -> Result<Change<B>, KvError> {
        loop {
            if self.catching_up == CatchingUp::Reached {
                self.catching_up = CatchingUp::Over;
                return Ok(Change::UpToDate);
            }
            let (stored, pending) = match self
                .consumer
                .next()
                .await
                .map_err(|error| self.handle.read_error(error))?
            {
                ConsumerItem::Message { stored, pending } => (Some(stored), pending),
                ConsumerItem::CaughtUp => (None, 0),
            };
            if let (0, CatchingUp::Reading { checks }) = (pending, &mut self.catching_up) {
                *checks += 1;
                if *checks > END_CHECKS || self.handle.is_at_end(&self.consumer).await? {
                    self.catching_up = CatchingUp::Reached;
                }
            }
            if let Some(change) = stored.and_then(|stored| self.read(stored)) {
                return Ok(change);
            }
        }
    }

    fn read(&self, stored: Stored) -> Option<Change<B>> {
        let revision = Revision(stored.sequence);
        if stored.is_marker {
            return self
                .handle
                .read_key(&stored)
                .map(|key| Change::Gone { key, revision });
        }
        let at = stored.at;
        let (key, Versioned { record, revision }) = self.handle.read(stored)?;
        Some(Change::Put {
            key,
            revision,
            record,
            at,
        })
    }
}
