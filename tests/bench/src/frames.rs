//! Frames: through the bus and over HTTP, the evenness of ticks, and the way of a frame from its worker to the panels.
//!
//! The panels are a pseudo-terminal: what is measured ends when their bytes can be read there.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use quintet::Http;
use quintet::system::{BusSettings, Part, System, SystemConfig};
use quintet_bus::{Bus, Deliveries};
use quintet_contract::api::Done;
use quintet_contract::frame::{Bitmap, Canvas, Fps};
use quintet_contract::frame_api::FrameWorkerMessage;
use quintet_contract::id::{HolderId, WorkerId};
use quintet_contract::permission::Role;
use quintet_contract::subject::{FrameWorkerMessages, WorkerFrame};
use quintet_edge::EdgeConfig;
use quintet_frames::{Display, FramesConfig};
use quintet_service::telemetry::Telemetry;
use reqwest::Method;
use serde_json::{Value, json};
use serial2::SerialPort;
use tokio::time::timeout;

use crate::{Measured, TIMEOUT, per_second, percentiles, push, spinner, stop};

/// The worker that sends all frames.
const WORKER: &str = "bench";
/// Frames per second where time is measured.
const FPS: f64 = 60.0;
/// Ticks and frames whose time is measured.
const TIMED: usize = 600;
/// Frames over HTTP, and how many in flight at once.
const POSTED: usize = 50_000;
const IN_FLIGHT: usize = 64;
/// Images that are fetched one by one.
const IMAGES: usize = 500;
/// Bytes that two panels of 28 columns are written for one image.
const PACKETS: usize = 64;

/// Frames of one size that are sent over the bus.
struct Size {
    canvas: Canvas,
    count: usize,
    /// So many, of which the count is a multiple, are sent before the last of them is answered: a worker that is not answered at all can send more than any
    /// subscription holds.
    window: usize,
}

const SIZES: [Size; 2] = [
    Size {
        canvas: Canvas {
            width: 28,
            height: 14,
        },
        count: 409_600,
        window: 128,
    },
    Size {
        canvas: Canvas {
            width: 1024,
            height: 512,
        },
        count: 20_000,
        window: 32,
    },
];

pub(crate) async fn measure(
    settings: &BusSettings,
    raw_request_p50_ms: f64,
    results: &mut Vec<Measured>,
) -> anyhow::Result<()> {
    for size in &SIZES {
        ingest(settings, size, results).await?;
    }
    let (panels, device) = SerialPort::pair().context("cannot open a pseudo-terminal")?;
    let mut display = display(SIZES[0].canvas)?;
    let name = std::fs::read_link(format!("/proc/self/fd/{}", device.as_raw_fd()));
    let name = name.context("a pseudo-terminal has no name")?;
    display.line.device = name.display().to_string();
    display.line.enabled = true;
    let system = start(settings, display).await?;
    let bench = Bench {
        http: http(&system)?,
        worker: Bus::connect(settings.config(&Role::Worker)).await?,
    };
    bench.post(results).await?;
    bench.jitter(results).await?;
    bench.latency(panels, results).await?;
    bench.images(raw_request_p50_ms, results).await?;
    stop(system).await;
    Ok(())
}

fn worker_id() -> anyhow::Result<WorkerId> {
    Ok(WorkerId::parse(WORKER)?)
}

fn display(canvas: Canvas) -> anyhow::Result<Display> {
    let fps = Fps::new(FPS).context("not a rate")?;
    let mut display = Display {
        canvas,
        fps,
        max_fps: fps,
        ..Display::default()
    };
    if canvas != SIZES[0].canvas {
        display.panels = Vec::new();
    }
    Ok(display)
}

async fn start(settings: &BusSettings, display: Display) -> anyhow::Result<System> {
    let mut frames = FramesConfig::new(HolderId::parse("bench")?);
    frames.display = display;
    let config = SystemConfig {
        bus: settings.clone(),
        parts: vec![
            Part::Edge(EdgeConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)))),
            Part::Frames(frames),
        ],
        metrics: None,
    };
    let system = System::start(config, Telemetry::for_tests().prometheus()).await?;
    system.ready(TIMEOUT).await?;
    Ok(system)
}

fn http(system: &System) -> anyhow::Result<Http> {
    let address = system.address().context("the edge has no address")?;
    Http::new(&format!("http://{address}"), None)
}

/// Frames of which no two in a row are the same.
fn images(canvas: Canvas) -> Vec<Bytes> {
    let image = |x: u16| {
        let mut bitmap = Bitmap::dark(canvas);
        for y in 0..canvas.height {
            bitmap.set(x.wrapping_add(y) % canvas.width, y, true);
        }
        bitmap.to_rbm(x.into(), 0).into()
    };
    (0..canvas.width.min(64)).map(image).collect()
}

/// Sends frames over the bus as fast as they are taken, and returns how many a second.
async fn send(worker: &Bus, size: &Size) -> anyhow::Result<f64> {
    let images = images(size.canvas);
    let subject = WorkerFrame {
        worker: worker_id()?,
    };
    let began = Instant::now();
    let mut next = images.iter().cycle().cloned();
    for _ in 0..size.count / size.window {
        for frame in next.by_ref().take(size.window - 1) {
            worker.publish_raw(&subject, frame).await?;
        }
        let last = next.next().context("a canvas has columns")?;
        worker.request_raw(&subject, last, TIMEOUT).await?;
    }
    Ok(per_second(size.count, began))
}

/// The same frames to a responder that does nothing else, and to the frames service.
async fn ingest(
    settings: &BusSettings,
    size: &Size,
    results: &mut Vec<Measured>,
) -> anyhow::Result<()> {
    let bar = spinner("frames over the bus");
    let worker = Bus::connect(settings.config(&Role::Worker)).await?;
    let taker = Bus::connect(settings.config(&Role::Frames)).await?;
    let filter = WorkerFrame::filter(taker.prefix(), None);
    let mut frames = taker.serve_raw::<WorkerFrame>(filter).await?;
    taker.flush().await?;
    let taking = tokio::spawn(async move {
        while let Some(frame) = frames.next().await {
            if let Some(responder) = frame.responder {
                responder.ok(&Done { ok: true }).await;
            }
        }
    });
    let raw = send(&worker, size).await?;
    taking.abort();
    taker.drain().await;
    let system = start(settings, display(size.canvas)?).await?;
    let http = http(&system)?;
    activate(&http, &worker, size.canvas).await?;
    let before = received(&http).await?;
    let rate = send(&worker, size).await?;
    let lost = size.count as f64 - (received(&http).await? - before);
    anyhow::ensure!(lost == 0.0, "{lost} frames were lost on the way");
    stop(system).await;
    worker.drain().await;
    let what = format!("raw frames of {} to a plain subscriber", size.canvas);
    push(results, &what, raw, "1/s", None);
    let what = format!("frames of {} over the bus, all checked", size.canvas);
    push(results, &what, rate, "1/s", Some(rate / raw));
    bar.finish_and_clear();
    Ok(())
}

async fn received(http: &Http) -> anyhow::Result<f64> {
    let stats = http.get("/stats").await?;
    let received = stats["counts"]["received"].as_f64();
    received.context("the statistics hold nothing about frames")
}

/// Makes the worker known, and the active one.
async fn activate(http: &Http, worker: &Bus, canvas: Canvas) -> anyhow::Result<()> {
    let subject = WorkerFrame {
        worker: worker_id()?,
    };
    let frame = images(canvas).swap_remove(0);
    worker.request_raw(&subject, frame, TIMEOUT).await?;
    post(http, "/active", &json!({"id": WORKER})).await
}

async fn post(http: &Http, path: &str, body: &Value) -> anyhow::Result<()> {
    let request = http.request(Method::POST, path).json(body);
    http.send(request).await?;
    Ok(())
}

/// A display whose panels are a pseudo-terminal, and a worker.
struct Bench {
    http: Http,
    worker: Bus,
}

impl Bench {
    async fn post(&self, results: &mut Vec<Measured>) -> anyhow::Result<()> {
        let bar = spinner("frames over HTTP");
        activate(&self.http, &self.worker, SIZES[0].canvas).await?;
        let images = images(SIZES[0].canvas);
        let path = format!("/workers/{WORKER}/frame");
        let began = Instant::now();
        futures::stream::iter(0..POSTED)
            .map(|number| {
                let body = images[number % images.len()].clone();
                let request = self.http.request(Method::POST, &path).body(body);
                async move { self.http.send(request).await.map(drop) }
            })
            .buffer_unordered(IN_FLIGHT)
            .try_for_each(async |()| Ok(()))
            .await?;
        let what = format!("frames over HTTP, {IN_FLIGHT} in flight");
        push(results, &what, per_second(POSTED, began), "1/s", None);
        bar.finish_and_clear();
        Ok(())
    }

    async fn listen(&self) -> anyhow::Result<Deliveries<FrameWorkerMessages>> {
        let filter = FrameWorkerMessages::filter(self.worker.prefix(), Some(&worker_id()?));
        let messages = self.worker.subscribe(filter).await?;
        self.worker.flush().await?;
        Ok(messages)
    }

    /// How far the time between two ticks is from what it should be.
    async fn jitter(&self, results: &mut Vec<Measured>) -> anyhow::Result<()> {
        let bar = spinner("ticks");
        let mut messages = self.listen().await?;
        tick(&mut messages).await?;
        let mut last = Instant::now();
        let mut off = Vec::new();
        for _ in 0..TIMED {
            tick(&mut messages).await?;
            let now = Instant::now();
            off.push((now - last).abs_diff(Duration::from_secs_f64(1.0 / FPS)));
            last = now;
        }
        let (p50, p99) = percentiles(&mut off);
        push(
            results,
            "ticks at 60 a second, off by, p50",
            p50,
            "ms",
            None,
        );
        push(
            results,
            "ticks at 60 a second, off by, p99",
            p99,
            "ms",
            None,
        );
        bar.finish_and_clear();
        Ok(())
    }

    /// From the publication of a frame until the panels have its last byte.
    async fn latency(&self, panels: SerialPort, results: &mut Vec<Measured>) -> anyhow::Result<()> {
        let bar = spinner("frames to the panels");
        let (written, shown) = mpsc::channel();
        let reading = std::thread::spawn(move || read(panels, &written));
        let mut messages = self.listen().await?;
        let images = images(SIZES[0].canvas);
        let subject = WorkerFrame {
            worker: worker_id()?,
        };
        let mut times = Vec::new();
        for number in 0..TIMED {
            tick(&mut messages).await?;
            // What the panels were written before does not count.
            while shown.try_recv().is_ok() {}
            let began = Instant::now();
            let frame = images[number % images.len()].clone();
            self.worker.publish_raw(&subject, frame).await?;
            let waited = tokio::task::block_in_place(|| shown.recv_timeout(TIMEOUT))?;
            times.push(waited.duration_since(began));
        }
        drop(shown);
        let (p50, p99) = percentiles(&mut times);
        push(
            results,
            "frame from its worker to the panels, p50",
            p50,
            "ms",
            None,
        );
        push(
            results,
            "frame from its worker to the panels, p99",
            p99,
            "ms",
            None,
        );
        bar.finish_and_clear();
        // It ends with the next image, or with the panels.
        drop(reading);
        Ok(())
    }

    async fn images(
        &self,
        raw_request_p50_ms: f64,
        results: &mut Vec<Measured>,
    ) -> anyhow::Result<()> {
        let bar = spinner("images");
        let mut times = Vec::new();
        for _ in 0..IMAGES {
            let began = Instant::now();
            let request = self.http.request(Method::GET, "/frame.png?scale=10");
            let image = self.http.send(request).await?.bytes().await?;
            anyhow::ensure!(image.starts_with(b"\x89PNG"), "this is no image");
            times.push(began.elapsed());
        }
        let (p50, _) = percentiles(&mut times);
        let ratio = Some(p50 / raw_request_p50_ms);
        push(
            results,
            "GET /frame.png of 28x14 at scale 10, p50",
            p50,
            "ms",
            ratio,
        );
        bar.finish_and_clear();
        Ok(())
    }
}

/// Waits for a tick.
async fn tick(messages: &mut Deliveries<FrameWorkerMessages>) -> anyhow::Result<()> {
    let next = async {
        while let Some(delivery) = messages.next().await {
            if matches!(delivery.message, FrameWorkerMessage::Tick { .. }) {
                return Ok(());
            }
        }
        anyhow::bail!("the bus closed")
    };
    timeout(TIMEOUT, next).await.context("no ticks come")?
}

/// Reports when the packets of each image are complete.
fn read(mut panels: SerialPort, written: &mpsc::Sender<Instant>) {
    let mut packets = [0; PACKETS];
    let _ = panels.set_read_timeout(TIMEOUT);
    while panels.read_exact(&mut packets).is_ok() {
        if written.send(Instant::now()).is_err() {
            break;
        }
    }
}
