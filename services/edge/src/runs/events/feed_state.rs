//! What the follower of a run and its subscribers share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use quintet_contract::error::ErrorReply;
use quintet_contract::id::RunId;
use tokio::sync::watch;

use super::replay_buffer::ReplayBuffer;
use crate::error::HttpError;
use crate::live::unpoisoned;

/// The status of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has not found the end of the log yet.
    Starting,
    /// It has everything up to this entry.
    At {
        n: u64,
        /// Whether it knows the newest checkpoints, also those from before it began.
        has_marks: bool,
    },
    /// It has ended; a new one has to be started.
    Gone,
}

/// What listeners want of a follower beyond what comes live.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// To have everything up to this entry, which is known to exist.
    pub(super) n: u64,
    /// To know the newest checkpoints.
    pub(super) marks: bool,
}

/// What the follower of a run and its listeners share.
pub(super) struct RunFeed {
    pub(super) run_id: RunId,
    pub(super) buffer: Mutex<ReplayBuffer>,
    pub(super) state: watch::Sender<State>,
    pub(super) wanted: watch::Sender<Wanted>,
}

pub(super) type Feeds = Arc<Mutex<HashMap<RunId, Arc<RunFeed>>>>;

impl RunFeed {
    pub(super) fn buffer(&self) -> MutexGuard<'_, ReplayBuffer> {
        unpoisoned(self.buffer.lock())
    }

    /// Whether there are no subscribers; if so, the feed takes no new ones.
    pub(super) fn close_if_unused(&self, feeds: &Feeds) -> bool {
        let feeds = unpoisoned(feeds.lock());
        let close_if_unused = self.state.receiver_count() == 0;
        if close_if_unused {
            self.state.send_replace(State::Gone);
        }
        drop(feeds);
        close_if_unused
    }
}

pub(super) fn unavailable() -> HttpError {
    ErrorReply::unavailable("the log of this run cannot be read now; try again in a moment").into()
}
