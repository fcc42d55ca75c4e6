//! A run whose write the store rejected: what of it can be stored all the same.

use quintet_contract::JsonObject;
use quintet_contract::run::RunEvent;
use quintet_contract::time::Timestamp;

use super::{Active, Deferred, EndState, bytes_of_object};
use crate::core::event::Action;

/// Longest text of an entry that was rejected, in bytes.
const SHORTENED_BYTES: usize = 200;

/// What follows from a rejected write.
pub(crate) enum Consequence {
    /// What remains is written again.
    Retry,
    /// An entry that a request made is left out; what waited for it.
    Refuse(Vec<Deferred>),
    /// An entry is stored without what makes it large, and the run fails; the numbers of the requests that made it.
    Fail(Vec<u64>),
    /// Nothing about the run can be stored; everything that waited.
    GiveUp(Vec<Deferred>),
}

impl Active {
    /// The write in flight was rejected.
    pub(crate) fn rejected(&mut self, now: Timestamp) -> Consequence {
        self.writer.is_busy = false;
        if !self.writer.is_created {
            return Consequence::GiveUp(self.take_waiting());
        }
        let in_flight = std::mem::take(&mut self.writer.in_flight);
        if in_flight == 0 {
            return self.record_rejected();
        }
        self.writer.flush_at = Some(now);
        if in_flight > 1 {
            self.writer.singly = in_flight;
            return Consequence::Retry;
        }
        self.writer.singly = self.writer.singly.saturating_sub(1);
        let Some(entry) = self.writer.pending.first() else {
            return Consequence::Retry;
        };
        let n = entry.n;
        if let RunEvent::Checkpoint { checkpoint } = &entry.fact
            && checkpoint.node_id.is_none()
        {
            let id = checkpoint.id;
            self.recent.known.remove(&id);
            self.recent.order.retain(|known| *known != id);
            return Consequence::Refuse(self.leave_out_first(n));
        }
        match self.shorten_first() {
            true => {
                self.start_nothing();
                Consequence::Fail(self.requests_waiting_for(n))
            }
            false => Consequence::GiveUp(self.take_waiting()),
        }
    }

    /// A record, not an entry. One that is written in between only makes a restart faster.
    fn record_rejected(&mut self) -> Consequence {
        if self.writer.end != EndState::Writing {
            return Consequence::Retry;
        }
        let outputs = self
            .run
            .nodes
            .iter_mut()
            .flat_map(|nodes| nodes.values_mut());
        let taken = outputs.filter_map(|state| state.output.take()).count();
        if taken == 0 && self.run.output.take().is_none() {
            return Consequence::GiveUp(self.take_waiting());
        }
        self.writer.end = EndState::Open;
        Consequence::Retry
    }

    /// Leaves the first pending entry out, and returns what waited for it.
    fn leave_out_first(&mut self, n: u64) -> Vec<Deferred> {
        self.writer.pending.remove(0);
        for entry in &mut self.writer.pending {
            entry.n -= 1;
        }
        self.private.entries -= 1;
        let waiting = std::mem::take(&mut self.writer.waiting);
        let mut refused = Vec::new();
        for (waits_for, deferred) in waiting {
            match deferred {
                Deferred::Reply(_) if waits_for == n => refused.push(deferred),
                deferred => {
                    let waits_for = if waits_for >= n {
                        waits_for - 1
                    } else {
                        waits_for
                    };
                    self.writer.waiting.push_back((waits_for, deferred));
                }
            }
        }
        refused
    }

    /// Takes what makes the first pending entry large out of it, and out of the run. False when there is nothing.
    fn shorten_first(&mut self) -> bool {
        let Some(entry) = self.writer.pending.first_mut() else {
            return false;
        };
        let (node, is_shorter) = match &mut entry.fact {
            RunEvent::Status { output, error, .. } => {
                self.run.output = None;
                let had_output = output.take().is_some();
                (None, cut(error) || had_output)
            }
            RunEvent::Node { node } => {
                let had_output = node.output.take().is_some();
                let had_items = node.items.take().is_some();
                let is_cut = cut(&mut node.error);
                (
                    Some(node.node_id.clone()),
                    had_output || had_items || is_cut,
                )
            }
            RunEvent::Checkpoint { checkpoint } => {
                (checkpoint.node_id.clone(), checkpoint.data.take().is_some())
            }
            RunEvent::Output {
                node_id, output, ..
            } => (Some(node_id.clone()), clear(output)),
            RunEvent::Progress { data, .. } => (None, clear(data)),
            RunEvent::Log { line, .. } => {
                let is_long = line.len() > SHORTENED_BYTES;
                line.clear();
                (None, is_long)
            }
            RunEvent::Unknown => (None, false),
        };
        if let Some(node) = node {
            if let Some(private) = self.private.nodes.get_mut(node.as_str()) {
                private.resume_state = None;
                private.items = None;
            }
            let states = self.run.nodes.get_or_insert_default();
            if let Some(state) = states.get_mut(node.as_str())
                && let Some(output) = state.output.take()
            {
                self.weight -= bytes_of_object(&output).min(self.weight);
            }
        }
        is_shorter
    }

    /// What was to begin once everything is stored does not: the run ends.
    fn start_nothing(&mut self) {
        self.writer.waiting.retain(|(_, deferred)| {
            !matches!(
                deferred,
                Deferred::Act(Action::Dispatch(..) | Action::Execute(_))
            )
        });
    }

    fn take_waiting(&mut self) -> Vec<Deferred> {
        let waiting = std::mem::take(&mut self.writer.waiting).into_iter();
        waiting.map(|(_, deferred)| deferred).collect()
    }

    fn requests_waiting_for(&self, n: u64) -> Vec<u64> {
        let waiting = self.writer.waiting.iter().filter(|(it, _)| *it == n);
        let requests = waiting.filter_map(|(_, deferred)| match deferred {
            Deferred::Reply(request) => Some(*request),
            Deferred::Act(_) => None,
        });
        requests.collect()
    }
}

fn clear(object: &mut JsonObject) -> bool {
    let had_any = !object.is_empty();
    object.clear();
    had_any
}

fn cut(text: &mut Option<String>) -> bool {
    let Some(text) = text.as_mut().filter(|text| text.len() > SHORTENED_BYTES) else {
        return false;
    };
    let mut end = SHORTENED_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    true
}
