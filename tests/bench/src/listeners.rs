//! Thousands of listeners on one edge: the latency of delivery, and the cost of each.
//!
//! Scheduler or runner, and the edge, are processes of their own. An update holds the moment of its cause, before the
//! request that makes it is sent; a listener is late by what has passed since then when its bytes were read, on the
//! same clock. Every message of every listener counts. The listeners read bytes and look for that mark alone, so that
//! it is the edge that is measured.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use quintet::Http;
use quintet_bus::{Bus, now};
use quintet_contract::event::JobEvent;
use quintet_contract::id::JobId;
use quintet_contract::permission::Role;
use quintet_contract::subject::JobEvents;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::process::{Parts, processor_time, resident};
use crate::{Measured, TIMEOUT, push, spinner};

/// Listeners whose memory is the base that the others are compared to.
const FEW: usize = 50;
/// Updates per second of a job.
const RATE: u32 = 100;
/// Checkpoints per second of a run.
const RUN_RATE: u32 = 20;
/// How long updates continue before they are measured.
const WARM_UP: Duration = Duration::from_secs(3);
/// How long they are measured.
const MEASURED: Duration = Duration::from_secs(10);
/// After this a listener has received an update, or never will.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Connections that are opened at once.
const IN_FLIGHT: usize = 64;
/// What stands before the moment of a cause.
const MARK: u8 = b'`';
/// Digits of that moment, in microseconds.
const DIGITS: usize = 16;
/// Bytes that one read may bring.
const READ: usize = 256 * 1024;

/// How listeners listen.
#[derive(Clone, Copy)]
enum Kind {
    Ui,
    Sse,
    Run,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Ui => "UI sockets",
            Self::Sse => "SSE streams",
            Self::Run => "SSE streams of a run",
        }
    }

    const fn rate(self) -> u32 {
        match self {
            Self::Ui | Self::Sse => RATE,
            Self::Run => RUN_RATE,
        }
    }

    /// The request of a listener of this job or run.
    fn request(self, id: &str) -> String {
        match self {
            Self::Ui => "GET /ui HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                .to_owned(),
            Self::Sse => format!(
                "GET /v1/jobs/{id}/events HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n"
            ),
            Self::Run => format!(
                "GET /v1/runs/{id}/events HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n"
            ),
        }
    }

    const fn answer(self) -> &'static [u8] {
        match self {
            Self::Ui => b"HTTP/1.1 101 ",
            Self::Sse | Self::Run => b"HTTP/1.1 200 ",
        }
    }
}

pub(crate) async fn of_jobs(
    parts: &Parts<'_>,
    bus: &Bus,
    count: usize,
    results: &mut Vec<Measured>,
) -> anyhow::Result<()> {
    quintet::raise_limit();
    let mut scheduler = parts.serve(Role::Scheduler, &[], Stdio::null())?;
    for kind in [Kind::Ui, Kind::Sse] {
        let bar = spinner("listeners");
        measure_kind(kind, parts, bus, count, results).await?;
        bar.finish_and_clear();
    }
    scheduler.kill().await?;
    Ok(())
}

pub(crate) async fn of_a_run(
    parts: &Parts<'_>,
    bus: &Bus,
    count: usize,
    results: &mut Vec<Measured>,
) -> anyhow::Result<()> {
    quintet::raise_limit();
    let mut runner = parts.serve(Role::Runner, &[], Stdio::null())?;
    let bar = spinner("listeners of a run");
    measure_kind(Kind::Run, parts, bus, count, results).await?;
    bar.finish_and_clear();
    runner.kill().await?;
    Ok(())
}

async fn edge(parts: &Parts<'_>) -> anyhow::Result<(Child, SocketAddr)> {
    let free = ["--port", "0", "--host", "127.0.0.1"];
    let mut edge = parts.serve(Role::Edge, &free, Stdio::piped())?;
    let mut lines = BufReader::new(edge.stdout.take().context("no output")?).lines();
    let listening = async {
        while let Some(line) = lines.next_line().await? {
            if let Some(address) = line.strip_prefix("listens http://") {
                return address.parse().context("no address");
            }
        }
        anyhow::bail!("the edge ended before it listened")
    };
    let address = timeout(TIMEOUT, listening)
        .await
        .context("the edge does not listen")??;
    Ok((edge, address))
}

async fn measure_kind(
    kind: Kind,
    parts: &Parts<'_>,
    bus: &Bus,
    count: usize,
    results: &mut Vec<Measured>,
) -> anyhow::Result<()> {
    let (mut edge, address) = edge(parts).await?;
    let pid = edge.id().context("the edge has ended")?;
    let http = Http::new(&format!("http://{address}"), None)?;
    let source = Source::new(kind, bus, http).await?;
    let mut listeners = Listeners::default();
    listeners.fill(kind, address, &source.id, FEW).await?;
    source.publish(WARM_UP).await?;
    let base = resident(pid)?;
    listeners.fill(kind, address, &source.id, count).await?;
    source.publish(WARM_UP).await?;
    let (began, used, from) = (Instant::now(), processor_time(pid)?, micros());
    listeners.latencies.from.store(from, Ordering::Relaxed);
    let published = source.publish(MEASURED).await?;
    let took = began.elapsed().as_secs_f64();
    listeners.until_received(published).await;
    let used = (processor_time(pid)? - used).as_secs_f64();
    let each = (resident(pid)? - base) * 1024.0 / (count - FEW) as f64;
    let name = format!("{count} {}", kind.name());
    let (p50, p99) = listeners.latencies.percentiles();
    let worst = listeners.least() as f64 / took;
    let mut report =
        |what: &str, value, unit| push(results, &format!("{name}, {what}"), value, unit, None);
    report("delivered per second, the least of all", worst, "1/s");
    report("cause to arrival, p50", p50, "ms");
    report("cause to arrival, p99", p99, "ms");
    report("memory of the edge per listener", each, "KiB");
    let messages = listeners.latencies.count() as f64;
    report(
        "processor time of the edge per message",
        used * 1e6 / messages,
        "us",
    );
    edge.kill().await?;
    Ok(())
}

/// Makes updates of one job, or checkpoints of one run.
struct Source<'a> {
    kind: Kind,
    bus: &'a Bus,
    http: Http,
    id: String,
}

impl<'a> Source<'a> {
    async fn new(kind: Kind, bus: &'a Bus, http: Http) -> anyhow::Result<Self> {
        let (path, body) = match kind {
            Kind::Ui | Kind::Sse => (
                "/v1/jobs",
                json!({"inlineConfig": {"executor": "noop"}, "requirements": {"labels": {"for": "no agent"}}}),
            ),
            Kind::Run => ("/v1/runs?mode=queue", json!({"name": "bench"})),
        };
        let began = Instant::now();
        // The scheduler or runner may have been started a moment ago.
        let made = loop {
            match http.post(path, &body).await {
                Ok(made) => break made,
                Err(error) if began.elapsed() > TIMEOUT => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let id = made["id"].as_str().context("made without an id")?;
        Ok(Self {
            kind,
            bus,
            http,
            id: id.to_owned(),
        })
    }

    /// Makes updates for this long, evenly; how many.
    async fn publish(&self, time: Duration) -> anyhow::Result<u64> {
        let rate = self.kind.rate();
        let mut ticks = interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let count = time.as_millis() as u64 * u64::from(rate) / 1000;
        let mut sent = JoinSet::new();
        for _ in 0..count {
            ticks.tick().await;
            let mark = format!("{}{:0DIGITS$}", char::from(MARK), micros());
            match self.kind {
                Kind::Ui => {
                    let (http, path) =
                        (self.http.clone(), format!("/v1/jobs/{}/metadata", self.id));
                    sent.spawn(
                        async move { http.put(&path, &json!({"title": mark})).await.map(drop) },
                    );
                }
                Kind::Sse => {
                    let job = JobId::parse(&self.id)?;
                    let subject = JobEvents { job: job.clone() };
                    let event = JobEvent {
                        job_id: job,
                        kind: "progress".to_owned(),
                        message: mark,
                        data: Some(
                            json!({"frame": 1234, "fps": 25.0, "bitrate": "2500kbits/s", "speed": 1.01}),
                        ),
                        ts: now(),
                    };
                    let stored = self.bus.store(&subject, &event, None).await?;
                    sent.spawn(async move { Ok(stored.await.map(drop)?) });
                }
                Kind::Run => {
                    let http = self.http.clone();
                    let path = format!("/v1/runs/{}/checkpoints", self.id);
                    let body = json!({"type": "step", "data": {"mark": mark, "frame": 1234}});
                    sent.spawn(async move { http.post(&path, &body).await.map(drop) });
                }
            }
        }
        while let Some(sent) = sent.join_next().await {
            sent??;
        }
        Ok(count)
    }
}

/// All listeners, and what they received.
#[derive(Default)]
struct Listeners {
    latencies: Arc<Latencies>,
    counts: Vec<Arc<AtomicU64>>,
    listening: JoinSet<()>,
}

/// Lateness in whole milliseconds, of what was caused from a moment on.
struct Latencies {
    from: AtomicU64,
    late: Vec<AtomicU64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            from: AtomicU64::new(u64::MAX),
            late: (0..=LONGEST_DELAY.as_millis())
                .map(|_| AtomicU64::new(0))
                .collect(),
        }
    }
}

impl Latencies {
    fn note(&self, cause: u64, now: u64) -> bool {
        if cause < self.from.load(Ordering::Relaxed) {
            return false;
        }
        let late = usize::try_from(now.saturating_sub(cause) / 1000).unwrap_or(usize::MAX);
        self.late[late.min(self.late.len() - 1)].fetch_add(1, Ordering::Relaxed);
        true
    }

    fn count(&self) -> u64 {
        self.late
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// The 50th and the 99th in milliseconds, rounded up.
    fn percentiles(&self) -> (f64, f64) {
        let all = self.count() as f64;
        let at = |share: f64| {
            let mut seen = 0;
            let found = self.late.iter().position(|count| {
                seen += count.load(Ordering::Relaxed);
                seen as f64 >= all * share
            });
            found.map_or(f64::NAN, |ms| (ms + 1) as f64)
        };
        (at(0.50), at(0.99))
    }
}

impl Listeners {
    /// Opens connections until there are so many.
    async fn fill(
        &mut self,
        kind: Kind,
        address: SocketAddr,
        id: &str,
        count: usize,
    ) -> anyhow::Result<()> {
        let missing = count.saturating_sub(self.counts.len());
        let request = kind.request(id);
        let opening = futures::stream::iter(0..missing).map(|_| connect(kind, address, &request));
        let streams: Vec<TcpStream> = opening.buffer_unordered(IN_FLIGHT).try_collect().await?;
        for stream in streams {
            let count = Arc::new(AtomicU64::new(0));
            self.counts.push(count.clone());
            self.listening
                .spawn(listen(stream, self.latencies.clone(), count));
        }
        Ok(())
    }

    fn least(&self) -> u64 {
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        counts.min().unwrap_or_default()
    }

    /// Waits until all have received so much, or until the time is over.
    async fn until_received(&self, published: u64) {
        let told_all = async {
            let mut ticks = interval(Duration::from_millis(50));
            while self.least() < published {
                ticks.tick().await;
            }
        };
        let _ = timeout(LONGEST_DELAY, told_all).await;
    }
}

async fn connect(kind: Kind, address: SocketAddr, request: &str) -> anyhow::Result<TcpStream> {
    let opening = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = vec![0; kind.answer().len()];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer).await?;
        anyhow::ensure!(
            answer == kind.answer(),
            "a listener was answered {}",
            String::from_utf8_lossy(&answer)
        );
        Ok(stream)
    };
    timeout(TIMEOUT, opening)
        .await
        .context("a listener is not let in")?
}

thread_local! {
    /// What a read brings; a listener keeps nothing between reads but an unfinished mark.
    static BYTES: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// Reads until the other end closes.
async fn listen(stream: TcpStream, latencies: Arc<Latencies>, count: Arc<AtomicU64>) {
    let mut parser = Parser::default();
    while stream.readable().await.is_ok() {
        let read = BYTES.with_borrow_mut(|bytes| {
            let read = stream.try_read(bytes)?;
            let now = micros();
            parser.feed(&bytes[..read], |cause| {
                count.fetch_add(u64::from(latencies.note(cause, now)), Ordering::Relaxed);
            });
            Ok(read)
        });
        match read {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if ErrorKind::WouldBlock == std::io::Error::kind(&error) => {}
            Err(_) => return,
        }
    }
}

/// Finds marks in a stream of bytes.
#[derive(Default)]
struct Parser {
    /// Digits of a mark that continue in the next read; none while not in a mark.
    begun: Option<(u64, usize)>,
}

impl Parser {
    fn feed(&mut self, mut bytes: &[u8], mut found: impl FnMut(u64)) {
        loop {
            let (mut cause, mut digits) = match self.begun.take() {
                Some(begun) => begun,
                None => match memchr::memchr(MARK, bytes) {
                    Some(at) => {
                        bytes = &bytes[at + 1..];
                        (0, 0)
                    }
                    None => return,
                },
            };
            while digits < DIGITS {
                let Some((digit, rest)) = bytes.split_first() else {
                    self.begun = Some((cause, digits));
                    return;
                };
                if !digit.is_ascii_digit() {
                    // The length of a frame may look like a mark.
                    break;
                }
                cause = cause * 10 + u64::from(digit - b'0');
                digits += 1;
                bytes = rest;
            }
            if digits == DIGITS {
                found(cause);
            }
        }
    }
}

/// Microseconds since 1970: one clock for causes and arrivals.
fn micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_wherever_a_read_ends() {
        let text = b"xx`0001700000000001y`0y``0001700000000002";
        for cut in 0..text.len() {
            let (mut parser, mut causes) = (Parser::default(), Vec::new());
            parser.feed(&text[..cut], |cause| causes.push(cause));
            parser.feed(&text[cut..], |cause| causes.push(cause));
            assert_eq!(
                causes,
                [1_700_000_000_001, 1_700_000_000_002],
                "cut at {cut}"
            );
        }
    }
}
