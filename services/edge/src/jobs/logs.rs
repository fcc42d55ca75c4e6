//! The output of a job: all of it or its tail, as text or as events, and followed until the job ends.
//!
//! Following begins with the live feed, then reads what is stored, then continues with what the feed brought after that:
//! by sequence, without gap or overlap. A follower that is too slow for the feed reads from the stream again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use quintet_contract::error::ErrorReply;
use quintet_contract::event::{JobLog, LogLine};
use quintet_contract::id::JobId;
use quintet_contract::subject::JobLogged;
use quintet_contract::topology::stream;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tracing::debug;

use crate::access::quota::QuotaPermit;
use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded, of_one};
use crate::http::extract::{Client, Headers, PathId};
use crate::http::query::{Flag, Query, QueryParams};
use crate::http::sse::{
    EVENT_STREAM, last_event_id, or_event_stream_content, retry_event, sse_response,
};
use crate::jobs::client::JobsClient;
use crate::jobs::feeds::{JobFeeds, JobWatch};
use crate::jobs::log_feed::LogBatch;
use crate::jobs::snapshot::sse;
use crate::live::log_reader::LogReader;
use crate::live::topic::{RecvError, Subscription};
use crate::metrics::OpenStream;
use crate::state::App;

/// Longest tail in lines.
const MAX_TAIL: usize = 100_000;
/// Longest tail in bytes; of more, the newest lines are kept.
const MAX_TAIL_BYTES: usize = 8 * 1024 * 1024;

pub(crate) fn docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
                .id("readJobLogs").summary("Read or follow a job's output")
                .description(
                    "Lines of text, or server-sent events when `Accept` asks for them. `?tail=N` begins with the newest N \
                     lines, `?follow=true` continues until the job ends; events carry an `id` for `Last-Event-ID`.",
                )
                .tag("jobs")
                .input::<Headers<LogHeaders>>()
                .response_with::<200, String, _>(|response| or_event_stream_content(response.description("the lines")))
                .response::<422, Json<ErrorBody>>()
}

/// The parameters of the stream.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogParams {
    /// True: continue until the job ends.
    #[schemars(with = "Option<bool>")]
    follow: Option<Flag>,
    /// Begin with the newest so many lines, at most 100000.
    #[schemars(range(max = u64::MAX))]
    tail: Option<u64>,
    /// As the header `Last-Event-ID`, for clients that cannot send it.
    #[schemars(regex(pattern = "^([0-9]{1,19}[.][0-9]{1,19})?$"))]
    last_event_id: Option<String>,
}

impl QueryParams for LogParams {
    const FLAGS: &'static [&'static str] = &["follow"];

    fn expected(name: &str) -> String {
        match name {
            "follow" => "true or false",
            "tail" => "a number of lines",
            _ => "the id of an event of this stream",
        }
        .to_owned()
    }
}

/// Documents the headers.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "describes the headers")]
struct LogHeaders {
    /// Go on after this event.
    #[schemars(regex(pattern = "^([0-9]{1,19}[.][0-9]{1,19})?$"))]
    last_event_id: Option<String>,
}

/// A line and its place: the message in the stream and the line in it.
struct PlacedLine {
    sequence: u64,
    index: usize,
    attempt: Option<u32>,
    line: LogLine,
}

pub(crate) async fn logs(
    State(app): State<App>,
    Client(address): Client,
    PathId(id): PathId<JobId>,
    headers: HeaderMap,
    Query(params): Query<LogParams>,
) -> Result<Response, HttpError> {
    let follow = params.follow == Some(Flag(true));
    let tail = params.tail.map(|tail| {
        let tail = usize::try_from(tail).unwrap_or(MAX_TAIL);
        tail.min(MAX_TAIL)
    });
    let after = last_event_id(&headers, params.last_event_id.as_deref(), parse_position)?;
    let accepts = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .unwrap_or_default();
    let as_events = accepts.contains(EVENT_STREAM);
    JobsClient::from_ref(&app).job(&id).await?;
    let permit = app.streams.acquire(address)?;
    let mut reader = LogStream::new(app, id, permit, after);
    if follow {
        reader.follow().await?;
    }
    if let Some(tail) = tail.filter(|_| after.is_none()) {
        reader.begin_with_tail(tail).await?;
    }
    let lines = futures::stream::unfold(reader, |mut reader| async move {
        Some((reader.next().await?, reader))
    });
    Ok(if as_events {
        events(lines)
    } else {
        text(lines)
    })
}

/// A line, or the end because the edge leaves.
enum LogItem {
    Line(PlacedLine),
    ShuttingDown,
}

fn text(lines: impl Stream<Item = LogItem> + Send + 'static) -> Response {
    let lines = lines.filter_map(async |item| match item {
        LogItem::Line(placed) => Some(Ok::<_, Infallible>(Bytes::from(format!(
            "{}\n",
            placed.line.line
        )))),
        LogItem::ShuttingDown => None,
    });
    let kind = (
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    ([kind], Body::from_stream(lines)).into_response()
}

fn events(lines: impl Stream<Item = LogItem> + Send + 'static) -> Response {
    sse_response(lines.map(|item| match item {
        LogItem::ShuttingDown => retry_event(),
        LogItem::Line(PlacedLine {
            sequence,
            index,
            attempt,
            line,
        }) => {
            let data = json!({"at": line.at, "stream": line.stream, "line": line.line, "attempt": attempt});
            sse("log", Some(&format!("{sequence}.{index}")), &data)
        }
    }))
}

fn parse_position(id: &str) -> Option<(u64, usize)> {
    let (sequence, index) = id.split_once('.')?;
    Some((sequence.parse().ok()?, index.parse().ok()?))
}

/// Follows one job's output for one client.
struct LogStream {
    app: App,
    id: JobId,
    /// The last message that was read to its end, and what of the next one is known already.
    last: u64,
    skip: Option<(u64, usize)>,
    reader: LogReader<JobLogged>,
    ready: VecDeque<PlacedLine>,
    live: Option<(Subscription<Arc<LogBatch>>, JobWatch)>,
    /// Whether everything that is stored was read.
    is_caught_up: bool,
    is_done: bool,
    _place: QuotaPermit,
    _open: OpenStream,
}

impl LogStream {
    fn new(app: App, id: JobId, permit: QuotaPermit, after: Option<(u64, usize)>) -> Self {
        let stream = stream::events(app.bus.prefix());
        let subject = JobLogged { job: id.clone() };
        Self {
            reader: LogReader::new(app.bus.clone(), stream, subject),
            app,
            id,
            last: after.map_or(0, |(sequence, _)| sequence.saturating_sub(1)),
            skip: after,
            ready: VecDeque::new(),
            live: None,
            is_caught_up: false,
            is_done: false,
            _place: permit,
            _open: OpenStream::new("logs"),
        }
    }

    async fn follow(&mut self) -> Result<(), HttpError> {
        let feeds = self.app.live.part::<JobFeeds>();
        let live = feeds.logs(&self.id).await?;
        let job = feeds.job(&self.id).await?;
        self.live = Some((live, job));
        Ok(())
    }

    async fn begin_with_tail(&mut self, tail: usize) -> Result<(), HttpError> {
        // A message holds at least one line.
        let messages = self.reader.tail(tail.max(1), MAX_TAIL_BYTES).await;
        let messages = messages.map_err(|error| {
            debug!(%error, "cannot read the tail of a log");
            ErrorReply::unavailable("the output cannot be read now; try again in a moment")
        })?;
        for (sequence, log) in messages {
            self.take(sequence, log);
        }
        let surplus = self.ready.len().saturating_sub(tail);
        self.ready.drain(..surplus);
        Ok(())
    }

    /// The next line; waits for it when the job is followed.
    async fn next(&mut self) -> Option<LogItem> {
        loop {
            if let Some(placed) = self.ready.pop_front() {
                return Some(LogItem::Line(placed));
            }
            if self.is_done {
                return None;
            }
            if !self.is_caught_up {
                self.read_stored().await;
            } else if let Some(item) = self.wait().await {
                return Some(item);
            }
        }
    }

    async fn read_stored(&mut self) {
        // The end of the job is read first: what it wrote before its end is stored by then.
        let ended = match &self.live {
            None => true,
            Some((_, job)) => job.latest.borrow().is_done(),
        };
        self.reader.skip(self.last);
        match self.reader.page().await {
            Ok(messages) => {
                for (sequence, log) in messages {
                    self.take(sequence, log);
                }
                self.is_caught_up = self.reader.is_at_end();
                self.is_done = self.is_caught_up && ended;
            }
            Err(error) => {
                debug!(%error, "cannot read a log to its end");
                self.is_done = true;
            }
        }
    }

    /// Waits for live lines, the end of the job, or the end of the edge.
    async fn wait(&mut self) -> Option<LogItem> {
        let Some((live, job)) = &mut self.live else {
            self.is_done = true;
            return None;
        };
        let item = tokio::select! {
            biased;
            () = self.app.shutdown.cancelled() => {
                self.is_done = true;
                return Some(LogItem::ShuttingDown);
            }
            item = live.recv() => Some(item),
            changed = job.latest.changed() => {
                let ended = job.latest.borrow().is_done();
                if ended || changed.is_err() {
                    // Whatever is stored by now is the rest.
                    self.is_caught_up = false;
                }
                None
            }
        };
        match item {
            Some(Ok(batch)) if batch.sequence > self.last => {
                self.take(batch.sequence, batch.log.clone())
            }
            Some(Ok(_)) | None => {}
            // Too slow for the feed: the stream has it all.
            Some(Err(RecvError::Lagged)) => self.is_caught_up = false,
            // The feed is gone: what is stored by now is all there will be.
            Some(Err(RecvError::Closed)) => {
                self.live = None;
                self.is_caught_up = false;
            }
        }
        None
    }

    fn take(&mut self, sequence: u64, log: JobLog) {
        let seen = self
            .skip
            .take_if(|(at, _)| *at <= sequence)
            .filter(|(at, _)| *at == sequence);
        let first = seen.map_or(0, |(_, index)| index + 1);
        let attempt = log.attempt.map(|attempt| attempt.0);
        let lines = log.lines.into_iter().enumerate().skip(first);
        self.ready.extend(lines.map(|(index, line)| PlacedLine {
            sequence,
            index,
            attempt,
            line,
        }));
        self.last = sequence;
    }
}
