//! The nats-server that `up` starts beside itself: found and checked, configured with one user per role, started,
//! supervised, and never left behind.

mod deathsig;

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
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::data::{Connection, DataDir};
use crate::exit::{self, Failure};
use crate::system::{RoleCredentials, Speaker};

/// The oldest server that has what we use.
const OLDEST: (u32, u32) = (2, 12);
/// How long a server may take to answer after its start; it may have a large store to read.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long it may take to end when asked.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How often a start or an end is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// First wait before a server that died is started again; it doubles up to [`RESTART_MAX`].
const RESTART_MIN: Duration = Duration::from_millis(100);
/// Longest such wait.
const RESTART_MAX: Duration = Duration::from_secs(5);

/// What the server is to be.
#[derive(Clone, Debug)]
pub(crate) struct NatsPlan {
    pub(crate) program: PathBuf,
    pub(crate) port: u16,
    pub(crate) sync_interval: String,
    pub(crate) prefix: Prefix,
    pub(crate) agents: Vec<AgentId>,
}

/// A nats-server of our own.
#[derive(Debug)]
pub(crate) struct OwnNats {
    pub(crate) url: String,
    pub(crate) credentials: RoleCredentials,
    /// Tells the thread that looks after the server to end it.
    stop: Option<mpsc::Sender<()>>,
    ended: oneshot::Receiver<()>,
}

impl OwnNats {
    /// Starts a server on the folder's store and waits until it answers.
    pub(crate) async fn start(data: &DataDir, plan: NatsPlan) -> anyhow::Result<Self> {
        check_version(&plan.program)?;
        let port = match plan.port {
            0 => free_port()?,
            port => port,
        };
        let users = users(data, &plan.agents)?;
        let passwords: BTreeMap<String, String> = users
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
        data.write_secret("nats.conf", permission::render_nats_conf(&conf).as_bytes())?;
        let url = format!("nats://127.0.0.1:{port}");
        let launch = Launch {
            program: plan.program,
            conf: data.join("nats.conf"),
            log: data.join("nats.log"),
        };
        let (stop, stops) = mpsc::channel();
        let (started, first) = oneshot::channel();
        let (done, ended) = oneshot::channel();
        // The kernel ties the server to the thread that starts it; this one lives as long as the server is wanted.
        std::thread::Builder::new()
            .name("nats-server".to_owned())
            .spawn(move || {
                launch.look_after(&stops, started);
                let _ = done.send(());
            })
            .context("cannot start the thread that looks after nats-server")?;
        first
            .await
            .context("the thread that looks after nats-server ended")??;
        wait_until_it_answers(port, &data.join("nats.log")).await?;
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

    /// Ends the server, after everybody who uses it has ended.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        let _ = (&mut self.ended).await;
    }
}

fn credentials(passwords: &BTreeMap<String, String>, agents: &[AgentId]) -> RoleCredentials {
    let of = |role: Role| {
        let user = role.user();
        let password = Secret::new(passwords.get(&user).cloned().unwrap_or_default());
        Credentials::UserPassword { user, password }
    };
    let agents = agents.iter().map(|agent| {
        (
            Speaker::Agent(agent.clone()),
            of(Role::Agent(agent.clone())),
        )
    });
    let services = [
        (Speaker::Edge, of(Role::Edge)),
        (Speaker::Scheduler, of(Role::Scheduler)),
    ];
    RoleCredentials::Each(agents.chain(services).collect())
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
    /// Keeps the server running until it is told to stop, or until nobody is there any more to tell it.
    fn look_after(&self, stops: &mpsc::Receiver<()>, first: oneshot::Sender<anyhow::Result<()>>) {
        let mut first = Some(first);
        let mut wait = RESTART_MIN;
        loop {
            let began = Instant::now();
            match (self.spawn(), first.take()) {
                (Ok(child), first) => {
                    if let Some(first) = first {
                        let _ = first.send(Ok(()));
                    }
                    match watch(child, stops) {
                        Ended::Asked => return,
                        Ended::ByItself(status) => {
                            warn!(%status, "nats-server ended, starts it again")
                        }
                    }
                }
                (Err(error), Some(first)) => return drop(first.send(Err(error))),
                (Err(error), None) => warn!(%error, "cannot start nats-server again yet"),
            }
            if began.elapsed() > RESTART_MAX {
                wait = RESTART_MIN;
            }
            if !matches!(stops.recv_timeout(wait), Err(RecvTimeoutError::Timeout)) {
                return;
            }
            wait = (wait * 2).min(RESTART_MAX);
        }
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
            // A signal to our group reaches us only: we end the server last, when nobody needs it any more.
            .process_group(0);
        deathsig::die_with_this_thread(&mut command);
        command
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))
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
            stops.recv_timeout(LOOK_EVERY),
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
        std::thread::sleep(LOOK_EVERY);
    }
    warn!("nats-server did not end in time, kills it");
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits until the server takes connections; says what its log says when it does not.
async fn wait_until_it_answers(port: u16, log: &Path) -> anyhow::Result<()> {
    let until = Instant::now() + START_DEADLINE;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    while Instant::now() < until {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().last().unwrap_or("nothing");
    anyhow::bail!(
        "nats-server does not answer on port {port}; its log {} ends with: {last}",
        log.display()
    )
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot find a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Refuses a server that is missing or too old, with what to do about it.
fn check_version(program: &Path) -> anyhow::Result<()> {
    let advice = "Install 2.12 or newer: `go install github.com/nats-io/nats-server/v2@latest`, or run \
                  `docker run --rm -p 4222:4222 nats:latest -js` and set NATS_URL=nats://127.0.0.1:4222, or name one with \
                  --nats-server";
    let output = Command::new(program).arg("--version").output();
    let Ok(output) = output else {
        return Err(Failure::new(
            exit::FAILED,
            format!("there is no {}. {advice}", program.display()),
        )
        .into());
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text
        .split_whitespace()
        .last()
        .unwrap_or_default()
        .trim_start_matches('v')
        .to_owned();
    let mut numbers = found.split('.').map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST {
        let text = format!(
            "{} is version {found}, which is too old. {advice}",
            program.display()
        );
        return Err(Failure::new(exit::FAILED, text).into());
    }
    Ok(())
}
