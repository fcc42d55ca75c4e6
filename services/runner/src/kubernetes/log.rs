//! The log of a pod as the sequence of a program's events, each of them once, however often the log has to be opened.
//! Pure.
//!
//! Kubernetes puts a time with nanoseconds before every line. An event is numbered by the time of its line, or by one
//! more than the event before it where that is not later. So numbers rise, and a reader of the same log again finds the
//! same numbers; what has a number that was taken already is dropped. A log is opened again from the second before the
//! last line that was seen, since the API takes whole seconds only.
//!
//! ```text
//! 2026-01-31T12:00:00.000000001Z {"type":"progress","percent":10}
//! └ time and a blank             └ what the program wrote
//! ```

use jiff::Timestamp;
use quintet_contract::event::{LogStream, MAX_LOG_LINE_BYTES};
use quintet_contract::task::WorkerEvent;
use quintet_worker::output::{Line, LineSplitter};
use quintet_worker::program::{MAX_EVENT_BYTES, ProgramEvent};

use super::Reported;

/// Longest time before a line.
const MAX_STAMP_BYTES: usize = 40;
/// How much is kept of what is no line of the program.
const MAX_STRANGE_BYTES: usize = 200;
/// Longest message of an `error` event that is repeated.
const MAX_MESSAGE_BYTES: usize = 500;

/// What a program reported about its failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Failure {
    /// Why, if it reported so.
    pub(super) message: Option<String>,
    /// Whether another attempt may help, if it reported so.
    pub(super) retryable: Option<bool>,
}

/// What a line of a program is.
enum ParsedLine {
    Event(WorkerEvent),
    Failure(Failure),
}

/// What was read of a log.
#[derive(Debug)]
pub(super) struct LogReader {
    taken: Taken,
    /// Time of the last line that was seen.
    last: Option<Timestamp>,
}

/// What was taken of all passes.
#[derive(Debug)]
struct Taken {
    /// Number of the last event.
    last: u64,
    failure: Option<Failure>,
}

/// One opening of the log.
#[derive(Debug)]
pub(super) struct Pass {
    lines: LineSplitter,
    state: LineState,
    /// Number of the last event of this pass, taken or not.
    number: u64,
    /// It began later than the log.
    is_resumed: bool,
    /// It has brought a line of the program.
    has_lines: bool,
    /// It has brought something new.
    has_news: bool,
    /// What stood in the place of a line.
    api_failure: Option<String>,
}

/// Where in a line a pass is.
#[derive(Debug)]
enum LineState {
    /// Before the blank: the time so far.
    Stamp(Vec<u8>),
    /// In what the program wrote at this time.
    Text(u64),
    /// In a line without a time: its beginning.
    Strange(Vec<u8>),
}

impl LogReader {
    /// Takes only what has a higher number.
    pub(super) fn new(taken: u64) -> Self {
        let taken = Taken {
            last: taken,
            failure: None,
        };
        Self { taken, last: None }
    }

    /// The number of what comes after the last event.
    pub(super) fn next_number(&self) -> u64 {
        self.taken.last.saturating_add(1)
    }

    /// What the program reported about its failure.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.taken.failure.as_ref()
    }

    /// From where the log is to be opened. After a restart that is its beginning: what the program reported about its
    /// failure is not among what was taken.
    pub(super) fn since(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.last?.as_second() - 1).ok()
    }

    /// Begins to read what is opened from [`LogReader::since`].
    pub(super) fn begin(&self) -> Pass {
        Pass {
            lines: LineSplitter::new(MAX_EVENT_BYTES),
            state: LineState::Stamp(Vec::new()),
            number: 0,
            is_resumed: self.last.is_some(),
            has_lines: false,
            has_news: false,
            api_failure: None,
        }
    }

    /// Takes a piece and hands on what is new.
    pub(super) fn feed(&mut self, pass: &mut Pass, mut bytes: &[u8], reports: &mut Vec<Reported>) {
        while !bytes.is_empty() {
            let read = match &mut pass.state {
                LineState::Stamp(stamp) => {
                    let end = position(bytes, |byte| matches!(byte, b' ' | b'\n'));
                    let read = end.min(MAX_STAMP_BYTES + 1 - stamp.len());
                    stamp.extend_from_slice(&bytes[..read]);
                    self.end_stamp(pass);
                    read
                }
                LineState::Text(at) => {
                    let (at, end) = (*at, position(bytes, |byte| byte == b'\n'));
                    self.feed_text(pass, at, &bytes[..end], reports);
                    end
                }
                LineState::Strange(text) => {
                    let end = position(bytes, |byte| byte == b'\n');
                    text.extend_from_slice(&bytes[..end]);
                    let is_ended = text.last() == Some(&b'\n');
                    text.truncate(MAX_STRANGE_BYTES);
                    if is_ended {
                        pass.end_strange();
                    }
                    end
                }
            };
            bytes = &bytes[read..];
        }
    }

    /// The log ended: a last line may lack its end.
    pub(super) fn finish(&mut self, mut pass: Pass, reports: &mut Vec<Reported>) {
        if let LineState::Text(at) = pass.state {
            pass.lines.finish(|line| {
                pass.number = number_after(pass.number, at);
                reports.extend(self.taken.take(pass.number, parse_line(line)));
            });
        }
    }

    /// Whether the whole log was read, provided that the program had ended before this pass and the pass was not broken
    /// off: it has seen again what was seen last, and found nothing after it.
    pub(super) fn is_whole(&self, pass: &Pass) -> bool {
        !pass.has_news && pass.api_failure.is_none() && (pass.has_lines || !pass.is_resumed)
    }

    fn end_stamp(&mut self, pass: &mut Pass) {
        let LineState::Stamp(stamp) = &mut pass.state else {
            return;
        };
        match stamp.last() {
            Some(b' ') => match parse(stamp) {
                Some(at) => {
                    pass.has_lines = true;
                    self.last = self.last.max(Some(at));
                    let nanoseconds = u64::try_from(at.as_nanosecond()).unwrap_or(0);
                    pass.state = LineState::Text(nanoseconds);
                }
                None => pass.state = LineState::Strange(std::mem::take(stamp)),
            },
            Some(b'\n') => {
                pass.state = LineState::Strange(std::mem::take(stamp));
                pass.end_strange();
            }
            _ if stamp.len() > MAX_STAMP_BYTES => {
                pass.state = LineState::Strange(std::mem::take(stamp));
            }
            _ => {}
        }
    }

    fn feed_text(&mut self, pass: &mut Pass, at: u64, text: &[u8], reports: &mut Vec<Reported>) {
        let before = self.taken.last;
        pass.lines.feed(text, |line| {
            pass.number = number_after(pass.number, at);
            reports.extend(self.taken.take(pass.number, parse_line(line)));
        });
        pass.has_news |= self.taken.last != before;
        if text.ends_with(b"\n") {
            pass.state = LineState::Stamp(Vec::new());
        }
    }
}

impl Pass {
    /// Whether it brought something new and nothing strange.
    pub(super) fn is_good(&self) -> bool {
        self.has_news && self.api_failure.is_none()
    }

    /// What stood in the place of a line of the program, if that happened.
    pub(super) fn api_failure(&self) -> Option<&str> {
        self.api_failure.as_deref()
    }

    /// A line without a time ended: the tail of a line that began before the moment from which the log was asked for, or
    /// something that is not the program's.
    fn end_strange(&mut self) {
        let state = std::mem::replace(&mut self.state, LineState::Stamp(Vec::new()));
        let is_tail = self.is_resumed && !self.has_lines;
        if let LineState::Strange(text) = state
            && !is_tail
        {
            self.api_failure = Some(String::from_utf8_lossy(&text).trim().to_owned());
        }
    }
}

/// The number of an event of a line of this time.
fn number_after(last: u64, at: u64) -> u64 {
    at.max(last.saturating_add(1))
}

impl Taken {
    /// Takes an event, and hands it on if its number is new.
    fn take(&mut self, number: u64, parsed: ParsedLine) -> Option<Reported> {
        let is_new = number > self.last;
        self.last = self.last.max(number);
        match parsed {
            ParsedLine::Failure(failure) => {
                self.failure = Some(failure);
                None
            }
            ParsedLine::Event(WorkerEvent::Heartbeat) if is_new => Some(Reported {
                seq: 0,
                event: WorkerEvent::Heartbeat,
            }),
            ParsedLine::Event(event) if is_new => Some(Reported { seq: number, event }),
            ParsedLine::Event(_) => None,
        }
    }
}

fn parse_line(line: Line<'_>) -> ParsedLine {
    let log = |stream, text: &str| {
        let line = cut(text, MAX_LOG_LINE_BYTES).to_owned();
        ParsedLine::Event(WorkerEvent::Log { stream, line })
    };
    let Some(whole) = line.whole() else {
        let text = format!("a line of {} bytes was dropped", line.len());
        return log(LogStream::Agent, &text);
    };
    let Some(event) = ProgramEvent::read(whole) else {
        return log(LogStream::Stdout, &line.text(MAX_LOG_LINE_BYTES));
    };
    ParsedLine::Event(match event {
        ProgramEvent::Checkpoint { name, data } => WorkerEvent::Checkpoint { name, data },
        ProgramEvent::Output(data) => WorkerEvent::Output { data },
        ProgramEvent::Progress(data) => WorkerEvent::Progress { data },
        ProgramEvent::Heartbeat => WorkerEvent::Heartbeat,
        ProgramEvent::Log { stream, line } => return log(stream, &line),
        ProgramEvent::Unusable(reason) => return log(LogStream::Agent, &reason),
        ProgramEvent::Error { message, retryable } => {
            let message = message.map(|message| cut(&message, MAX_MESSAGE_BYTES).to_owned());
            return ParsedLine::Failure(Failure { message, retryable });
        }
    })
}

fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// How many bytes there are up to the first such byte and with it; all where there is none.
fn position(bytes: &[u8], is_end: impl Fn(u8) -> bool) -> usize {
    let end = bytes.iter().position(|byte| is_end(*byte));
    end.map_or(bytes.len(), |end| end + 1)
}

fn parse(stamp: &[u8]) -> Option<Timestamp> {
    std::str::from_utf8(stamp).ok()?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quintet_contract::event::LogStream;

    use super::*;

    fn line(n: u64, text: &str) -> String {
        let at = Timestamp::from_nanosecond(i128::from(n)).unwrap();
        format!("{at:.9} {text}\n")
    }

    fn read(reader: &mut LogReader, text: &str, size: usize) -> (Vec<(u64, String)>, Pass) {
        let (mut pass, mut reports) = (reader.begin(), Vec::new());
        for piece in text.as_bytes().chunks(size.max(1)) {
            reader.feed(&mut pass, piece, &mut reports);
        }
        let parsed = |reported: Reported| match reported.event {
            WorkerEvent::Log {
                line,
                stream: LogStream::Stdout,
            } => (reported.seq, line),
            other => panic!("{other:?}"),
        };
        (reports.into_iter().map(parsed).collect(), pass)
    }

    #[test]
    fn events_are_numbered_by_their_time_and_taken_once() {
        let second = 1_000_000_000;
        let log = [
            line(5 * second, "a"),
            line(5 * second, "b"),
            line(5 * second + 1, "c\rd"),
            line(7 * second, "e"),
        ]
        .concat();
        let mut reader = LogReader::new(0);
        let (reports, pass) = read(&mut reader, &log, 7);
        let numbers: Vec<_> = reports
            .iter()
            .map(|(number, _)| *number - 5 * second)
            .collect();
        assert_eq!(numbers, [0, 1, 2, 3, 2 * second]);
        assert!(!reader.is_whole(&pass));
        assert_eq!(reader.since(), Some(Timestamp::from_second(6).unwrap()));

        let (reports, pass) = read(&mut reader, &line(7 * second, "e"), 100);
        assert_eq!(reports, []);
        assert!(reader.is_whole(&pass));

        let mut restarted = LogReader::new(5 * second + 1);
        assert_eq!(restarted.since(), None);
        let (reports, _) = read(&mut restarted, &log, 100);
        let texts: Vec<_> = reports.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["c", "d", "e"]);
    }

    #[test]
    fn a_last_line_without_an_end_is_taken_when_the_log_is_whole() {
        let log = line(1, "half");
        let log = log.trim_end();
        let mut reader = LogReader::new(0);
        let (reports, pass) = read(&mut reader, log, 3);
        assert_eq!(reports, []);
        assert!(reader.is_whole(&pass));
        let mut reports = Vec::new();
        reader.finish(pass, &mut reports);
        assert_eq!(reports.len(), 1);
    }

    #[test]
    fn words_in_the_place_of_a_line_are_no_output() {
        let strange = "unable to retrieve container logs for containerd://abc\n";
        let mut reader = LogReader::new(0);
        let (reports, pass) = read(&mut reader, strange, 100);
        assert_eq!(reports, []);
        assert_eq!(pass.api_failure(), Some(strange.trim()));
        assert!(!reader.is_whole(&pass));

        // The tail of a line that began before the second from which the log was asked for is not one of them.
        read(&mut reader, &line(9, "a"), 100);
        let tail = format!("{} tail\n{}", "x".repeat(500), line(9, "a"));
        let (reports, pass) = read(&mut reader, &tail, 100);
        assert_eq!(reports, []);
        assert!(reader.is_whole(&pass));
        // A log that does not hold what was seen last is not the whole one.
        let (_, pass) = read(&mut reader, "", 100);
        assert!(!reader.is_whole(&pass));
    }

    #[test]
    fn the_error_of_a_program_survives_a_restart() {
        let log = line(
            1,
            r#"{"type":"error","message":"no room","retryable":true}"#,
        );
        let mut reader = LogReader::new(1);
        let (reports, _) = read(&mut reader, &log, 100);
        assert_eq!(reports, []);
        assert_eq!(reader.failure().unwrap().retryable, Some(true));
    }

    proptest! {
        #[test]
        fn a_log_that_is_broken_off_anywhere_is_taken_once(
            steps in proptest::collection::vec(0u64..3_000_000_000, 1..20),
            breaks in proptest::collection::vec((0usize..2_000, 1usize..50), 0..8),
        ) {
            let mut at = 1_000_000_000_000;
            let mut lines = Vec::new();
            for (index, step) in steps.iter().enumerate() {
                at += step;
                lines.push((at, line(at, &format!("line {index}"))));
            }
            let mut reader = LogReader::new(0);
            let mut taken = Vec::new();
            for (length, size) in breaks.into_iter().chain([(usize::MAX, 11)]) {
                let since = reader.since().map_or(0, |since| since.as_nanosecond() as u64);
                let shown: String = lines.iter().filter(|(at, _)| *at >= since).map(|(_, text)| text.as_str()).collect();
                let (reports, _) = read(&mut reader, &shown[..shown.len().min(length)], size);
                taken.extend(reports.into_iter().map(|(_, text)| text));
            }
            let expected: Vec<_> = (0..steps.len()).map(|index| format!("line {index}")).collect();
            prop_assert_eq!(taken, expected);
        }
    }
}
