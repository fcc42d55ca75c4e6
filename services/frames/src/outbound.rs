//! Outbound: performs the effects of the core. At most one write is in flight, and nothing waits for it but the command
//! that it belongs to.

use std::collections::HashMap;

use futures::StreamExt;
use quintet_bus::pending::PendingReplies;
use quintet_bus::{BucketHandle, Bus, Change, KvError, Revision, Watch, WatchFrom};
use quintet_contract::bucket::{Frames, FramesKey};
use quintet_contract::display::LineState;
use quintet_contract::frame_api::FramesRecord;
use quintet_contract::subject::{FrameStatsPublished, FrameWorkerMessages};
use quintet_leader::{Confirmation, ReloadReason, Signal, WriteError};
use quintet_service::tasks::Tasks;
use quintet_service::telemetry::chain;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use crate::core::{Action, Core, Event, Stored, Write};
use crate::line::Line;
use crate::metrics;
use crate::processes::Processes;

type Rejection = quintet_leader::Rejection<FramesKey, Action>;

/// The desired state as it is stored, under which revisions, and every change after that.
pub(crate) struct Loaded {
    pub(crate) stored: Stored,
    pub(crate) config: ConfigWatch,
}

/// The revisions that this process knows, and the newest ones: greater means that another process wrote.
pub(crate) struct ConfigWatch {
    revisions: HashMap<FramesKey, Revision>,
    changes: Watch<Frames>,
    newest: HashMap<FramesKey, Revision>,
}

impl ConfigWatch {
    /// Waits for a change of what is stored, ours among them. Cancel-safe: a change is taken only when it is returned.
    async fn changed(&mut self) -> Result<(), KvError> {
        match self.changes.next().await {
            Some(Ok(Change::Put { key, revision, .. } | Change::Gone { key, revision })) => {
                self.newest.insert(key, revision);
                Ok(())
            }
            Some(Ok(Change::UpToDate)) => Ok(()),
            Some(Err(error)) => Err(error),
            // It ends after an error only, after which there is another one.
            None => std::future::pending().await,
        }
    }

    fn revision(&self, key: &FramesKey) -> Revision {
        self.revisions.get(key).copied().unwrap_or_default()
    }
}

/// Reads the desired state.
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
            (key, _) => warn!(?key, "skipped a record that does not belong to its key"),
        }
    }
    let config = ConfigWatch {
        revisions,
        changes,
        newest: HashMap::new(),
    };
    Ok(Loaded { stored, config })
}

/// Everything that effects act on.
pub(crate) struct Outbound {
    pub(crate) bus: Bus,
    pub(crate) bucket: BucketHandle<Frames>,
    pub(crate) config: ConfigWatch,
    pub(crate) line: Line,
    pub(crate) line_state: watch::Receiver<LineState>,
    pub(crate) processes: Processes,
    pub(crate) process_events: mpsc::Receiver<Event>,
    /// The processes run in it.
    pub(crate) tasks: Tasks,
}

impl quintet_leader::Outbound for Outbound {
    type Core = Core;
    type Key = FramesKey;
    type Receipt = Revision;

    fn key(write: &Write) -> FramesKey {
        match write {
            Write::State(_) => FramesKey::State,
            Write::Settings(worker, _) => FramesKey::Worker(worker.clone()),
        }
    }

    async fn begin(
        &mut self,
        _: &Core,
        write: Write,
        _: std::time::Duration,
    ) -> Result<Option<Confirmation<Revision>>, WriteError> {
        let key = Self::key(&write);
        let record = match write {
            Write::State(state) => FramesRecord::State(state),
            Write::Settings(_, settings) => FramesRecord::Worker(settings),
        };
        let expected = self.config.revision(&key);
        let pending = self.bucket.begin(&key, &record, expected, None).await?;
        Ok(Some(Box::pin(async move { Ok(pending.await?) })))
    }

    fn confirmed(&mut self, key: FramesKey, revision: Revision) -> Option<Event> {
        self.config.revisions.insert(key, revision);
        Some(Event::Stored(Ok(())))
    }

    fn rejected(&mut self, rejection: Rejection) -> Event {
        Event::Stored(Err(rejection.reply))
    }

    async fn act(&mut self, action: Action, pending: &mut PendingReplies) {
        match action {
            Action::Answer(reply) => pending.send(reply).await,
            Action::Notify(worker, message) => {
                let subject = FrameWorkerMessages { worker };
                if let Err(error) = self.bus.publish_json(&subject, &message).await {
                    debug!(error = %chain(&error), "cannot send a message to a worker");
                }
            }
            Action::Show(bitmap) => self.line.show(bitmap),
            Action::Publish(stats) => {
                metrics::published(&stats);
                if let Err(error) = self.bus.publish(&FrameStatsPublished {}, &stats).await {
                    debug!(error = %chain(&error), "cannot publish statistics");
                }
            }
            Action::Run(worker) => self.processes.run(&worker),
            Action::Halt(worker) => self.processes.halt(&worker),
        }
    }

    /// Cancel-safe: a stream or channel keeps what was not returned.
    async fn next(&mut self) -> Signal<Event, Action> {
        tokio::select! {
            biased;
            changed = self.config.changed() => match changed {
                Ok(()) => Signal::Changed,
                Err(error) => Signal::Reload(ReloadReason::Watch(error.into())),
            },
            Some(event) = self.process_events.recv() => Signal::Event(event),
            Ok(()) = self.line_state.changed() => {
                Signal::Event(Event::LineChanged(*self.line_state.borrow_and_update()))
            }
        }
    }

    /// While a write is in flight, it cannot be decided which process a change is of.
    fn is_stale(&mut self) -> bool {
        let ConfigWatch {
            revisions, newest, ..
        } = &mut self.config;
        newest
            .drain()
            .any(|(key, revision)| revisions.get(&key).copied().unwrap_or_default() < revision)
    }
}
