//! Settings of an agent.

use std::path::PathBuf;

use quintet_agent::AgentConfig;
use quintet_contract::id::AgentId;
use quintet_service::settings::{Reader, Setting};

use super::environment::{self, AGENT_ENV};
use super::process::host;
use super::shared::{POOL, STOP_GRACE, WORK_DIR, pool, setting};

/// The settings of this file, and those that an agent shares with others.
pub(crate) const TABLE: &[Setting] = &[
    setting(
        "agent_id",
        "AGENT_ID",
        None,
        "id of the agent, stable over restarts; the host name without it",
    ),
    POOL,
    setting(
        "agent_name",
        "AGENT_NAME",
        None,
        "what people call the agent",
    ),
    setting(
        "agent_slots",
        "AGENT_SLOTS",
        Some("4"),
        "how many jobs the agent runs at once",
    ),
    setting(
        "agent_labels",
        "AGENT_LABELS",
        None,
        "labels of the agent, as name=value, separated by commas",
    ),
    setting(
        "agent_tags",
        "AGENT_TAGS",
        None,
        "tags of the agent, separated by commas",
    ),
    setting(
        "agent_max_resolution",
        "AGENT_MAX_RESOLUTION",
        None,
        "largest resolution of the agent: 360p, 480p, 720p, 1080p, 1440p or 2160p",
    ),
    setting(
        "agent_executors",
        "AGENT_EXECUTORS",
        Some("exec,ffmpeg,noop"),
        "what the agent may run, separated by commas; jobs for other executors are refused",
    ),
    setting(
        "stall_timeout_ms",
        "STALL_TIMEOUT_MS",
        Some("15000"),
        "an encoder whose frames and bytes stand still for this long has stalled",
    ),
    setting(
        "ffmpeg",
        "FFMPEG",
        Some("ffmpeg"),
        "the ffmpeg that agents start",
    ),
    STOP_GRACE,
    WORK_DIR,
    AGENT_ENV,
];

/// Reads [`TABLE`].
pub(crate) fn read(read: &mut Reader<'_>) -> AgentConfig {
    let mut agent = AgentConfig::new(default_agent());
    if let Some(id) = read.parse_optional::<AgentId>("agent_id") {
        agent.agent = id;
    }
    agent.name = read
        .optional("agent_name")
        .unwrap_or_else(|| agent.agent.to_string());
    agent.pool = pool(read);
    agent.slots = read.parse("agent_slots");
    read.check("agent_slots", agent.slots > 0, "must be 1 or more");
    for label in read.list("agent_labels") {
        match label.split_once('=') {
            Some((name, value)) => drop(
                agent
                    .labels
                    .insert(name.trim().to_owned(), value.trim().to_owned()),
            ),
            None => read.check(
                "agent_labels",
                false,
                "expected name=value, separated by commas",
            ),
        }
    }
    agent.tags = read.list("agent_tags");
    if let Some(text) = read.optional("agent_max_resolution") {
        match serde_json::from_value(serde_json::Value::String(text)) {
            Ok(resolution) => agent.max_resolution = Some(resolution),
            Err(_) => read.check(
                "agent_max_resolution",
                false,
                "expected 360p, 480p, 720p, 1080p, 1440p or 2160p",
            ),
        }
    }
    agent.executors = read.parse_list("agent_executors").into_iter().collect();
    let runs_any = !agent.executors.is_empty();
    read.check("agent_executors", runs_any, "must name an executor");
    agent.stall_timeout = read.millis("stall_timeout_ms");
    agent.ffmpeg = PathBuf::from(read.text("ffmpeg"));
    agent.drain_grace = read.millis("stop_grace_ms");
    if let Some(folder) = read.optional("work_dir") {
        agent.work_dir = folder.into();
    }
    agent.reaper = std::env::current_exe().ok();
    agent.environment = environment::filter(read);
    agent
}

/// The host's name; of one without a usable name, a word.
fn default_agent() -> AgentId {
    AgentId::parse(host())
        .or_else(|_| AgentId::parse("agent"))
        .unwrap_or_else(|_| unreachable!("a word is a name"))
}
