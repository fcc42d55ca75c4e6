//! Thousands of agents that only send heartbeats: what they cost the scheduler, and how soon one that falls silent
//! is missed. The scheduler is a process of its own here, so that its processor time can be measured apart from ours.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::StreamExt;
use quintet_bus::{Bus, new_session};
use quintet_contract::agent::{AgentReport, AgentReports, AgentState, Heartbeat, Hello};
use quintet_contract::api::{AgentRef, SubmitJob};
use quintet_contract::id::{AgentId, AgentSession, PoolName};
use quintet_contract::permission::Role;
use quintet_contract::subject::{AgentHeartbeat, AgentReporting, GetAgent, SubmitJobs};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use crate::process::{Parts, processor_time};
use crate::{Measured, TIMEOUT, push, spinner};

/// How many there are.
const AGENTS: usize = 10_000;
/// How often each sends a heartbeat.
const EVERY: Duration = Duration::from_secs(3);
/// How many rounds of heartbeats are measured.
const ROUNDS: u32 = 4;
/// Silence after which an agent is lost, as configured by default.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);
/// Hellos in flight at once.
const IN_FLIGHT: usize = 256;

struct ManyAgents<'a> {
    bus: &'a Bus,
    agents: Vec<(AgentId, AgentSession)>,
}

pub(crate) async fn measure(
    parts: &Parts<'_>,
    bus: &Bus,
    results: &mut Vec<Measured>,
) -> anyhow::Result<()> {
    let bar = spinner("ten thousand agents");
    let mut scheduler = parts.serve(Role::Scheduler, &[], Stdio::null())?;
    let agents = ManyAgents {
        bus,
        agents: (0..AGENTS)
            .map(|number| anyhow::Ok((AgentId::parse(format!("agent-{number}"))?, new_session())))
            .collect::<Result<_, _>>()?,
    };
    agents.join().await?;
    agents.submit_unplaceable_job().await?;
    let pid = scheduler.id().context("the scheduler has ended")?;
    let (before, began) = (processor_time(pid)?, Instant::now());
    let mut silent_since = began;
    for round in 0..ROUNDS {
        // In the last round the first agent sends nothing any more.
        let skip = usize::from(round + 1 == ROUNDS);
        agents.round(round, skip).await?;
        if skip == 0 {
            silent_since = Instant::now() - EVERY;
        }
    }
    let share = (processor_time(pid)? - before).as_secs_f64() / began.elapsed().as_secs_f64();
    let what = format!(
        "{AGENTS} agents with a heartbeat every 3 s, one job no agent can serve, share of a core"
    );
    push(results, &what, share * 100.0, "%", None);
    let missed = agents.until_missed(silent_since, ROUNDS).await?;
    let what = "an agent that fell silent was missed, after its timeout";
    let late = missed.saturating_sub(HEARTBEAT_TIMEOUT).as_secs_f64() * 1000.0;
    push(results, what, late, "ms", None);
    scheduler.kill().await?;
    bar.finish_and_clear();
    Ok(())
}

impl ManyAgents<'_> {
    async fn join(&self) -> anyhow::Result<()> {
        let capabilities = json!({"slots": 1});
        let hello = Hello {
            name: String::new(),
            version: "1".to_owned(),
            capabilities: capabilities.as_object().cloned().unwrap_or_default(),
            drain: false,
            active_jobs: Vec::new(),
            meta: Default::default(),
        };
        let joining = futures::stream::iter(&self.agents).map(async |(agent, session)| {
            let subject = AgentReporting {
                agent: agent.clone(),
                pool: PoolName::default(),
            };
            let hello = AgentReport::Hello {
                hello: hello.clone(),
            };
            let reports = AgentReports {
                session: *session,
                clock: 1,
                reports: vec![hello],
            };
            let answer = self.bus.request_until(&subject, &reports, TIMEOUT).await;
            answer.map(drop)
        });
        let mut joined = joining.buffer_unordered(IN_FLIGHT);
        while let Some(answer) = joined.next().await {
            answer?;
        }
        Ok(())
    }

    /// A job that waits for an agent which never comes must not make every heartbeat a search through all agents.
    async fn submit_unplaceable_job(&self) -> anyhow::Result<()> {
        let subject = SubmitJobs {
            pool: PoolName::default(),
        };
        let wanted = json!({"inlineConfig": {"executor": "noop"}, "requirements": {"labels": {"for": "no agent"}}});
        let submit: SubmitJob = serde_json::from_value(wanted)?;
        self.bus.request_until(&subject, &submit, TIMEOUT).await?;
        Ok(())
    }

    /// One heartbeat of each but the first `skip`, evenly over the time of a round.
    async fn round(&self, round: u32, skip: usize) -> anyhow::Result<()> {
        const STEPS: usize = 300;
        let mut ticks = interval(EVERY / STEPS as u32);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for part in self.agents.chunks(AGENTS.div_ceil(STEPS)) {
            ticks.tick().await;
            let beats = part
                .iter()
                .filter(|(agent, _)| skip == 0 || *agent != self.agents[0].0)
                .map(|(agent, session)| self.beat(agent, *session, round));
            futures::future::try_join_all(beats).await?;
        }
        Ok(())
    }

    async fn beat(&self, agent: &AgentId, session: AgentSession, round: u32) -> anyhow::Result<()> {
        let subject = AgentHeartbeat {
            agent: agent.clone(),
            pool: PoolName::default(),
        };
        let heartbeat = Heartbeat {
            session,
            clock: u64::from(round) + 2,
            jobs: Some(Vec::new()),
            metrics: Default::default(),
        };
        self.bus.request(&subject, &heartbeat, TIMEOUT).await?;
        Ok(())
    }

    /// How long after its last heartbeat the first agent is shown as offline; the others continue meanwhile.
    async fn until_missed(&self, silent_since: Instant, rounds: u32) -> anyhow::Result<Duration> {
        let subject = GetAgent {
            pool: PoolName::default(),
        };
        let first = AgentRef {
            id: self.agents[0].0.clone(),
        };
        let watching = async {
            let mut ticks = interval(Duration::from_millis(20));
            loop {
                ticks.tick().await;
                let found = self.bus.request(&subject, &first, TIMEOUT).await?;
                if found.agent.state == AgentState::Offline {
                    return anyhow::Ok(silent_since.elapsed());
                }
            }
        };
        let others = async {
            let mut round = rounds;
            loop {
                if let Err(error) = self.round(round, 1).await {
                    return error;
                }
                round += 1;
            }
        };
        tokio::select! {
            missed = watching => missed,
            error = others => Err(error),
        }
    }
}
