//! The nats-server that `up` starts beside itself: found and checked, configured with one user per role, started,
//! supervised, and never left behind.

pub(crate) mod deathsig;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;
use quintet_bus::{Credentials, Secret};
use quintet_contract::id::AgentId;
use quintet_contract::permission::{self, NatsConf, NatsUser, Password, Role};
use quintet_contract::subject::Prefix;
use quintet_service::telemetry::chain;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::cli::exit::{self, Failure};
use crate::client::connection::Connection;
use crate::launch::data_dir::{DataDir, NATS_CONF};
use crate::settings::bus::RoleCredentials;

/// The oldest server that has what we use.
const OLDEST: (u32, u32) = (2, 12);
/// How long a program may take to print its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);
/// How long a server may take to answer after its start; it may have a large store to read.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a port may still be taken by the server of a program that was killed a moment ago.
const PORT_DEADLINE: Duration = Duration::from_secs(3);
/// How many free ports are tried: another program may take one before the server does.
const PORT_TRIES: u32 = 3;
/// How long it may take to end when asked.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How often a start or an end is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// First wait before a server that died is started again; it doubles up to [`RESTART_MAX`].
const RESTART_MIN: Duration = Duration::from_millis(100);
/// Longest such wait.
const RESTART_MAX: Duration = Duration::from_secs(5);

/// What the server is to be.
#[derive(Clone, Debug)]
pub struct NatsPlan {
    /// The program.
    pub program: PathBuf,
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// How often its store is forced to disk.
    pub sync_interval: String,
    /// First part of every subject and bucket.
    pub prefix: Prefix,
    /// The agents that have a user of their own.
    pub agents: Vec<AgentId>,
}

/// A nats-server of our own.
#[derive(Debug)]
pub struct EmbeddedNats {
    /// Its address.
    pub url: String,
    /// The credentials of its users.
    pub credentials: RoleCredentials,
    /// Asks the thread that supervises the server to end it.
    stop: Option<mpsc::Sender<()>>,
    ended: oneshot::Receiver<()>,
}

impl EmbeddedNats {
    /// Starts a server on the folder's store and waits until it answers.
    pub async fn start(data: &DataDir, plan: NatsPlan) -> anyhow::Result<Self> {
        check_version(&plan.program).await?;
        if plan.port != 0 {
            require_free(plan.port).await?;
            return Self::start_on(data, &plan, plan.port).await;
        }
        let mut tries = PORT_TRIES;
        loop {
            let port = free_port()?;
            let started = Self::start_on(data, &plan, port).await;
            tries -= 1;
            if started.is_ok() || tries == 0 || is_free(port) {
                return started;
            }
        }
    }

    async fn start_on(data: &DataDir, plan: &NatsPlan, port: u16) -> anyhow::Result<Self> {
        let passwords = write_conf(data, plan, port)?;
        let url = format!("nats://127.0.0.1:{port}");
        let log = data.join("nats.log");
        let launch = Launch {
            program: plan.program.clone(),
            conf: data.join(NATS_CONF),
            log: log.clone(),
        };
        let (stop, stops) = mpsc::channel();
        let (failed, failure) = oneshot::channel();
        let (done, ended) = oneshot::channel();
        // The kernel ties the server to the thread that starts it; this one runs as long as the server is wanted.
        std::thread::Builder::new()
            .name("nats-server".to_owned())
            .spawn(move || {
                launch.supervise(&stops, failed);
                let _ = done.send(());
            })
            .context("cannot start the thread that supervises nats-server")?;
        tokio::select! {
            biased;
            Ok(error) = failure => return Err(error),
            answers = wait_until_it_answers(port, &log) => answers?,
        }
        info!(url, "started nats-server");
        data.write_connection(&Connection {
            url: url.clone(),
            users: passwords.clone(),
        })?;
        Ok(Self {
            url,
            credentials: credentials(&passwords, &plan.agents),
            stop: Some(stop),
            ended,
        })
    }

    /// Ends the server, after all clients of it have ended.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        let _ = (&mut self.ended).await;
    }
}

/// Writes the server's configuration, and returns the password of every user in it.
fn write_conf(
    data: &DataDir,
    plan: &NatsPlan,
    port: u16,
) -> anyhow::Result<BTreeMap<String, String>> {
    let users = users(data, &plan.agents)?;
    let passwords = users
        .iter()
        .map(|user| (user.role.user(), user.password.text().to_owned()))
        .collect();
    let conf = NatsConf {
        listen: format!("127.0.0.1:{port}"),
        store_dir: data.join("nats").display().to_string(),
        sync_interval: plan.sync_interval.clone(),
        prefix: plan.prefix.clone(),
        users,
    };
    data.write_secret(NATS_CONF, permission::render_nats_conf(&conf).as_bytes())?;
    Ok(passwords)
}

fn credentials(passwords: &BTreeMap<String, String>, agents: &[AgentId]) -> RoleCredentials {
    let of = |role: Role| {
        let user = role.user();
        let password = Secret::new(passwords.get(&user).cloned().unwrap_or_default());
        Credentials::UserPassword { user, password }
    };
    let agents = agents.iter().cloned().map(Role::Agent);
    let roles = Role::SERVICES.into_iter().chain(agents);
    RoleCredentials::Each(roles.map(|role| (role.clone(), of(role))).collect())
}

/// One user per role, and one per agent that is started here.
fn users(data: &DataDir, agents: &[AgentId]) -> anyhow::Result<Vec<NatsUser>> {
    let agents = agents.iter().cloned().map(Role::Agent);
    let roles: Vec<Role> = Role::SERVICES.into_iter().chain(agents).collect();
    let names: Vec<String> = roles.iter().map(Role::user).collect();
    let passwords = data.passwords(&names)?;
    let user = |role: Role| {
        let password = passwords.get(&role.user()).cloned().unwrap_or_default();
        NatsUser {
            role,
            password: Password::Literal(password),
        }
    };
    Ok(roles.into_iter().map(user).collect())
}

/// How the server is started, every time.
struct Launch {
    program: PathBuf,
    conf: PathBuf,
    log: PathBuf,
}

impl Launch {
    /// Keeps the server running until it is asked to stop, or until its owner is dropped. A server that
    /// ends while its start is still waited for (`failed` has a receiver) is not started again: it would only end again.
    fn supervise(&self, stops: &mpsc::Receiver<()>, failed: oneshot::Sender<anyhow::Error>) {
        let mut failed = Some(failed);
        let mut wait = RESTART_MIN;
        loop {
            let began = Instant::now();
            let error = match self.spawn().map(|child| watch(child, stops)) {
                Ok(Ended::Asked) => return,
                Ok(Ended::ByItself(status)) => self.ended(status),
                Err(error) => error,
            };
            let Some(error) = unreceived(failed.take(), error) else {
                return;
            };
            warn!(error = %chain(error.as_ref()), "starting nats-server again");
            if began.elapsed() > RESTART_MAX {
                wait = RESTART_MIN;
            }
            if !matches!(stops.recv_timeout(wait), Err(RecvTimeoutError::Timeout)) {
                return;
            }
            wait = (wait * 2).min(RESTART_MAX);
        }
    }

    fn ended(&self, status: ExitStatus) -> anyhow::Error {
        let (log, last) = (self.log.display(), last_line(&self.log));
        anyhow::anyhow!("nats-server ended ({status}); its log {log} ends with: {last}")
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot open {}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(&self.conf)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A signal to our group reaches us only: we end the server last, when nothing needs it any more.
            .process_group(0);
        deathsig::die_with_this_thread(&mut command);
        command
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))
    }
}

/// Sends a failure to the start that waits for it; gives it back when that has ended.
fn unreceived(
    failed: Option<oneshot::Sender<anyhow::Error>>,
    error: anyhow::Error,
) -> Option<anyhow::Error> {
    match failed {
        Some(failed) => failed.send(error).err(),
        None => Some(error),
    }
}

/// How a server ended.
enum Ended {
    Asked,
    ByItself(ExitStatus),
}

fn watch(mut child: Child, stops: &mpsc::Receiver<()>) -> Ended {
    loop {
        if !matches!(
            stops.recv_timeout(POLL_INTERVAL),
            Err(RecvTimeoutError::Timeout)
        ) {
            end(&mut child);
            return Ended::Asked;
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Ended::ByItself(status);
        }
    }
}

/// Asks the server to end, and kills it when it does not.
fn end(child: &mut Child) {
    if let Some(id) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(id, Signal::TERM);
    }
    let until = Instant::now() + STOP_DEADLINE;
    while Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    warn!("nats-server did not end in time, killing it");
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits until the server takes connections; fails with the last line of its log when it does not.
async fn wait_until_it_answers(port: u16, log: &Path) -> anyhow::Result<()> {
    let until = Instant::now() + START_DEADLINE;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    while Instant::now() < until {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        sleep(POLL_INTERVAL).await;
    }
    anyhow::bail!(
        "nats-server does not answer on port {port}; its log {} ends with: {}",
        log.display(),
        last_line(log)
    )
}

/// The last line of a program's log.
pub(crate) fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    last.unwrap_or("nothing").to_owned()
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot find a free port")?;
    Ok(listener.local_addr()?.port())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Refuses a port that another program listens on, once it is clear that it will not go away.
async fn require_free(port: u16) -> anyhow::Result<()> {
    let until = Instant::now() + PORT_DEADLINE;
    while !is_free(port) {
        if Instant::now() > until {
            let text = format!(
                "nats-server cannot listen on port {port}, which another program uses; name another with --nats-port, or \
                 use that NATS with --nats-url nats://127.0.0.1:{port}"
            );
            return Err(Failure::new(exit::FAILED, text).into());
        }
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// The version of a server; one that is missing or too old is refused, with what to do about it.
pub(crate) async fn check_version(program: &Path) -> anyhow::Result<String> {
    let name = program.display();
    let refused = |what: String| {
        let text = format!(
            "{what}. Install 2.12 or newer: `go install github.com/nats-io/nats-server/v2@latest`, or run \
             `docker run --rm -p 4222:4222 nats:latest -js` and set NATS_URL=nats://127.0.0.1:4222, or name one with \
             --nats-server"
        );
        Failure::new(exit::FAILED, text)
    };
    let mut command = tokio::process::Command::new(program);
    let command = command
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = match timeout(VERSION_DEADLINE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(refused(format!("there is no {name}")).into());
        }
        Ok(Err(error)) => return Err(refused(format!("cannot start {name}, {error}")).into()),
        Err(_) => return Err(refused(format!("{name} does not print its version")).into()),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.split_whitespace().last().unwrap_or_default();
    let found = last.trim_start_matches('v');
    let mut numbers = found.split('.').map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST {
        return Err(refused(format!("{name} is version {found:?}, which is too old")).into());
    }
    Ok(found.to_owned())
}
