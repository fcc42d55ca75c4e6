//! Loading a bucket: every record, read at once, from which an owner starts.
//!
//! While messages come in, those that came before are decoded beside the runtime: hundreds of thousands of records take
//! seconds of a processor, in which leases must be renewed and the server be answered.

use std::collections::HashSet;
use std::panic::resume_unwind;

use quintet_contract::bucket::Bucket;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::warn;

use crate::codec::decode;
use crate::error::KvError;
use crate::kv::{BucketHandle, END_CHECKS, Revision, Versioned};
use crate::metrics::{self, DecodeSite};
use crate::ordered_consumer::ConsumerItem;
use crate::stored::Stored;

/// Messages that are decoded in one go.
const READ_AT_ONCE: usize = 2048;

/// A key and what is under it.
type Entry<B> = (<B as Bucket>::Key, Versioned<<B as Bucket>::Record>);
/// Messages by their subject, read; `None` for a marker and for what cannot be read.
type Part<B> = Vec<(String, Option<Entry<B>>)>;

/// Everything that a bucket holds.
pub struct Loaded<B: Bucket> {
    /// The live records, in no particular order.
    pub entries: Vec<(B::Key, Versioned<B::Record>)>,
    /// Everything up to here is in `entries`; a watch after it misses nothing.
    pub last: Revision,
}

/// Does what takes longer than the runtime's own threads may be held up. A panic continues in the caller.
pub async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    finished(spawn_blocking(work)).await
}

async fn finished<T>(work: JoinHandle<T>) -> T {
    match work.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime ends, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

impl<B: Bucket> BucketHandle<B> {
    /// All live records. One that cannot be read is logged, counted and left out.
    ///
    /// # Errors
    /// [`KvError::NoBucket`] when there is no bucket, [`KvError::Read`] when it cannot be read.
    pub async fn load(&self) -> Result<Loaded<B>, KvError> {
        self.load_of("").await
    }

    /// The live records whose keys match a filter of tokens, such as `a.*`.
    ///
    /// # Errors
    /// As [`BucketHandle::load`].
    pub async fn load_of(&self, keys: &str) -> Result<Loaded<B>, KvError> {
        let mut consumer = self.ordered_consumer(keys, Revision(0)).await?;
        let mut parts: Vec<JoinHandle<Part<B>>> = Vec::new();
        let mut unread = Vec::new();
        let mut checks = 0;
        loop {
            let next = consumer.next().await;
            let pending = match next.map_err(|error| self.read_error(error))? {
                ConsumerItem::CaughtUp => 0,
                ConsumerItem::Message { stored, pending } => {
                    unread.push(stored);
                    if unread.len() == READ_AT_ONCE {
                        parts.push(self.decode_blocking(std::mem::take(&mut unread)));
                    }
                    pending
                }
            };
            if pending == 0 {
                checks += 1;
                if checks > END_CHECKS || self.is_at_end(&consumer).await? {
                    break;
                }
            }
        }
        parts.push(self.decode_blocking(unread));
        let last = Revision(consumer.last());
        consumer.stop().await;
        let mut entries = Vec::with_capacity(parts.len() * READ_AT_ONCE);
        let mut seen = HashSet::with_capacity(parts.len() * READ_AT_ONCE);
        for part in parts.into_iter().rev() {
            for (subject, entry) in finished(part).await.into_iter().rev() {
                // A record that was written again while we read comes twice; the newer one counts.
                if seen.insert(subject) {
                    entries.extend(entry);
                }
            }
        }
        Ok(Loaded { entries, last })
    }

    fn decode_blocking(&self, messages: Vec<Stored>) -> JoinHandle<Part<B>> {
        let bucket = self.clone();
        spawn_blocking(move || {
            let read = messages.into_iter().map(|stored| {
                let subject = stored.subject.clone();
                (subject, bucket.read(stored))
            });
            read.collect()
        })
    }

    /// Key and record of a stored message; `None` for a marker and for what cannot be read.
    pub(crate) fn read(&self, stored: Stored) -> Option<Entry<B>> {
        if stored.is_marker {
            return None;
        }
        let key = self.read_key(&stored)?;
        match decode(&stored.body) {
            Ok((record, _)) => Some((
                key,
                Versioned {
                    record,
                    revision: Revision(stored.sequence),
                },
            )),
            Err(error) => {
                metrics::malformed(DecodeSite::Record);
                warn!(subject = %stored.subject, %error, "skipped an unreadable record");
                None
            }
        }
    }
}
