//! Batching: which reports go into the next message: as many as fit, oldest first, and of each task only while none of
//! its reports is in flight already.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quintet_contract::task::{MAX_REPORTS, RunReport};

use super::event::EventKind;
use super::task_reporter::{Answer, Entry, TaskReporter};

/// Most bytes of a message, about; a report that is larger goes alone.
const MESSAGE_BYTES: usize = 448 * 1024;

/// A report with its number, and the caller that waits for the answer.
#[derive(Debug)]
pub(crate) struct Numbered {
    pub(crate) reporter: Arc<TaskReporter>,
    pub(crate) report: RunReport,
    pub(crate) kind: EventKind,
    pub(crate) answer: Answer,
    bytes: usize,
}

/// Reports that wait to be sent, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Waiting(VecDeque<Numbered>);

impl Waiting {
    /// Takes a report in and gives it its number.
    pub(crate) fn push(&mut self, entry: Entry) {
        let Entry {
            reporter,
            event,
            bytes,
            answer,
        } = entry;
        let kind = EventKind::of(&event);
        let report = reporter.number(event);
        self.0.push_back(Numbered {
            reporter,
            report,
            kind,
            answer,
            bytes,
        });
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The next message; empty when nothing may be sent now.
    pub(crate) fn take(&mut self) -> Vec<Numbered> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut left = VecDeque::new();
        while let Some(next) = self.0.pop_front() {
            if next.reporter.in_flight.load(Ordering::Relaxed) {
                left.push_back(next);
                continue;
            }
            let fits = batch.len() < MAX_REPORTS && bytes + next.bytes <= MESSAGE_BYTES;
            if !fits && !batch.is_empty() {
                self.0.push_front(next);
                break;
            }
            bytes += next.bytes;
            batch.push(next);
        }
        while let Some(last) = left.pop_back() {
            self.0.push_front(last);
        }
        for next in &batch {
            next.reporter.in_flight.store(true, Ordering::Relaxed);
        }
        batch
    }
}

/// The message of these reports was answered, or is no longer wanted: more of their tasks may be sent.
pub(crate) fn completed(reporters: &[Arc<TaskReporter>]) {
    for reporter in reporters {
        reporter.in_flight.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use quintet_contract::event::LogStream;
    use quintet_contract::id::{NodeId, WorkerId};
    use quintet_contract::task::WorkerEvent;
    use tokio::sync::mpsc;

    use super::*;
    use crate::output::LogLimits;

    fn reporter(node: &str) -> Arc<TaskReporter> {
        let key = (quintet_bus::new_run_id(), NodeId::parse(node).unwrap());
        let (outbox, _) = mpsc::channel(1);
        let worker = WorkerId::parse("w").unwrap();
        TaskReporter::new(key, worker, outbox, LogLimits::default())
    }

    fn entry(reporter: &Arc<TaskReporter>, bytes: usize) -> Entry {
        Entry {
            reporter: reporter.clone(),
            event: WorkerEvent::Log {
                stream: LogStream::Stdout,
                line: String::new(),
            },
            bytes,
            answer: Answer::Unawaited(None),
        }
    }

    fn described(batch: &[Numbered]) -> Vec<(String, u64)> {
        let described = |next: &Numbered| (next.reporter.node_id.to_string(), next.report.seq);
        batch.iter().map(described).collect()
    }

    #[test]
    fn reports_of_a_task_stay_in_order_and_do_not_overtake_each_other() {
        let (a, b) = (reporter("a"), reporter("b"));
        let mut waiting = Waiting::default();
        waiting.push(entry(&a, 1));
        waiting.push(entry(&a, 1));
        let first = waiting.take();
        assert_eq!(
            described(&first),
            [("a".to_owned(), 1), ("a".to_owned(), 2)]
        );
        for reporter in [&a, &b, &a] {
            waiting.push(entry(reporter, 1));
        }
        assert_eq!(described(&waiting.take()), [("b".to_owned(), 1)]);
        assert!(waiting.take().is_empty(), "a is on its way");
        completed(&[a]);
        let rest = described(&waiting.take());
        assert_eq!(rest, [("a".to_owned(), 3), ("a".to_owned(), 4)]);
    }

    #[test]
    fn a_message_is_full_by_count_or_by_bytes_and_one_large_report_goes_alone() {
        let a = reporter("a");
        let mut waiting = Waiting::default();
        for _ in 0..MAX_REPORTS + 1 {
            waiting.push(entry(&a, 1));
        }
        assert_eq!(waiting.take().len(), MAX_REPORTS);
        completed(std::slice::from_ref(&a));
        assert_eq!(waiting.take().len(), 1);
        completed(std::slice::from_ref(&a));
        waiting.push(entry(&a, 1));
        waiting.push(entry(&a, 2 * MESSAGE_BYTES));
        waiting.push(entry(&a, 1));
        for seq in [258, 259, 260] {
            assert_eq!(described(&waiting.take()), [("a".to_owned(), seq)]);
            completed(std::slice::from_ref(&a));
        }
    }
}
