//! Child supervisor: one child process from its start to its end.
//!
//! One task per child owns its process group, so that no task signals a group that is gone. Readers drain its
//! output, stdin passes live commands on; what matters comes back to the driver as events.

mod output;
mod stdin;

use std::convert::Infallible;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use quintet_bus::Bus;
use quintet_contract::JsonObject;
use quintet_contract::job::JobAttempt;
use quintet_service::tasks::{ExitPolicy, Tasks};
use quintet_worker::output::LogLimits;
use quintet_worker::process::{Group, Spawner, Started};
use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, timeout};
use tracing::Instrument;

use crate::core::{AnswerId, Event, Exit};
use crate::executors::{ExecPlan, FfmpegPlan, Output};
use crate::ffmpeg::{self, Progress, StallWatch};
use crate::logs::{self, LogSink, NoteSink};
use output::{Dialog, Readers};
use stdin::Language;

/// Live commands that wait for a child; when full, further ones fail.
const COMMANDS: usize = 16;
/// How often progress is reported.
const PROGRESS_PERIOD: Duration = Duration::from_secs(2);
/// How often an encoder is checked, at most; a fourth of the stall timeout when that is shorter.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// An encoder that waits for its source handles a second request only.
const SECOND_TERM_AFTER: Duration = Duration::from_secs(2);
/// How long the last output may take to be read after the end, and how long to be stored.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What every child needs.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) bus: Bus,
    pub(crate) spawner: Spawner,
    pub(crate) tasks: Tasks,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) ffmpeg: PathBuf,
    pub(crate) stall_timeout: Duration,
    pub(crate) log_limits: LogLimits,
}

/// What a child is to run.
#[derive(Debug)]
pub(crate) enum Work {
    Exec(ExecPlan),
    Ffmpeg(FfmpegPlan),
}

/// The inputs of a child.
#[derive(Debug)]
pub(crate) struct Handle {
    stop_level: watch::Sender<StopLevel>,
    commands: mpsc::Sender<LiveCommand>,
    notes: NoteSink,
}

/// What is to be done to end a child; it only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum StopLevel {
    None,
    Terminate,
    Kill,
}

/// A live command in flight to a child.
#[derive(Debug)]
pub(crate) struct LiveCommand {
    pub(crate) command: String,
    pub(crate) args: JsonObject,
    pub(crate) answer: AnswerId,
}

impl Handle {
    /// Asks the whole group to end.
    pub(crate) fn terminate(&self) {
        self.escalate(StopLevel::Terminate);
    }

    /// Ends the whole group.
    pub(crate) fn kill(&self) {
        self.escalate(StopLevel::Kill);
    }

    fn escalate(&self, more: StopLevel) {
        self.stop_level.send_if_modified(|stop_level| {
            let grows = more > *stop_level;
            *stop_level = more.max(*stop_level);
            grows
        });
    }

    /// Passes a command on, or gives it back when too many wait.
    pub(crate) fn command(&self, command: LiveCommand) -> Result<(), LiveCommand> {
        self.commands
            .try_send(command)
            .map_err(|error| error.into_inner())
    }

    /// Writes a note to the child's log.
    pub(crate) fn note(&self, line: &str) {
        self.notes.write(line);
    }
}

/// Starts a child; its progress arrives as events, [`Event::Exited`] last and always.
pub(crate) fn start(
    context: &Context,
    placement: JobAttempt,
    work: Work,
    restartable: bool,
) -> Handle {
    let (stop_level, stop_requested) = watch::channel(StopLevel::None);
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let (sink, shipment, shipped) = logs::channel(context.log_limits);
    let handle = Handle {
        stop_level,
        commands,
        notes: sink.notes(),
    };
    let shipping = logs::ship(context.bus.clone(), placement.clone(), shipment);
    let span = tracing::Span::current();
    context.tasks.spawn(
        "log",
        ExitPolicy::Optional,
        shipping.instrument(span.clone()),
    );
    let supervisor = ChildSupervisor {
        context: context.clone(),
        placement,
        restartable,
        stop_requested,
    };
    let supervision = supervisor.run(work, sink, receiver, shipped);
    context
        .tasks
        .spawn("child", ExitPolicy::Optional, supervision.instrument(span));
    handle
}

struct ChildSupervisor {
    context: Context,
    placement: JobAttempt,
    restartable: bool,
    stop_requested: watch::Receiver<StopLevel>,
}

impl ChildSupervisor {
    async fn run(
        mut self,
        work: Work,
        sink: LogSink,
        commands: mpsc::Receiver<LiveCommand>,
        shipped: oneshot::Receiver<()>,
    ) -> Result<(), Infallible> {
        let exit = match work {
            Work::Exec(plan) => self.exec(plan, &sink, commands).await,
            Work::Ffmpeg(plan) => self.ffmpeg(plan, &sink, commands).await,
        };
        drop(sink);
        // When the end of a job is visible its whole log is stored, unless the bus is slow or away.
        let _ = timeout(LAST_WORDS, shipped).await;
        self.send(Event::Exited(self.placement.clone(), exit)).await;
        Ok(())
    }

    async fn exec(
        &mut self,
        plan: ExecPlan,
        sink: &LogSink,
        commands: mpsc::Receiver<LiveCommand>,
    ) -> Exit {
        if !plan.cwd.is_dir() {
            let reason = format!("the folder {} does not exist", plan.cwd.display());
            return Exit::NotStarted { reason };
        }
        let mut command = plan.command();
        let stdin = if plan.stdin_commands {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (mut child, group) = match self.spawn(command).await {
            Ok(Started { child, group }) => (child, group),
            Err(exit) => return exit,
        };
        let readers = Readers::of_program(&mut child, sink);
        self.open_stdin(&mut child, Language::Json, commands);
        self.send(Event::Working(self.placement.clone())).await;
        let status = loop {
            // Both are cancel-safe: a watch keeps what is unseen, and waiting for a child only looks.
            tokio::select! {
                biased;
                Ok(()) = self.stop_requested.changed() => self.escalate(&group),
                status = child.wait() => break status,
            }
        };
        // Before the last output is read: what the child left behind may hold its pipes open.
        drop(group);
        exit_of(status, readers.finish(LAST_WORDS).await)
    }

    async fn ffmpeg(
        &mut self,
        plan: FfmpegPlan,
        sink: &LogSink,
        commands: mpsc::Receiver<LiveCommand>,
    ) -> Exit {
        if let Err(reason) = make_folder(&plan.output).await {
            return Exit::NotStarted { reason };
        }
        let mut command = Command::new(&self.context.ffmpeg);
        command
            .args(ffmpeg::arguments(&plan))
            .current_dir(&plan.work_dir);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (mut child, group) = match self.spawn(command).await {
            Ok(Started { child, group }) => (child, group),
            Err(exit) => return exit,
        };
        let (dialog, progress, replies) = Dialog::new();
        let readers = Readers::of_ffmpeg(&mut child, sink, dialog);
        self.open_stdin(&mut child, Language::Ffmpeg(replies), commands);
        let mut watch = EncoderWatch::new(progress, self.context.stall_timeout);
        let mut second_term = None;
        let status = loop {
            // All are cancel-safe: a watch keeps what is unseen, an interval and a wait only look.
            tokio::select! {
                biased;
                Ok(()) = self.stop_requested.changed() => {
                    self.escalate(&group);
                    second_term = Some(Instant::now() + SECOND_TERM_AFTER);
                }
                status = child.wait() => break status,
                _ = watch.interval.tick() => {
                    if second_term.take_if(|at| *at <= Instant::now()).is_some() {
                        group.signal(Signal::TERM);
                    }
                    for event in watch.observe(&self.placement) {
                        self.send(event).await;
                    }
                }
            }
        };
        drop(group);
        let tail = readers.finish(LAST_WORDS).await;
        for event in watch.last_observation(&self.placement) {
            self.send(event).await;
        }
        exit_of(status, tail)
    }

    async fn spawn(&self, command: Command) -> Result<Started, Exit> {
        let program = command.get_program().to_string_lossy().into_owned();
        let started = self.context.spawner.spawn(command, self.restartable).await;
        started.map_err(|error| Exit::NotStarted {
            reason: format!("cannot start {program}: {error}"),
        })
    }

    fn open_stdin(
        &self,
        child: &mut Child,
        language: Language,
        commands: mpsc::Receiver<LiveCommand>,
    ) {
        let commands = stdin::serve(
            self.placement.clone(),
            child.stdin.take(),
            language,
            commands,
            self.context.events.clone(),
        );
        self.context
            .tasks
            .spawn("commands", ExitPolicy::Optional, commands.in_current_span());
    }

    fn escalate(&mut self, group: &Group) {
        match *self.stop_requested.borrow_and_update() {
            StopLevel::None => {}
            StopLevel::Terminate => group.signal(Signal::TERM),
            StopLevel::Kill => group.signal(Signal::KILL),
        }
    }

    async fn send(&self, event: Event) {
        // Fails when the driver is gone; then no receiver is left.
        let _ = self.context.events.send(event).await;
    }
}

/// Looks at an encoder's progress now and then.
struct EncoderWatch {
    progress: watch::Receiver<Progress>,
    interval: Interval,
    started: Instant,
    stall: StallWatch,
    stall_timeout: Duration,
    works: bool,
    reported: Option<Instant>,
}

impl EncoderWatch {
    fn new(progress: watch::Receiver<Progress>, stall_timeout: Duration) -> Self {
        let period = POLL_INTERVAL
            .min(stall_timeout / 4)
            .max(Duration::from_millis(1));
        let mut interval = tokio::time::interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            progress,
            interval,
            started: Instant::now(),
            stall: StallWatch::new(stall_timeout),
            stall_timeout,
            works: false,
            reported: None,
        }
    }

    fn observe(&mut self, placement: &JobAttempt) -> Vec<Event> {
        let progress = self.progress.borrow().clone();
        let mut events = Vec::new();
        if !self.works && progress.has_output() {
            self.works = true;
            events.push(Event::Working(placement.clone()));
        }
        let is_due = self
            .reported
            .is_none_or(|at| at.elapsed() >= PROGRESS_PERIOD);
        if self.works && is_due && self.progress.has_changed().unwrap_or_default() {
            self.progress.mark_unchanged();
            self.reported = Some(Instant::now());
            events.push(Event::Progressed(placement.clone(), progress.to_object()));
        }
        if self.stall.is_stalled(&progress, self.started.elapsed()) {
            events.push(Event::Stalled(placement.clone(), self.stall_timeout));
        }
        events
    }

    /// After the end: the last numbers, and that it worked if it was too quick to be seen.
    fn last_observation(&mut self, placement: &JobAttempt) -> Vec<Event> {
        let progress = self.progress.borrow().clone();
        if !progress.has_output() {
            return Vec::new();
        }
        vec![
            Event::Working(placement.clone()),
            Event::Progressed(placement.clone(), progress.to_object()),
        ]
    }
}

async fn make_folder(output: &Output) -> Result<(), String> {
    let Output::File(path) = output else {
        return Ok(());
    };
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    let made = tokio::fs::create_dir_all(folder).await;
    made.map_err(|error| format!("cannot create the folder {}: {error}", folder.display()))
}

fn exit_of(status: std::io::Result<ExitStatus>, tail: Vec<String>) -> Exit {
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            let reason = format!("cannot wait for the program: {error}");
            return Exit::NotStarted { reason };
        }
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => Exit::Success,
        (Some(code), _) => Exit::Status { code, tail },
        (None, signal) => Exit::Signal {
            signal: signal.unwrap_or_default(),
            tail,
        },
    }
}
