//! Output of a child: read always, and faster than it is processed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quintet_contract::event::{LogStream, MAX_LOG_LINE_BYTES};
use quintet_worker::output::{Line, LineSplitter};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::ffmpeg::{Progress, ProgressReader, StderrLine, parse};
use crate::logs::LogSink;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Lines of standard error that a failure brings along.
const TAIL_LINES: usize = 20;
/// Longest of those lines; they are kept in the job's record.
const TAIL_LINE_BYTES: usize = 500;

/// How many commands ffmpeg's filter graphs executed and refused so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Replies {
    pub(super) obeyed: u64,
    pub(super) refused: u64,
}

/// Output of ffmpeg beside its log.
pub(super) struct Dialog {
    progress: watch::Sender<Progress>,
    replies: watch::Sender<Replies>,
}

impl Dialog {
    pub(super) fn new() -> (Self, watch::Receiver<Progress>, watch::Receiver<Replies>) {
        let (progress, progress_seen) = watch::channel(Progress::default());
        let (replies, replies_seen) = watch::channel(Replies::default());
        (Self { progress, replies }, progress_seen, replies_seen)
    }
}

/// The readers of one child.
pub(super) struct Readers {
    tasks: JoinSet<()>,
    tail: Tail,
}

#[derive(Clone, Default)]
struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Readers {
    /// Both outputs are log.
    pub(super) fn of_program(child: &mut Child, sink: &LogSink) -> Self {
        let mut readers = Self::new();
        let log = sink.clone();
        readers.read(child.stdout.take(), move |line| {
            log.push(LogStream::Stdout, line)
        });
        let (log, tail) = (sink.clone(), readers.tail.clone());
        readers.read(child.stderr.take(), move |line| {
            tail.push(line);
            log.push(LogStream::Stderr, line);
        });
        readers
    }

    /// Standard output is progress; standard error is log and answers to commands.
    pub(super) fn of_ffmpeg(child: &mut Child, sink: &LogSink, dialog: Dialog) -> Self {
        let mut readers = Self::new();
        let Dialog { progress, replies } = dialog;
        let mut reader = ProgressReader::default();
        readers.read(child.stdout.take(), move |line| {
            if let Some(block) = reader.line(line) {
                progress.send_replace(block);
            }
        });
        let (log, tail) = (sink.clone(), readers.tail.clone());
        readers.read(child.stderr.take(), move |line| match parse(line) {
            StderrLine::Obeyed => replies.send_modify(|replies| replies.obeyed += 1),
            StderrLine::Refused => replies.send_modify(|replies| replies.refused += 1),
            StderrLine::Prompt => {}
            StderrLine::Talk => {
                tail.push(line);
                log.push(LogStream::Stderr, line);
            }
        });
        readers
    }

    fn new() -> Self {
        Self {
            tasks: JoinSet::new(),
            tail: Tail::default(),
        }
    }

    fn read<R>(&mut self, pipe: Option<R>, take: impl FnMut(&str) + Send + 'static)
    where
        R: AsyncRead + Unpin + Send + 'static,
    {
        if let Some(pipe) = pipe {
            self.tasks.spawn(read_lines(pipe, take));
        }
    }

    /// Waits for the last output, but not for ever: a process that left the group may hold the pipes open.
    /// Returns the last lines of standard error.
    pub(super) async fn finish(mut self, patience: Duration) -> Vec<String> {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(patience, all).await.is_err() {
            self.tasks.shutdown().await;
        }
        self.tail.lines().drain(..).collect()
    }
}

impl Tail {
    fn lines(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &str) {
        let mut lines = self.lines();
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line[..line.floor_char_boundary(TAIL_LINE_BYTES)].to_owned());
    }
}

async fn read_lines(mut pipe: impl AsyncRead + Unpin, mut take: impl FnMut(&str)) {
    let mut splitter = LineSplitter::new(MAX_LOG_LINE_BYTES);
    let mut take = |line: Line<'_>| take(&line.text(MAX_LOG_LINE_BYTES));
    let mut chunk = vec![0; CHUNK];
    loop {
        match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => splitter.feed(&chunk[..count], &mut take),
        }
        // A child that writes without end must not keep a worker thread to itself.
        tokio::task::consume_budget().await;
    }
    splitter.finish(&mut take);
}
