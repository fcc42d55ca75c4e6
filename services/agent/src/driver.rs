//! The event loop of an agent: its only `select!`, around the core.

use std::convert::Infallible;
use std::time::Duration;

use futures::FutureExt;
use quintet_bus::Bus;
use quintet_contract::JsonObject;
use quintet_contract::agent::Hello;
use quintet_service::tasks::{ExitPolicy, Tasks};
use quintet_worker::process::{Spawner, Started};
use quintet_worker::{
    AgentIdentity, AgentLink, LinkError, LinkEvent, LinkHandle, LinkOptions, Moment, ReportSlot,
};
use serde_json::json;
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Span, info, warn};

use crate::child::Context;
use crate::config::AgentConfig;
use crate::core::{Core, Event, Leaving};
use crate::error::Error;
use crate::executors::{Abilities, Executor};
use crate::inbound;
use crate::outbound::Outbound;

/// Events of children that wait for the driver; when full, the children's keepers wait, not the children.
const CHILD_EVENTS: usize = 1024;
/// Most events that are handled before their reports are sent.
const BURST: usize = 256;
/// How long ffmpeg may take to print its version.
const FFMPEG_PROBE: Duration = Duration::from_secs(5);
/// How long after the grace of a drain the agent waits for processes that cannot be killed.
const DRAIN_SLACK: Duration = Duration::from_secs(5);
/// How much later than the agent itself its reaper ends what may run elsewhere: an agent that runs looks at least this often,
/// and the scheduler waits a second longer than the answer's deadline.
const FENCE_SLACK: Duration = Duration::from_millis(600);
/// How long the last reports may take to be stored.
const LAST_REPORTS: Duration = Duration::from_secs(5);
/// How long the last log lines and answers may take.
const LAST_TASKS: Duration = Duration::from_secs(2);

/// Runs an agent until `shutdown` is cancelled and its jobs have ended, or until it is replaced.
pub async fn run(config: AgentConfig, bus: Bus, shutdown: CancellationToken) -> Result<(), Error> {
    let mut config = config;
    config.work_dir = make_work_dir(&config).await?;
    let spawner = Spawner::start(config.reaper.as_deref(), config.environment.clone())?;
    let may_encode = config.executors.contains(&Executor::Ffmpeg);
    let abilities = Abilities {
        allowed: config.executors.clone(),
        ffmpeg: may_encode && has_ffmpeg(&spawner, &config).await,
        work_dir: config.work_dir.clone(),
    };
    let identity = AgentIdentity {
        agent: config.agent.clone(),
        pool: config.pool.clone(),
    };
    let hello = hello(&config, &abilities);
    let options = LinkOptions::default();
    let (link, mut link_events) = AgentLink::open(bus.clone(), identity, hello, options);
    let tasks = Tasks::new(format!("agent/{}", config.agent));
    tasks.spawn(
        "watchdog",
        ExitPolicy::Optional,
        watch_fence(link.fences_at(), spawner.clone()),
    );
    let (events, child_events) = mpsc::channel(CHILD_EVENTS);
    let context = Context {
        bus,
        spawner,
        tasks: tasks.clone(),
        events,
        ffmpeg: config.ffmpeg.clone(),
        stall_timeout: config.stall_timeout,
        log_limits: config.log_limits,
    };
    let driver = Driver {
        core: Core::new(config.slots, abilities),
        outbound: Outbound::new(context, link.clone()),
        config,
    };
    info!(agent = %driver.config.agent, slots = driver.config.slots, "agent started");
    let agent = driver.config.agent.to_string();
    let leaving = driver
        .event_loop(&mut link_events, child_events, &shutdown)
        .await;
    // The link runs as long as its receiver exists.
    let left = leave(leaving, &link, agent).await;
    drop(link_events);
    let report = tasks.shutdown(LAST_TASKS).await;
    if !report.is_clean() {
        warn!(aborted = ?report.aborted, "some tasks did not end in time");
    }
    left
}

/// Sets the reaper's deadline for restartable jobs: when this process is frozen it cannot end them itself.
async fn watch_fence(
    mut fences_at: watch::Receiver<Option<Moment>>,
    spawner: Spawner,
) -> Result<(), Infallible> {
    loop {
        if let Some(at) = *fences_at.borrow_and_update() {
            spawner.fence_at(at.after(FENCE_SLACK));
        }
        if fences_at.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn leave(leaving: Leaving, link: &LinkHandle, agent: String) -> Result<(), Error> {
    match leaving {
        Leaving::Drained => {
            let goodbye = async {
                link.flush(LAST_REPORTS).await?;
                link.goodbye("the agent was shut down").await
            };
            match goodbye.await {
                Ok(()) => info!(%agent, "agent left"),
                Err(error @ (LinkError::Late { .. } | LinkError::Closed)) => {
                    warn!(%agent, %error, "agent left without a confirmed goodbye");
                }
            }
            Ok(())
        }
        Leaving::Replaced => Err(Error::Replaced { agent }),
        Leaving::LinkClosed => Err(Error::BusClosed),
    }
}

pub(crate) fn hello(config: &AgentConfig, abilities: &Abilities) -> Hello {
    let capabilities = config.capabilities(abilities.executors());
    let meta = json!({"os": std::env::consts::OS, "arch": std::env::consts::ARCH, "pid": std::process::id()});
    Hello {
        name: config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: capabilities.to_object(),
        drain: false,
        active_jobs: Vec::new(),
        meta: meta.as_object().cloned().unwrap_or_else(JsonObject::new),
    }
}

/// The folder as an absolute path: children start elsewhere.
async fn make_work_dir(config: &AgentConfig) -> Result<std::path::PathBuf, Error> {
    let path = config.work_dir.clone();
    let made = async {
        tokio::fs::create_dir_all(&path).await?;
        tokio::fs::canonicalize(&path).await
    };
    made.await.map_err(|source| Error::WorkDir { path, source })
}

async fn has_ffmpeg(spawner: &Spawner, config: &AgentConfig) -> bool {
    let mut command = std::process::Command::new(&config.ffmpeg);
    command.arg("-version").stdin(std::process::Stdio::null());
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let probe = async {
        let Started { mut child, group } = spawner.spawn(command, false).await?;
        let status = Child::wait(&mut child).await;
        drop(group);
        status
    };
    let found = matches!(timeout(FFMPEG_PROBE, probe).await, Ok(Ok(status)) if status.success());
    if !found {
        warn!(ffmpeg = %config.ffmpeg.display(), "no ffmpeg found, this agent takes no ffmpeg jobs");
    }
    found
}

struct Driver {
    config: AgentConfig,
    core: Core,
    outbound: Outbound,
}

enum Wake<'l> {
    Event(Event),
    Link(LinkEvent),
    Closed,
    Room(ReportSlot<'l>),
    Drain,
}

impl Driver {
    async fn event_loop(
        mut self,
        link_events: &mut mpsc::Receiver<LinkEvent>,
        mut child_events: mpsc::Receiver<Event>,
        shutdown: &CancellationToken,
    ) -> Leaving {
        let link = self.outbound.link();
        let mut drains = false;
        let mut is_open = true;
        loop {
            // Every branch is cancel-safe: a token, channels, a queue of timers, a permit that is returned.
            let wake = tokio::select! {
                biased;
                () = shutdown.cancelled(), if !drains => Wake::Drain,
                Some(event) = child_events.recv() => Wake::Event(event),
                event = self.outbound.timer() => Wake::Event(event),
                Ok(slot) = link.slot(), if self.outbound.has_reports() => Wake::Room(slot),
                event = link_events.recv(), if is_open => event.map_or(Wake::Closed, Wake::Link),
            };
            match wake {
                Wake::Drain => {
                    drains = true;
                    let grace = self.config.drain_grace;
                    info!(agent = %self.config.agent, "agent drains");
                    self.outbound.limit_drain(grace + DRAIN_SLACK);
                    self.step(vec![Event::DrainAsked { grace }], &Span::none());
                }
                Wake::Event(event) => self.step(vec![event], &Span::none()),
                Wake::Room(slot) => self.outbound.send_in(slot),
                Wake::Link(event) => self.link_event(event),
                Wake::Closed => is_open = false,
            }
            self.take_ready(link_events, &mut child_events);
            self.publish();
            if let Some(leaving) = self.outbound.leaving {
                return leaving;
            }
        }
    }

    /// Handles what has come already, so that a burst costs one list of jobs and one batch of reports.
    fn take_ready(
        &mut self,
        link_events: &mut mpsc::Receiver<LinkEvent>,
        child_events: &mut mpsc::Receiver<Event>,
    ) {
        for _ in 0..BURST {
            if let Ok(event) = child_events.try_recv() {
                self.step(vec![event], &Span::none());
            } else if let Some(event) = self.outbound.timer().now_or_never() {
                self.step(vec![event], &Span::none());
            } else if let Ok(event) = link_events.try_recv() {
                self.link_event(event);
            } else {
                return;
            }
        }
    }

    fn link_event(&mut self, event: LinkEvent) {
        if matches!(event, LinkEvent::Replaced | LinkEvent::Closed) {
            self.outbound.limit_drain(DRAIN_SLACK);
        }
        let answers = &mut self.outbound.answers;
        let (events, span) = inbound::read(&self.config.agent, event, answers);
        self.step(events, &span);
    }

    /// Steps the core for these events and for what their effects bring about at once.
    fn step(&mut self, events: Vec<Event>, span: &Span) {
        let _entered = span.enter();
        self.outbound.events.extend(events);
        while let Some(event) = self.outbound.events.pop_front() {
            if let Event::Exited(placement, _) = &event {
                self.outbound.forget(placement);
            }
            for effect in self.core.step(event) {
                self.outbound.perform(effect);
            }
        }
    }

    /// Shows the jobs to the link, then reports: a heartbeat must not miss a job that was accepted.
    fn publish(&mut self) {
        let (used, slots) = (self.core.used_slots(), self.config.slots);
        self.outbound.show(self.core.active_jobs(), used, slots);
        let core = &self.core;
        self.outbound
            .keep_spans(core.job_count(), |placement| core.knows(placement));
        self.outbound.send_reports();
    }
}
