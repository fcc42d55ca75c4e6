//! `quintet doctor`: looks at everything and says what to do about what is wrong.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use quintet_bus::{Bus, Condition, RequestError};
use quintet_contract::agent::AgentState;
use quintet_contract::api::ListAgents;
use quintet_contract::id::PoolName;
use quintet_contract::subject::ListAgentsOf;
use quintet_service::settings::{Reader, Setting};
use quintet_service::telemetry::chain;
use reqwest::Method;
use reqwest::header::{DATE, HeaderMap};
use serde::Serialize;
use tokio::process::Command;
use tokio::time::timeout;

use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::global::{Global, Output};
use crate::cli::stdout::emit;
use crate::client::http::Http;
use crate::client::nats::connect;
use crate::launch::data_dir::exposed;
use crate::launch::embedded_nats::check_version;
use crate::settings::nats::NatsSettings;
use crate::settings::{Flags, Groups, agent, nats, shared};

/// How long one check may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How far clocks may be apart: HTTP tells whole seconds, and deadlines travel in wall-clock time.
const CLOCK_TOLERANCE_S: i64 = 2;

/// The settings of everything that is checked.
#[derive(Clone, Debug)]
pub(crate) struct DoctorGroups;

impl Groups for DoctorGroups {
    const TABLES: &'static [&'static [Setting]] = &[
        nats::TABLE,
        nats::RETENTION,
        shared::DATA_DIR,
        nats::EMBEDDED,
        agent::TABLE,
    ];
}

struct DoctorSettings {
    nats: NatsSettings,
    nats_server: PathBuf,
    data_dir: PathBuf,
    pool: PoolName,
    ffmpeg: PathBuf,
}

impl DoctorSettings {
    fn read(read: &mut Reader<'_>) -> Self {
        let agent = agent::read(read);
        Self {
            nats: nats::read_of_owner(read),
            nats_server: nats::read_embedded(read).program,
            data_dir: PathBuf::from(read.text("data_dir")),
            pool: agent.pool,
            ffmpeg: agent.ffmpeg,
        }
    }
}

#[derive(Args)]
pub(crate) struct DoctorCommand {
    #[command(flatten)]
    flags: Flags<DoctorGroups>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    what: String,
    state: State,
    says: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

pub(crate) async fn run(command: DoctorCommand, global: &Global) -> Outcome {
    let config = command.flags.read(DoctorSettings::read)?.settings;
    let mut findings = Vec::new();
    bus(&config, &mut findings).await;
    edge(global, &mut findings).await;
    programs(&config, &mut findings).await;
    data_dir(&config.data_dir, &mut findings);
    match global.output {
        Output::Json => emit(serde_json::to_string_pretty(&findings)?),
        Output::Table => {
            for Finding { what, state, says } in &findings {
                let mark = match state {
                    State::Ok => "ok  ",
                    State::Warn => "warn",
                    State::Fail => "FAIL",
                };
                emit(format_args!("{mark}  {what:<28} {says}"));
            }
        }
    }
    let failed = findings
        .iter()
        .filter(|finding| finding.state == State::Fail)
        .count();
    match failed {
        0 => Ok(()),
        count => Err(Failure::new(
            exit::FAILED,
            format!("{count} of {} checks failed", findings.len()),
        )
        .into()),
    }
}

fn note(findings: &mut Vec<Finding>, what: &str, state: State, says: impl Into<String>) {
    findings.push(Finding {
        what: what.to_owned(),
        state,
        says: says.into(),
    });
}

async fn bus(config: &DoctorSettings, findings: &mut Vec<Finding>) {
    let bus = match connect(&config.nats, &config.data_dir).await {
        Ok(bus) => bus,
        Err(error) => {
            return note(
                findings,
                "NATS",
                State::Fail,
                chain(error.as_ref()).to_string(),
            );
        }
    };
    note(
        findings,
        "NATS",
        State::Ok,
        format!("version {}", bus.server_version()),
    );
    match timeout(TIMEOUT, bus.verify_topology()).await {
        Ok(Ok(report)) => {
            for stream in report.streams {
                let (state, says) = match &stream.condition {
                    Condition::Ok => (
                        State::Ok,
                        format!("{:?}, {} copies", stream.durability, stream.replicas),
                    ),
                    Condition::Differs(how) => (
                        State::Warn,
                        format!("is not as configured: {}", how.join("; ")),
                    ),
                    Condition::Leaderless => (
                        State::Fail,
                        "has no leader; if that lasts, look at the other servers of the cluster"
                            .to_owned(),
                    ),
                    Condition::Missing => (
                        State::Fail,
                        "is missing; start a scheduler, which creates it".to_owned(),
                    ),
                };
                note(findings, &stream.name, state, says);
            }
        }
        Ok(Err(error)) => note(findings, "streams", State::Fail, chain(&error).to_string()),
        Err(_) => note(
            findings,
            "streams",
            State::Fail,
            "NATS does not answer in time",
        ),
    }
    scheduler(&bus, config, findings).await;
}

/// Asks what an edge would ask: it takes permission, a leader, and an answer in time.
async fn scheduler(bus: &Bus, config: &DoctorSettings, findings: &mut Vec<Finding>) {
    let pool = config.pool.clone();
    let what = format!("scheduler of pool {pool}");
    let asked = bus
        .request(&ListAgentsOf { pool }, &ListAgents { after: None }, TIMEOUT)
        .await;
    match asked {
        Ok(page) => {
            let offline = |state| matches!(state, AgentState::Offline);
            let online = page.agents.iter().filter(|agent| !offline(agent.state));
            let (online, more) = (online.count(), if page.next.is_some() { "+" } else { "" });
            note(findings, &what, State::Ok, "leads, and answers");
            let (state, advice) = match online {
                0 => (State::Warn, "; jobs wait until one is started"),
                _ => (State::Ok, ""),
            };
            note(
                findings,
                "agents",
                state,
                format!("{online}{more} online{advice}"),
            );
        }
        Err(RequestError::NoResponders { .. }) => note(
            findings,
            &what,
            State::Fail,
            "nobody leads; start `quintet serve scheduler`, or wait 2 s for another to take over",
        ),
        Err(error @ RequestError::Timeout { .. }) => {
            let says =
                format!("{error}; perhaps this NATS user may not ask: use the user operator");
            note(findings, &what, State::Fail, says);
        }
        Err(error) => note(findings, &what, State::Fail, chain(&error).to_string()),
    }
}

async fn edge(global: &Global, findings: &mut Vec<Finding>) {
    let what = format!("edge {}", global.url);
    let http = match Http::new(&global.url, global.token.clone()) {
        Ok(http) => http,
        Err(error) => return note(findings, &what, State::Fail, error.to_string()),
    };
    match timeout(TIMEOUT, http.send(http.request(Method::GET, "/ready"))).await {
        Ok(Ok(response)) => {
            note(findings, &what, State::Ok, "ready");
            clock(response.headers(), findings);
        }
        Ok(Err(error)) => note(
            findings,
            &what,
            State::Fail,
            chain(error.as_ref()).to_string(),
        ),
        Err(_) => note(findings, &what, State::Fail, "does not answer in time"),
    }
}

/// Compares the clock with that of the edge.
fn clock(headers: &HeaderMap, findings: &mut Vec<Finding>) {
    let told = headers.get(DATE).and_then(|date| date.to_str().ok());
    let Some(told) = told.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok()) else {
        return note(
            findings,
            "clock",
            State::Warn,
            "the edge does not tell its time",
        );
    };
    let apart = Timestamp::now().as_second() - told.as_second();
    if apart.abs() <= CLOCK_TOLERANCE_S {
        return note(findings, "clock", State::Ok, "agrees with the edge's");
    }
    let way = if apart > 0 { "ahead of" } else { "behind" };
    let says = format!(
        "{} s {way} the edge's; synchronize both (chrony, systemd-timesyncd)",
        apart.abs()
    );
    note(findings, "clock", State::Warn, says);
}

/// What `up` keeps must be for its owner's eyes.
fn data_dir(folder: &Path, findings: &mut Vec<Finding>) {
    let what = format!("data folder {}", folder.display());
    if !folder.exists() {
        return note(
            findings,
            &what,
            State::Ok,
            "not there yet; `quintet up` makes it",
        );
    }
    match exposed(folder).as_slice() {
        [] => note(
            findings,
            &what,
            State::Ok,
            "its secrets are its owner's only",
        ),
        files => {
            let says = format!(
                "others may read {}; run chmod 600 on them",
                files.join(", ")
            );
            note(findings, &what, State::Fail, says);
        }
    }
}

async fn programs(config: &DoctorSettings, findings: &mut Vec<Finding>) {
    if config.nats.url.is_none() {
        let what = config.nats_server.display().to_string();
        match check_version(&config.nats_server).await {
            Ok(version) => note(findings, &what, State::Ok, format!("version {version}")),
            Err(error) => note(findings, &what, State::Warn, error.to_string()),
        }
    }
    for program in [config.ffmpeg.as_path(), Path::new("ffprobe")] {
        let what = program.display().to_string();
        let asked = Command::new(program)
            .arg("-version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await;
        match asked {
            Ok(status) if status.success() => note(findings, &what, State::Ok, "found"),
            _ => note(
                findings,
                &what,
                State::Warn,
                "not found; jobs that record video need it: sudo apt-get install ffmpeg",
            ),
        }
    }
}
