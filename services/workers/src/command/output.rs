//! Output of a program: events and lines, in their order, in bounded memory.
//!
//! A line of output is dropped when there is no room for it. An event never is: the reader waits, and with it a program
//! that prints more than is stored.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quintet_contract::event::{LogStream, MAX_LOG_LINE_BYTES};
use quintet_worker::output::{Line, LineSplitter};
use quintet_worker::program::{MAX_EVENT_BYTES, ProgramEvent};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::handler::TaskContext;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Longest line of standard error, or line error, that a failure repeats.
const LAST_LINE_BYTES: usize = 500;
/// How long pipes are read after the end: a process that left the group may hold them open.
const PIPE_TIMEOUT: Duration = Duration::from_secs(1);

/// The description of a program's failure.
#[derive(Clone, Debug, Default)]
pub(super) struct LastOutput {
    /// The message of its last `error` event.
    pub(super) error: Option<String>,
    /// Whether that line that another attempt may help.
    pub(super) retryable: Option<bool>,
    /// Its last line of standard error that is not empty.
    pub(super) stderr: Option<String>,
}

/// The readers of one program.
pub(super) struct Readers {
    tasks: JoinSet<()>,
    last: Last,
    /// Cancelled when pipes that are still open are not read any more.
    enough: CancellationToken,
}

#[derive(Clone, Default)]
struct Last(Arc<Mutex<LastOutput>>);

impl Last {
    fn lock(&self) -> MutexGuard<'_, LastOutput> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Readers {
    pub(super) fn of(child: &mut Child, task: &TaskContext) -> Self {
        let mut readers = Self {
            tasks: JoinSet::new(),
            last: Last::default(),
            enough: CancellationToken::new(),
        };
        let (last, enough) = (readers.last.clone(), readers.enough.clone());
        if let Some(pipe) = child.stdout.take() {
            let forwarder = EventForwarder {
                task: task.clone(),
                last: last.clone(),
            };
            readers
                .tasks
                .spawn(read_events(pipe, enough.clone(), forwarder));
        }
        if let Some(pipe) = child.stderr.take() {
            let task = task.clone();
            readers.tasks.spawn(read_lines(pipe, enough, task, last));
        }
        readers
    }

    /// Reads what is left, and waits until everything is reported, unless the task is to be stopped.
    pub(super) async fn finish(mut self, task: &TaskContext) -> LastOutput {
        let enough = self.enough.clone();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let tire = async {
            sleep(PIPE_TIMEOUT).await;
            enough.cancel();
            task.stopping().await;
            sleep(PIPE_TIMEOUT).await;
        };
        tokio::select! {
            biased;
            () = all => {}
            () = tire => {}
        }
        self.tasks.shutdown().await;
        self.last.lock().clone()
    }
}

/// What a line of standard output is.
enum OutputLine {
    Event(ProgramEvent),
    Line(String),
    /// Too long to be kept whole, with its length.
    TooLong(usize),
}

fn parse(line: Line<'_>) -> OutputLine {
    let Some(whole) = line.whole() else {
        return OutputLine::TooLong(line.len());
    };
    match ProgramEvent::read(whole) {
        Some(event) => OutputLine::Event(event),
        None => OutputLine::Line(line.text(MAX_LOG_LINE_BYTES).into_owned()),
    }
}

struct EventForwarder {
    task: TaskContext,
    last: Last,
}

impl EventForwarder {
    async fn report(&self, line: OutputLine) {
        match line {
            OutputLine::Event(event) => self.report_event(event).await,
            OutputLine::Line(line) => self.task.log(&line),
            OutputLine::TooLong(length) => self
                .task
                .note(format!("a line of {length} bytes was dropped")),
        }
    }

    async fn report_event(&self, event: ProgramEvent) {
        match event {
            ProgramEvent::Checkpoint { name, data } => self.task.checkpoint(name, data).await,
            ProgramEvent::Output(data) => self.task.output(data).await,
            ProgramEvent::Progress(data) => self.task.progress(data).await,
            ProgramEvent::Log { stream, line } => self.task.log_from(stream, &line),
            // OutputLine by the worker as long as the program runs.
            ProgramEvent::Heartbeat => {}
            ProgramEvent::Error { message, retryable } => {
                let mut last = self.last.lock();
                last.error = message.map(|message| cut(&message).to_owned());
                last.retryable = retryable;
            }
            ProgramEvent::Unusable(reason) => self.task.note(reason),
        }
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LAST_LINE_BYTES)]
}

async fn read_events(
    pipe: impl AsyncRead + Unpin,
    enough: CancellationToken,
    forwarder: EventForwarder,
) {
    let mut splitter = LineSplitter::new(MAX_EVENT_BYTES);
    let mut lines = Vec::new();
    let mut chunks = Chunks::new(pipe, enough);
    while let Some(chunk) = chunks.next().await {
        splitter.feed(chunk, |line| lines.push(parse(line)));
        for line in lines.drain(..) {
            forwarder.report(line).await;
        }
        // A program that prints without end must not keep a worker thread to itself.
        tokio::task::consume_budget().await;
    }
    splitter.finish(|line| lines.push(parse(line)));
    for line in lines.drain(..) {
        forwarder.report(line).await;
    }
}

async fn read_lines(
    pipe: impl AsyncRead + Unpin,
    enough: CancellationToken,
    task: TaskContext,
    last: Last,
) {
    let mut splitter = LineSplitter::new(MAX_LOG_LINE_BYTES);
    let take = |line: Line<'_>| {
        let text = line.text(MAX_LOG_LINE_BYTES);
        if !text.trim().is_empty() {
            last.lock().stderr = Some(cut(text.trim()).to_owned());
        }
        task.log_from(LogStream::Stderr, &text);
    };
    let mut chunks = Chunks::new(pipe, enough);
    while let Some(chunk) = chunks.next().await {
        splitter.feed(chunk, take);
        tokio::task::consume_budget().await;
    }
    splitter.finish(take);
}

/// The pieces that a pipe gives, until it ends or enough was read of it.
struct Chunks<R> {
    pipe: R,
    enough: CancellationToken,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Chunks<R> {
    fn new(pipe: R, enough: CancellationToken) -> Self {
        Self {
            pipe,
            enough,
            buffer: vec![0; CHUNK],
        }
    }

    async fn next(&mut self) -> Option<&[u8]> {
        // What is there is read even when it is enough: only waiting for more is not worth it.
        let count = tokio::select! {
            biased;
            read = self.pipe.read(&mut self.buffer) => read.unwrap_or(0),
            () = self.enough.cancelled() => 0,
        };
        self.buffer.get(..count).filter(|chunk| !chunk.is_empty())
    }
}
