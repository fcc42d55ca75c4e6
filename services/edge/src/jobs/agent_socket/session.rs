//! The session of one agent's socket: moves frames between the socket, the core and the agent's link on the bus.

use std::collections::HashMap;
use std::num::NonZeroU32;

use axum::extract::State;
use axum::response::Response;
use futures::StreamExt;
use futures::stream::SplitStream;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use quintet_bus::{Responder, new_message_id, now};
use quintet_contract::JsonObject;
use quintet_contract::agent::{AgentReport, CommandReply};
use quintet_contract::event::JobLog;
use quintet_contract::id::JobId;
use quintet_contract::socket::{CLOSE_NO_HELLO, CLOSE_TOO_SLOW, CLOSE_UNAUTHORIZED, HelloPayload};
use quintet_contract::subject::JobLogged;
use quintet_worker::{AgentIdentity, AgentLink, HeartbeatMode, LinkEvent, LinkHandle, LinkOptions};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use tracing::debug;

use super::core::{Core, FrameStamp, Inbound, Outbound};
use crate::access::keys::same_secret;
use crate::http::websocket::CLOSE_LEAVING;
use crate::http::websocket::accept::{Socket, SocketOptions, SocketUpgrade};
use crate::http::websocket::ping::{Activity, Due, Pings};
use crate::http::websocket::send_queue::SendQueue;
use crate::metrics;
use crate::state::App;

const OPTIONS: SocketOptions = SocketOptions {
    kind: "agent",
    max_message: 1024 * 1024,
    read_buffer: 4 * 1024,
};
/// Largest message before the agent is authenticated, its hello included.
const MAX_UNAUTHENTICATED_BYTES: usize = 16 * 1024;
/// Close code for a message that is too large.
const CLOSE_TOO_LARGE: u16 = 1009;
/// Log lines per second of one socket, also as a burst; what is over is dropped and counted.
const LOG_LINES_PER_SECOND: NonZeroU32 = NonZeroU32::new(1000).expect("a constant above zero");

pub(crate) async fn connect(State(app): State<App>, upgrade: SocketUpgrade) -> Response {
    upgrade.accept(OPTIONS, |socket| serve(app, socket))
}

/// Why a socket ends.
enum CloseReason {
    /// The other end closed, or is gone.
    Gone,
    /// We close, with this code and reason.
    Close(u16, &'static str),
    /// A newer session of the same agent took over.
    Replaced,
    /// It does not read.
    TooSlow,
    /// The edge leaves.
    ShuttingDown,
}

async fn serve(app: App, socket: Socket) {
    let (sink, stream) = socket.split();
    let mut session = Session {
        core: Core::default(),
        stream,
        queue: SendQueue::start(sink, &app.sockets),
        app,
        link: None,
        commands: HashMap::new(),
        lines: RateLimiter::direct(Quota::per_second(LOG_LINES_PER_SECOND)),
        activity: Activity::default(),
    };
    let end = session.run().await;
    session.finish(end).await;
}

/// One socket.
struct Session {
    app: App,
    core: Core,
    stream: SplitStream<Socket>,
    queue: SendQueue,
    link: Option<(LinkHandle, Receiver<LinkEvent>)>,
    /// Commands that wait for the agent's answer, by job and verb.
    commands: HashMap<(JobId, &'static str), Responder<CommandReply>>,
    lines: DefaultDirectRateLimiter,
    activity: Activity,
}

impl Session {
    async fn run(&mut self) -> CloseReason {
        let hello_until = Instant::now() + self.app.config.hello_timeout;
        let mut pings = Pings::start();
        loop {
            // Cancel-safe: frames and link events are taken only when they are returned.
            let handle_inbound = tokio::select! {
                biased;
                () = self.app.shutdown.cancelled() => return CloseReason::ShuttingDown,
                () = self.queue.overflowed() => return CloseReason::TooSlow,
                event = next_event(&mut self.link) => match self.handle_link_event(event).await {
                    Some(end) => return end,
                    None => continue,
                },
                frame = self.stream.next() => match frame {
                    Some(Ok(message)) if self.is_too_large(&message) => {
                        return CloseReason::Close(CLOSE_TOO_LARGE, "too large before a hello");
                    }
                    Some(Ok(Message::Text(text))) => self.core.receive(text.as_bytes(), now()),
                    Some(Ok(Message::Binary(bytes))) => self.core.receive(&bytes, now()),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => { self.activity.record(); continue }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return CloseReason::Gone,
                },
                () = sleep_until(hello_until), if self.link.is_none() => {
                    return CloseReason::Close(CLOSE_NO_HELLO, "no hello in time");
                }
                due = pings.due(&self.activity) => match due {
                    Due::Gone => return CloseReason::Gone,
                    Due::Ping => {
                        self.queue.send(Message::Ping(Default::default()));
                        continue;
                    }
                },
            };
            self.activity.record();
            if let Some(end) = self.handle_inbound(handle_inbound).await {
                return end;
            }
        }
    }

    /// Handles a message of the agent.
    async fn handle_inbound(&mut self, handle_inbound: Inbound) -> Option<CloseReason> {
        match handle_inbound {
            Inbound::Ignored(kind) => metrics::ignored_frame(kind),
            Inbound::Hello(hello) => return self.hello(*hello).await,
            Inbound::Heartbeat(metrics) => {
                if let Some((link, _)) = &self.link {
                    let _ = link.heartbeat(metrics).await;
                }
            }
            Inbound::Report(report) => self.report(report).await,
            Inbound::Muted {
                job,
                verb,
                report,
                success,
            } => {
                if let Some(responder) = self.commands.remove(&(job, verb)) {
                    let mut answer = JsonObject::new();
                    answer.insert("success".to_owned(), success.into());
                    if !success {
                        answer.insert(
                            "reason".to_owned(),
                            "the agent answered that it did not work".into(),
                        );
                    }
                    responder.ok(&CommandReply { answer }).await;
                }
                self.report(report).await;
            }
            Inbound::Log(log) => self.log(log).await,
        }
        None
    }

    /// Whether a message is larger than what is taken of an agent that has not sent its token yet.
    fn is_too_large(&self, message: &Message) -> bool {
        self.link.is_none() && message.len() > MAX_UNAUTHENTICATED_BYTES
    }

    async fn report(&mut self, report: AgentReport) {
        let Some((link, _)) = &self.link else {
            return metrics::ignored_frame("before_hello");
        };
        link.set_jobs(self.core.jobs());
        // An error means that the link has ended, which its own event shows.
        let _ = link.report(report).await;
    }

    async fn hello(&mut self, hello: HelloPayload) -> Option<CloseReason> {
        let token = hello
            .auth
            .as_ref()
            .and_then(|auth| auth.token.as_deref())
            .unwrap_or_default();
        if !same_secret(token, self.app.config.agent_token.expose()) {
            return Some(CloseReason::Close(CLOSE_UNAUTHORIZED, "Unauthorized"));
        }
        let identity = AgentIdentity {
            agent: hello.agent_id.clone(),
            pool: hello.pool.clone().unwrap_or_default(),
        };
        if let Some((before, _)) = self.link.take() {
            // The same socket is another agent's now, or sends its hello again.
            match self.core.speaks_for(&identity.agent) {
                true => before.close(),
                false => drop(before.goodbye("its socket speaks for another agent").await),
            }
        }
        let hello = self.core.greet(hello);
        let options = LinkOptions {
            heartbeat: HeartbeatMode::Forwarded,
        };
        self.link = Some(AgentLink::open(
            self.app.bus.clone(),
            identity,
            hello,
            options,
        ));
        None
    }

    async fn log(&mut self, log: JobLog) {
        let count = u32::try_from(log.lines.len())
            .ok()
            .and_then(NonZeroU32::new);
        let Some(count) = count else { return };
        if !matches!(self.lines.check_n(count), Ok(Ok(()))) {
            return metrics::ignored_frame("log_rate");
        }
        let subject = JobLogged {
            job: log.job_id.clone(),
        };
        match self.app.bus.store(&subject, &log, None).await {
            // Lines are stored in order; no confirmation is awaited.
            Ok(confirmation) => drop(confirmation),
            Err(error) => debug!(%error, "cannot store log lines"),
        }
    }

    /// Handles an event of the agent's link on the bus.
    async fn handle_link_event(&mut self, event: Option<LinkEvent>) -> Option<CloseReason> {
        match event {
            None | Some(LinkEvent::Closed) => {
                return Some(CloseReason::Close(CLOSE_LEAVING, "the bus is away"));
            }
            Some(LinkEvent::Replaced) => return Some(CloseReason::Replaced),
            Some(LinkEvent::Command {
                command, responder, ..
            }) => match self.core.command(command, stamp()) {
                Outbound::Notify(frame) => {
                    self.queue.send(Message::text(frame));
                    responder.ok(&CommandReply::default()).await;
                }
                Outbound::Request { frame, job, verb } => {
                    self.queue.send(Message::text(frame));
                    self.commands.insert((job, verb), responder);
                }
                Outbound::Reject(error) => responder.err(&error).await,
            },
            Some(LinkEvent::Assigned { assignment, .. }) => {
                let frame = self.core.offer(assignment, stamp());
                self.queue.send(Message::text(frame));
            }
            Some(LinkEvent::Kill(placement)) => {
                let frame = self.core.kill(&placement, stamp());
                self.queue.send(Message::text(frame));
            }
            Some(LinkEvent::Welcome(settings)) => {
                let frame = self.core.welcome(settings, stamp());
                self.queue.send(Message::text(frame));
            }
            Some(LinkEvent::Stored(reports)) => {
                for report in &reports {
                    if let AgentReport::JobStopped { job_id, .. } = report {
                        // No agent will answer a command to a job that has ended.
                        self.commands.retain(|(job, _), _| job != job_id);
                    }
                }
                if self.core.stored(&reports)
                    && let Some((link, _)) = &self.link
                {
                    link.set_jobs(self.core.jobs());
                }
            }
            Some(LinkEvent::Refused { report, error }) => {
                debug!(%error, "a report of an agent was refused");
                if matches!(*report, AgentReport::Hello { .. }) {
                    // It is not registered: the pool takes no new agents.
                    return Some(CloseReason::Close(
                        CLOSE_TOO_SLOW,
                        "refused; try again later",
                    ));
                }
            }
            Some(_) => {}
        }
        None
    }

    async fn finish(mut self, end: CloseReason) {
        let link = self.link.take();
        match end {
            CloseReason::Gone => send_goodbye(link, "link closed").await,
            CloseReason::TooSlow => {
                metrics::slow_client("agent");
                self.queue.close(CLOSE_TOO_SLOW, "too slow").await;
                send_goodbye(link, "did not read its socket").await;
            }
            CloseReason::Close(code, reason) => {
                self.queue.close(code, reason).await;
                send_goodbye(link, reason).await;
            }
            CloseReason::Replaced => self.queue.close(1000, "Replaced by new connection").await,
            CloseReason::ShuttingDown => {
                if let Some((link, _)) = link {
                    // No goodbye: the agent reconnects through another edge before it counts as lost.
                    link.close();
                }
                self.queue
                    .close(CLOSE_LEAVING, "this server is leaving")
                    .await;
            }
        }
    }
}

/// The mark of the next frame.
fn stamp() -> FrameStamp {
    FrameStamp {
        id: new_message_id(),
        at: now(),
    }
}

async fn send_goodbye(link: Option<(LinkHandle, Receiver<LinkEvent>)>, reason: &str) {
    if let Some((link, _events)) = link
        && let Err(error) = link.goodbye(reason).await
    {
        debug!(%error, "a goodbye was not received");
    }
}

/// Waits for the link's next event; for ever while there is no link.
async fn next_event(link: &mut Option<(LinkHandle, Receiver<LinkEvent>)>) -> Option<LinkEvent> {
    match link {
        Some((_, events)) => events.recv().await,
        None => std::future::pending().await,
    }
}
