//! Leases: one holder at a time, by a record that expires unless it is renewed.
//!
//! A candidate creates the record; its holder renews it every third of its life under the revision it wrote
//! last, so that a stale holder is refused. A hand-over by release is immediate, after a death it takes one
//! life. A lease only prevents wasted work: what must be right is right by compare and swap on records.

use std::time::Duration;

use futures::StreamExt;
use quintet_contract::bucket::{Bucket, Lease, LeaseKey, Leases};
use quintet_contract::id::HolderId;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{debug, info, warn};

use crate::clock::now;
use crate::connect::Bus;
use crate::error::{KvError, LeaseError};
use crate::kv::{BucketHandle, PendingWrite, Revision};
use crate::watch::{Change, WatchFrom};

/// The shortest life that the server can count.
const SHORTEST_TTL: Duration = Duration::from_secs(1);
/// Wait before a candidate tries again after a failure that may pass.
const RETRY: Duration = Duration::from_millis(250);

/// How long leases live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// Life of a lease after its last renewal, in whole seconds.
    pub ttl: Duration,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(2),
        }
    }
}

/// A candidate for a lease.
pub struct LeaseCandidate {
    terms: Terms,
    /// A creation in flight. Kept here, so that a caller who stops waiting and waits again does not lose
    /// the lease it may have won meanwhile.
    attempt: Option<Attempt>,
}

#[derive(Clone)]
struct Terms {
    bucket: BucketHandle<Leases>,
    key: LeaseKey,
    holder: HolderId,
    ttl: Duration,
}

struct Attempt {
    began: Instant,
    lease: Lease,
    write: PendingWrite,
}

/// A lease that is held and renewed in the background.
///
/// Dropping it stops the renewals, and the lease passes on when its life ends; [`HeldLease::release`] passes
/// it on at once.
pub struct HeldLease {
    state: watch::Receiver<State>,
    release: Option<oneshot::Sender<oneshot::Sender<()>>>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// When the life that the last successful renewal gave ends, counted from when that renewal began.
    until: Instant,
    lost: bool,
}

impl Bus {
    /// A candidate for a lease; nothing is sent yet.
    pub fn lease(&self, key: LeaseKey, holder: HolderId, ttl: Duration) -> LeaseCandidate {
        let ttl = ttl.max(SHORTEST_TTL);
        LeaseCandidate {
            terms: Terms {
                bucket: self.bucket(),
                key,
                holder,
                ttl,
            },
            attempt: None,
        }
    }
}

impl LeaseCandidate {
    /// Waits until the lease is ours. Fails only when the bucket is missing.
    ///
    /// Cancel-safe: a creation in flight stays with the candidate, and waiting again finds its result. A
    /// candidate that is dropped after it won without knowing leaves a lease that expires by itself.
    ///
    /// # Errors
    /// [`LeaseError`] when the bucket of leases is missing on a working connection; anything else is tried again.
    pub async fn acquire(&mut self) -> Result<HeldLease, LeaseError> {
        loop {
            let failure = match self.try_once().await {
                Ok(Some(held)) => return Ok(held),
                Ok(None) => match self.terms.until_free().await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if matches!(failure, KvError::NoBucket { .. }) && self.terms.bucket.bus.is_connected() {
                return Err(LeaseError {
                    lease: Leases::render_key(&self.terms.key),
                    source: failure,
                });
            }
            debug!(error = %failure, "cannot try for a lease now");
            sleep(RETRY).await;
        }
    }

    async fn try_once(&mut self) -> Result<Option<HeldLease>, KvError> {
        if self.attempt.is_none() {
            let lease = Lease {
                holder: self.terms.holder.clone(),
                since: now(),
            };
            let began = Instant::now();
            let write = self
                .terms
                .bucket
                .begin(&self.terms.key, &lease, Revision(0), Some(self.terms.ttl))
                .await?;
            self.attempt = Some(Attempt {
                began,
                lease,
                write,
            });
        }
        let Some(attempt) = &mut self.attempt else {
            return Ok(None);
        };
        let outcome = (&mut attempt.write).await;
        let Some(Attempt { began, lease, .. }) = self.attempt.take() else {
            return Ok(None);
        };
        match outcome {
            Ok(revision) => Ok(HeldLease::start(self.terms.clone(), lease, revision, began)),
            Err(KvError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Terms {
    /// Waits until the lease may be free: its record goes, or it should long have been renewed or gone.
    async fn until_free(&self) -> Result<(), KvError> {
        let Some(current) = self.bucket.get(&self.key).await? else {
            return Ok(());
        };
        let mut changes = self
            .bucket
            .watch(WatchFrom::After(current.revision))
            .await?;
        let mut deadline = Instant::now() + self.ttl * 2;
        loop {
            match timeout_at(deadline, changes.next()).await {
                Ok(Some(Ok(Change::Gone { key, .. }))) if key == self.key => return Ok(()),
                Ok(Some(Ok(Change::Put { key, .. }))) if key == self.key => {
                    deadline = Instant::now() + self.ttl * 2;
                }
                Ok(Some(Ok(Change::Gone { .. } | Change::Put { .. } | Change::UpToDate))) => {}
                Ok(Some(Err(error))) => return Err(error),
                Ok(None) | Err(_) => return Ok(()),
            }
        }
    }
}

impl HeldLease {
    /// `None` when the confirmation took longer than the TTL of the lease: then another candidate may hold it.
    fn start(terms: Terms, lease: Lease, revision: Revision, began: Instant) -> Option<Self> {
        let until = began + terms.ttl;
        if Instant::now() >= until {
            return None;
        }
        info!(lease = %terms.key, holder = %terms.holder, "took a lease");
        let (publish, state) = watch::channel(State { until, lost: false });
        let (release, released) = oneshot::channel();
        let renewal = Renewal {
            terms,
            lease,
            revision,
            until,
            publish,
        };
        tokio::spawn(renewal.run(released));
        Some(Self {
            state,
            release: Some(release),
        })
    }

    /// Resolves when the lease is lost: another candidate holds it, or no renewal succeeded for its whole TTL.
    /// Cancel-safe: it only looks at shared state.
    pub async fn lost(&mut self) {
        // An error means that the renewals ended, and with them the lease.
        let _ = self.state.wait_for(|state| state.lost).await;
    }

    /// Whether the lease is certainly ours at this moment, also when this process was stopped for a while.
    pub fn is_held(&self) -> bool {
        let state = *self.state.borrow();
        !state.lost && Instant::now() < state.until && self.state.has_changed().is_ok()
    }

    /// Gives the lease up; the next candidate gets it at once.
    pub async fn release(mut self) {
        let Some(release) = self.release.take() else {
            return;
        };
        let (done, when_done) = oneshot::channel();
        if release.send(done).is_ok() {
            // An error means that the lease was lost meanwhile.
            let _ = when_done.await;
        }
    }
}

/// The background task of a held lease.
struct Renewal {
    terms: Terms,
    lease: Lease,
    revision: Revision,
    until: Instant,
    publish: watch::Sender<State>,
}

impl Renewal {
    async fn run(mut self, mut released: oneshot::Receiver<oneshot::Sender<()>>) {
        let pause = self.terms.ttl / 3;
        loop {
            tokio::select! {
                biased;
                order = &mut released => {
                    // An error means that the lease was dropped: it passes on when its life ends.
                    if let Ok(done) = order {
                        self.give_up().await;
                        let _ = done.send(());
                    }
                    return;
                }
                () = sleep_until(self.until) => return self.lose("no renewal succeeded in time"),
                () = sleep(pause) => {}
            }
            if let Err(reason) = self.renew().await {
                return self.lose(reason);
            }
        }
    }

    /// One renewal; an error means that another candidate holds the lease.
    async fn renew(&mut self) -> Result<(), &'static str> {
        let began = Instant::now();
        let renewed = self.terms.bucket.update(
            &self.terms.key,
            &self.lease,
            self.revision,
            Some(self.terms.ttl),
        );
        match timeout_at(self.until, renewed).await {
            Ok(Ok(revision)) => self.renewed(revision, began),
            Ok(Err(KvError::Conflict { .. })) => return self.recover(began).await,
            Ok(Err(error)) => warn!(%error, lease = %self.terms.key, "cannot renew a lease now"),
            Err(_) => warn!(lease = %self.terms.key, "a renewal of a lease got no answer"),
        }
        Ok(())
    }

    /// A refusal may mean that an earlier renewal was stored without our knowing: then the record is ours.
    async fn recover(&mut self, began: Instant) -> Result<(), &'static str> {
        match timeout_at(self.until, self.terms.bucket.get(&self.terms.key)).await {
            Ok(Ok(Some(found))) if found.record == self.lease => {
                // Its TTL counts from that earlier renewal, whose time is unknown: renew at once.
                let renewed = self.terms.bucket.update(
                    &self.terms.key,
                    &self.lease,
                    found.revision,
                    Some(self.terms.ttl),
                );
                match timeout_at(self.until, renewed).await {
                    Ok(Ok(revision)) => self.renewed(revision, began),
                    Ok(Err(KvError::Conflict { .. })) => return Err("another client wrote it"),
                    Ok(Err(_)) | Err(_) => {}
                }
                Ok(())
            }
            Ok(Ok(Some(_))) => Err("another candidate holds it"),
            Ok(Ok(None)) => Err("it expired"),
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    fn renewed(&mut self, revision: Revision, began: Instant) {
        self.revision = revision;
        self.until = began + self.terms.ttl;
        self.publish.send_replace(State {
            until: self.until,
            lost: false,
        });
    }

    fn lose(&self, reason: &'static str) {
        warn!(lease = %self.terms.key, holder = %self.terms.holder, reason, "lost a lease");
        self.publish.send_modify(|state| state.lost = true);
    }

    async fn give_up(&self) {
        self.publish.send_modify(|state| state.lost = true);
        let gone = self
            .terms
            .bucket
            .delete(&self.terms.key, Some(self.revision));
        match timeout_at(self.until, gone).await {
            Ok(Ok(())) => {
                info!(lease = %self.terms.key, holder = %self.terms.holder, "released a lease")
            }
            Ok(Err(error)) => debug!(%error, "left a lease to expire"),
            Err(_) => debug!("left a lease to expire"),
        }
    }
}
