//! Requests that the edge, the client and `nats request` send to services, and their replies.
//!
//! Every request is answered: with the reply named here, or with an [`ErrorReply`].

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::JsonObject;
use crate::agent::Agent;
use crate::capability::Requirements;
use crate::cause::CausedBy;
use crate::error::ErrorReply;
use crate::id::{AgentId, IdempotencyKey, JobId, PoolName, TemplateId};
use crate::job::{Job, JobStatus, RestartPolicy};
use crate::metadata::StreamMetadata;
use crate::template::Template;
use crate::time::Timestamp;

/// Most jobs of one batch.
pub const MAX_BATCH: usize = 1000;
/// Most jobs of one page of a list.
pub const MAX_PAGE: u32 = 1000;

/// A new job. Exactly one of `template_id` and `inline_config` is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("oneOf" = one_source()))]
pub struct SubmitJob {
    /// The id the job shall have: made by the edge, so that a request that is sent again stays one job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The stored template to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_id: Option<TemplateId>,
    /// The configuration to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline_config: Option<JsonObject>,
    /// Values for the template's places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<JsonObject>,
    /// One key, one job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// Whether it is started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// How often at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "whole")]
    #[schemars(range(max = u32::MAX))]
    pub max_restarts: Option<u32>,
    /// What it asks of its agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requirements: Option<Requirements>,
    /// Higher is placed first; 0 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "whole")]
    #[schemars(range(min = i32::MIN, max = i32::MAX))]
    pub priority: Option<i32>,
    /// Not to be placed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// The pool to place it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// What is already known about its stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<StreamMetadata>")]
    pub stream_metadata: Option<JsonObject>,
    /// Who submits it; the edge sets it from the caller's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// The piece of work that it is submitted for. Set by parts of the system; a value from a client of the edge is
    /// ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub caused_by: Option<CausedBy>,
    /// Refuse a known key whose first request differed from this one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
}

/// A whole number, also where it is written as `1.0`: JSON has one kind of number, and some clients write no other.
fn whole<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64>,
{
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let refused = || {
        let kind = std::any::type_name::<T>();
        de::Error::custom(format!("invalid number {number}, expected {kind}"))
    };
    // Every number that fits is far below 2^53, so that nothing is lost.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a cast saturates, and what is so large does not fit anyway"
    )]
    let found = number.as_i64().or_else(|| {
        number
            .as_f64()
            .filter(|f| f.fract() == 0.0)
            .map(|f| f as i64)
    });
    found
        .and_then(|found| T::try_from(found).ok())
        .map(Some)
        .ok_or_else(refused)
}

/// What [`SubmitJob::check`] asks, as a schema.
fn one_source() -> serde_json::Value {
    let only = |set: &str, kind: &str, unset: &str| {
        serde_json::json!({
            "required": [set],
            "properties": {set: {"type": kind}, unset: {"type": "null"}}
        })
    };
    serde_json::json!([
        only("templateId", "string", "inlineConfig"),
        only("inlineConfig", "object", "templateId")
    ])
}

impl SubmitJob {
    /// Checks what the types cannot: exactly one source of the configuration, and nothing nested without end.
    ///
    /// # Errors
    /// An [`ErrorReply`] of code `VALIDATION_FAILED` that names the field.
    pub fn check(&self) -> Result<(), ErrorReply> {
        if self.template_id.is_some() == self.inline_config.is_some() {
            return Err(ErrorReply::new(
                crate::error::ErrorCode::ValidationFailed,
                "Exactly one of templateId or inlineConfig is required",
            ));
        }
        for (field, object) in [
            ("inlineConfig", &self.inline_config),
            ("params", &self.params),
        ] {
            if let Some(object) = object {
                crate::nesting::check(field, object)?;
            }
        }
        if let Some(metadata) = &self.stream_metadata {
            crate::metadata::check(metadata)
                .map_err(|e| ErrorReply::invalid("streamMetadata", e.to_string()))?;
        }
        Ok(())
    }
}

/// A stored job, and whether this request made it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubmitReply {
    /// The job as it is now.
    pub job: Job,
    /// False when the idempotency key was seen before.
    pub created: bool,
}

/// Several new jobs of one pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubmitBatch {
    /// At most [`MAX_BATCH`].
    pub jobs: Vec<SubmitJob>,
}

/// One entry of a batch's answer: exactly one of the two is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchEntry {
    /// The job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<SubmitReply>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<ErrorReply>,
}

/// The answers to a batch, in its order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchReply {
    /// One per job.
    pub results: Vec<BatchEntry>,
}

/// Where a job would go now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DryRunReply {
    /// The agent that would get it, if any.
    pub placement: Option<Placement>,
    /// The agents that would not, and why.
    pub refused: Vec<AgentReason>,
}

/// A choice of agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The agent.
    pub agent_id: AgentId,
}

/// Why an agent does not take a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentReason {
    /// The agent.
    pub agent_id: AgentId,
    /// A phrase for people.
    pub reason: String,
}

/// Names one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobRef {
    /// The job.
    pub id: JobId,
}

/// One job as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobReply {
    /// The job.
    pub job: Job,
}

/// Asks for a page of jobs, by `createdAt`, then id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListJobs {
    /// Only jobs with this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<JobStatus>,
    /// Only jobs of this agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// At most so many; a page may hold fewer because of its size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only jobs after this place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<JobCursor>,
    /// Which jobs at all.
    pub scope: ListScope,
}

/// Which jobs a list covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ListScope {
    /// All of them.
    #[default]
    All,
    /// The newest 1000 and all that have not ended: what a UI starts with.
    Recent,
}

/// A place in the list of jobs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobCursor {
    /// `createdAt` of the last job seen.
    pub created_at: Timestamp,
    /// Its id.
    pub id: JobId,
}

impl std::fmt::Display for JobCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}_{}",
            self.created_at.as_millis(),
            crate::id::escape(self.id.as_str())
        )
    }
}

impl std::str::FromStr for JobCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (millis, token) = text.split_once('_').ok_or(())?;
        let id = crate::id::unescape(token).ok_or(())?;
        Ok(Self {
            created_at: Timestamp::from_millis(millis.parse().map_err(|_| ())?),
            id: JobId::parse(id).map_err(|_| ())?,
        })
    }
}

/// A page of jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobPage {
    /// Jobs, oldest first.
    pub jobs: Vec<Job>,
    /// The cursor of the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<JobCursor>,
}

/// A live command to a running job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlJob {
    /// The job.
    pub id: JobId,
    /// The command, for example `mute`.
    pub command: String,
    /// Its arguments.
    #[serde(default)]
    pub args: JsonObject,
}

/// What came of a live command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlReply {
    /// The job as it is now.
    pub job: Job,
    /// What the agent answered; absent when it has not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<JsonObject>,
}

/// Merges fields into a job's stream metadata; null removes one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PatchMetadata {
    /// The job.
    pub id: JobId,
    /// The fields.
    #[schemars(with = "StreamMetadata")]
    pub metadata: JsonObject,
}

/// A job's stream metadata as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetadataReply {
    /// All fields.
    pub metadata: JsonObject,
}

/// What keeps a job from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Gate {
    /// Nothing: it is placed.
    None,
    /// It has ended.
    Ended,
    /// Its time has not come.
    NotBefore,
    /// It failed and waits before it is started again.
    Backoff,
    /// No agent is online.
    NoAgentOnline,
    /// No agent meets what it asks for.
    RequirementNotMet,
    /// Every agent that could take it is draining.
    Draining,
    /// Every agent that could take it is full.
    NoFreeSlot,
    /// Every agent that could take it rejected it a moment ago.
    AgentBackoff,
    /// Every agent that could take it reports an error of its own.
    AgentError,
    /// It was offered to an agent that has not answered yet.
    WaitingForAnswer,
    /// Its agent is lost.
    AgentLost,
}

/// Why a job is where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The job.
    pub job_id: JobId,
    /// Its status.
    pub status: JobStatus,
    /// The gate it waits at.
    pub gate: Gate,
    /// The same as a sentence for people.
    pub message: String,
    /// Since when it waits there.
    pub since: Timestamp,
    /// For how long, in milliseconds.
    pub waiting_ms: u64,
    /// Until when at the latest, where a clock decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What keeps each agent from taking it.
    pub agents: Vec<AgentReason>,
}

/// Asks for all agents of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListAgents {
    /// Only agents after this one, in order of registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<AgentId>,
}

/// A page of agents in order of registration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentPage {
    /// The agents.
    pub agents: Vec<Agent>,
    /// The cursor of the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<AgentId>,
}

/// Names one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentRef {
    /// The agent.
    pub id: AgentId,
}

/// Sets an agent's drain flag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainAgent {
    /// The agent.
    pub id: AgentId,
    /// True: it gets no more jobs.
    pub drain: bool,
}

/// One agent as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentReply {
    /// The agent.
    pub agent: Agent,
}

/// Done, without content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Done {
    /// Always true.
    pub ok: bool,
}

/// Asks for all templates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListTemplates {}

/// All templates, by id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateList {
    /// The templates.
    pub templates: Vec<Template>,
}

/// Names one template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateRef {
    /// The template.
    pub id: TemplateId,
}

/// Stores a template under its id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PutTemplate {
    /// The template.
    pub template: Template,
}

/// One template, and whether the request made it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateReply {
    /// The template as stored.
    pub template: Template,
    /// True when there was none under this id.
    #[serde(default)]
    pub created: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_what_it_wrote() {
        let cursor = JobCursor {
            created_at: Timestamp::from_millis(17),
            id: JobId::parse("camera 1.a_b").unwrap(),
        };
        assert_eq!(cursor.to_string(), "17_camera=201=2Ea_b");
        assert_eq!(cursor.to_string().parse::<JobCursor>().unwrap(), cursor);
        assert!("x".parse::<JobCursor>().is_err());
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        let read = |text: &str| serde_json::from_str::<SubmitJob>(text);
        let submit = read(r#"{"priority": -2.0, "maxRestarts": 3}"#).unwrap();
        assert_eq!((submit.priority, submit.max_restarts), (Some(-2), Some(3)));
        assert_eq!(read(r#"{"priority": null}"#).unwrap().priority, None);
        for wrong in [
            r#"{"priority": 1.5}"#,
            r#"{"priority": 2147483648}"#,
            r#"{"priority": "1"}"#,
            r#"{"maxRestarts": -1.0}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let packed = rmp_serde::to_vec_named(&submit).unwrap();
        assert_eq!(rmp_serde::from_slice::<SubmitJob>(&packed).unwrap(), submit);
    }

    #[test]
    fn a_submission_that_is_too_deep_is_refused_with_the_field() {
        let inner = (0..100).fold(serde_json::Value::Null, |inner, _| vec![inner].into());
        let deep = || Some(JsonObject::from_iter([("a".to_owned(), inner.clone())]));
        let config = SubmitJob {
            inline_config: deep(),
            ..SubmitJob::default()
        };
        assert_eq!(
            config.check().unwrap_err().error,
            "inlineConfig must not be nested deeper than 32 levels"
        );
        let metadata = SubmitJob {
            inline_config: Some(JsonObject::new()),
            stream_metadata: deep(),
            ..SubmitJob::default()
        };
        assert_eq!(
            metadata.check().unwrap_err().error,
            "streamMetadata field a must be nested less deeply"
        );
    }

    #[test]
    fn a_submission_names_exactly_one_source() {
        let neither = SubmitJob::default();
        assert_eq!(
            neither.check().unwrap_err().error,
            "Exactly one of templateId or inlineConfig is required"
        );
        let one = SubmitJob {
            inline_config: Some(JsonObject::new()),
            ..SubmitJob::default()
        };
        assert!(one.check().is_ok());
    }
}
