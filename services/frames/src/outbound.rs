//! Does what the core decided. At most one write is on its way, and nothing waits for it but the wish that it belongs to.

use std::collections::HashMap;

use futures::StreamExt;
use quintet_bus::pending::PendingReplies;
use quintet_bus::{
    BucketHandle, Bus, Change as Stir, KvError, PendingWrite, Revision, Watch, WatchFrom,
};
use quintet_contract::bucket::{Frames, FramesKey};
use quintet_contract::error::ErrorReply;
use quintet_contract::frame_api::FramesRecord;
use quintet_contract::subject::{FrameStatsPublished, FrameWorkerMessages};
use quintet_service::telemetry::chain;
use tracing::{debug, warn};

use crate::core::{Change, Effect, Stored};
use crate::line::Line;
use crate::metrics;
use crate::processes::Processes;

/// What is stored, under which revisions, and every change after that.
pub(crate) struct Loaded {
    pub(crate) stored: Stored,
    pub(crate) revisions: HashMap<FramesKey, Revision>,
    pub(crate) sight: Sight,
}

/// What the bucket tells of changes, ours among them.
pub(crate) struct Sight {
    changes: Watch<Frames>,
    /// The newest revisions of what changed: greater than ours means that somebody else wrote.
    seen: HashMap<FramesKey, Revision>,
}

impl Sight {
    /// Waits for a change of what is stored. Cancel-safe: a change is taken only when it is returned.
    pub(crate) async fn changed(&mut self) -> Result<(), KvError> {
        match self.changes.next().await {
            Some(Ok(Stir::Put { key, revision, .. } | Stir::Gone { key, revision })) => {
                self.seen.insert(key, revision);
                Ok(())
            }
            Some(Ok(Stir::UpToDate)) => Ok(()),
            Some(Err(error)) => Err(error),
            // It ends after an error only, after which there is another one.
            None => std::future::pending().await,
        }
    }

    /// Whether somebody else wrote: a service that drove the display before, or a person. While a write of ours is on its
    /// way, nobody can tell.
    pub(crate) fn is_ahead_of(&mut self, outbound: &Outbound) -> bool {
        if outbound.write.is_some() {
            return false;
        }
        let ours = |key: &FramesKey| outbound.revisions.get(key).copied().unwrap_or_default();
        self.seen
            .drain()
            .any(|(key, revision)| ours(&key) < revision)
    }
}

/// Reads everything that people have set.
pub(crate) async fn load(bus: &Bus) -> Result<Loaded, KvError> {
    let mut stored = Stored::default();
    let mut revisions = HashMap::new();
    let bucket = bus.bucket::<Frames>();
    let loaded = bucket.load().await?;
    let changes = bucket.watch(WatchFrom::After(loaded.last)).await?;
    for (key, found) in loaded.entries {
        revisions.insert(key.clone(), found.revision);
        match (key, found.record) {
            (FramesKey::State, FramesRecord::State(state)) => stored.state = state,
            (FramesKey::Worker(worker), FramesRecord::Worker(set)) => {
                stored.settings.insert(worker, set.settings);
            }
            (key, _) => warn!(?key, "passed over a record that does not belong to its key"),
        }
    }
    Ok(Loaded {
        stored,
        revisions,
        sight: Sight {
            changes,
            seen: HashMap::new(),
        },
    })
}

/// Everything that effects act on.
pub(crate) struct Outbound {
    bus: Bus,
    bucket: BucketHandle<Frames>,
    revisions: HashMap<FramesKey, Revision>,
    write: Option<(FramesKey, PendingWrite)>,
    line: Line,
    pub(crate) processes: Processes,
}

/// How a write ended.
pub(crate) enum Outcome {
    /// It is stored.
    Written,
    /// It is not, or nobody knows; what is stored has to be read again.
    Unsure(ErrorReply),
}

impl Outbound {
    pub(crate) fn new(
        bus: Bus,
        revisions: HashMap<FramesKey, Revision>,
        line: Line,
        processes: Processes,
    ) -> Self {
        Self {
            bucket: bus.bucket(),
            bus,
            revisions,
            write: None,
            line,
            processes,
        }
    }

    /// Goes on with what was read again.
    pub(crate) fn reload(&mut self, revisions: HashMap<FramesKey, Revision>) {
        self.revisions = revisions;
    }

    /// Does one thing, or begins to. A write that cannot even begin is over at once.
    pub(crate) async fn act(
        &mut self,
        effect: Effect,
        pending: &mut PendingReplies,
    ) -> Option<Outcome> {
        match effect {
            Effect::Answer(reply) => pending.send(reply).await,
            Effect::Store(change) => return self.begin(change).await,
            Effect::Tell(worker, message) => {
                let subject = FrameWorkerMessages { worker };
                if let Err(error) = self.bus.publish_json(&subject, &message).await {
                    debug!(error = %chain(&error), "cannot tell a worker");
                }
            }
            Effect::Show(bitmap) => self.line.show(bitmap),
            Effect::Publish(stats) => {
                metrics::told(&stats);
                if let Err(error) = self.bus.publish(&FrameStatsPublished {}, &stats).await {
                    debug!(error = %chain(&error), "cannot tell how frames are");
                }
            }
            Effect::Run(worker) => self.processes.run(&worker),
            Effect::Halt(worker) => self.processes.halt(&worker),
        }
        None
    }

    async fn begin(&mut self, change: Change) -> Option<Outcome> {
        let (key, record) = match change {
            Change::State(state) => (FramesKey::State, FramesRecord::State(state)),
            Change::Settings(worker, set) => (FramesKey::Worker(worker), FramesRecord::Worker(set)),
        };
        let expected = self.revisions.get(&key).copied().unwrap_or_default();
        match self.bucket.begin(&key, &record, expected, None).await {
            Ok(write) => {
                self.write = Some((key, write));
                None
            }
            Err(error) => Some(unsure(&error)),
        }
    }

    /// Waits for the write on its way; for ever while there is none. Cancel-safe: the write stays where it is until its end
    /// is known.
    pub(crate) async fn written(&mut self) -> Outcome {
        let Some((key, write)) = &mut self.write else {
            return std::future::pending().await;
        };
        let outcome = match write.await {
            Ok(revision) => {
                self.revisions.insert(key.clone(), revision);
                Outcome::Written
            }
            Err(error) => unsure(&error),
        };
        self.write = None;
        outcome
    }
}

fn unsure(error: &KvError) -> Outcome {
    warn!(error = %chain(error), "a change of frames may not be stored");
    let text =
        "NATS did not confirm that the change is stored; look whether it holds, then send it again";
    Outcome::Unsure(ErrorReply::unavailable(text))
}
