//! Checks of NATS and of the services on it.

use std::path::Path;
use std::time::Duration;

use quintet_bus::{Bus, Condition, RequestError};
use quintet_contract::agent::AgentState;
use quintet_contract::api::ListAgents;
use quintet_contract::id::PoolName;
use quintet_contract::subject::ListAgentsOf;
use quintet_service::telemetry::chain;
use tokio::time::timeout;

use super::finding::{Findings, State};
use crate::client::nats::connect;
use crate::settings::nats::NatsSettings;

/// How long one check may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Checks NATS, the streams on it, the scheduler of a pool and its agents.
pub(super) async fn check(
    nats: &NatsSettings,
    data_dir: &Path,
    pool: &PoolName,
    findings: &mut Findings,
) {
    let bus = match connect(nats, data_dir).await {
        Ok(bus) => bus,
        Err(error) => {
            let message = chain(error.as_ref()).to_string();
            findings.add("nats", "NATS", State::Fail, message);
            let because = "NATS does not answer";
            findings.skip("stream", "streams", because);
            findings.skip("scheduler", scheduler_of(pool), because);
            findings.skip("agents", "agents", because);
            return;
        }
    };
    let version = format!("version {}", bus.server_version());
    findings.add("nats", "NATS", State::Ok, version);
    match timeout(TIMEOUT, bus.verify_topology()).await {
        Ok(Ok(report)) => {
            for stream in report.streams {
                let (state, message) = match &stream.condition {
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
                findings.add("stream", stream.name, state, message);
            }
        }
        Ok(Err(error)) => {
            findings.add("stream", "streams", State::Fail, chain(&error).to_string());
        }
        Err(_) => findings.add(
            "stream",
            "streams",
            State::Fail,
            "NATS does not answer in time",
        ),
    }
    scheduler(&bus, pool, findings).await;
}

/// Requests what an edge would request: it takes permission, a leader, and an answer in time.
async fn scheduler(bus: &Bus, pool: &PoolName, findings: &mut Findings) {
    let (pool, what) = (pool.clone(), scheduler_of(pool));
    let answer = bus
        .request(&ListAgentsOf { pool }, &ListAgents { after: None }, TIMEOUT)
        .await;
    match answer {
        Ok(page) => {
            let offline = |state| matches!(state, AgentState::Offline);
            let online = page.agents.iter().filter(|agent| !offline(agent.state));
            let (online, more) = (online.count(), if page.next.is_some() { "+" } else { "" });
            findings.add("scheduler", what, State::Ok, "leads, and answers");
            let (state, advice) = match online {
                0 => (State::Warn, "; jobs wait until one is started"),
                _ => (State::Ok, ""),
            };
            let message = format!("{online}{more} online{advice}");
            findings.add("agents", "agents", state, message);
        }
        Err(error) => {
            let message = match &error {
                RequestError::NoResponders { .. } => {
                    "no scheduler leads; start `quintet serve scheduler`, or wait 2 s for \
                                                      another to take over"
                        .to_owned()
                }
                RequestError::Timeout { .. } => {
                    format!("{error}; perhaps this NATS user may not ask: use the user operator")
                }
                _ => chain(&error).to_string(),
            };
            findings.add("scheduler", what, State::Fail, message);
            findings.skip("agents", "agents", "no scheduler answers");
        }
    }
}

fn scheduler_of(pool: &PoolName) -> String {
    format!("scheduler of pool {pool}")
}
