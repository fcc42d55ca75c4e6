//! Live commands to running jobs, through their agents. A command waits for the agent's answer; mute and unmute are
//! answered after a second at the latest, since what they change shows in the job's metadata when it happens.

use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::agent::{AgentCommand, CommandReply};
use quintet_contract::api::{ControlJob, ControlReply};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::JobId;
use quintet_contract::job::{Attempt, JobStatus};
use quintet_contract::reply::RequestId;
use quintet_contract::time::Timestamp;
use serde_json::Value;

use super::event::{Action, CommandId, Traceparent};
use super::{Core, Timer};

/// How long a client of mute and unmute waits for the agent at most.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);
/// Commands of an agent that does not publish which it has.
const USUAL_COMMANDS: [&str; 2] = ["mute", "unmute"];

/// A command in flight.
#[derive(Debug)]
pub(super) struct PendingCommand {
    job: JobId,
    attempt: Attempt,
    /// What a success of this command sets `isMuted` to.
    mutes: Option<bool>,
    /// The waiting requester; none once it was answered early.
    from: Option<RequestId<ControlReply>>,
}

impl Core {
    pub(super) fn control(
        &mut self,
        from: RequestId<ControlReply>,
        control: ControlJob,
        trace: Traceparent,
        now: Timestamp,
    ) {
        if let Err(error) = self.check_control(&control) {
            return self.reply(from, Err(error));
        }
        let Some(job) = self.job(&control.id) else {
            return;
        };
        let Some(agent) = job.agent_id.clone() else {
            return;
        };
        let attempt = job.attempt;
        let mutes = match control.command.as_str() {
            "mute" => Some(true),
            "unmute" => Some(false),
            _ => None,
        };
        let command_id = CommandId(self.next_command);
        self.next_command += 1;
        self.pending_commands.insert(
            command_id,
            PendingCommand {
                job: control.id.clone(),
                attempt,
                mutes,
                from: Some(from),
            },
        );
        if mutes.is_some() {
            self.timers
                .set(now.after(COMMAND_TIMEOUT), Timer::Command(command_id));
        }
        let ControlJob { id, command, args } = control;
        self.effects.act(Action::Command {
            agent,
            command: AgentCommand::Control {
                job_id: id,
                attempt,
                command,
                args,
            },
            command_id: Some(command_id),
            traceparent: trace,
        });
    }

    fn check_control(&self, control: &ControlJob) -> Result<(), ErrorReply> {
        let job = self.job(&control.id).ok_or_else(ErrorReply::not_found)?;
        let agent = job
            .agent_id
            .as_ref()
            .and_then(|agent| self.agents.get(agent))
            .filter(|agent| agent.is_online());
        let here = matches!(
            job.status,
            JobStatus::Accepted | JobStatus::Starting | JobStatus::Running | JobStatus::Stopping
        );
        let Some(agent) = agent.filter(|_| here) else {
            return Err(ErrorReply::new(
                ErrorCode::AgentNotAvailable,
                "Agent not available",
            ));
        };
        let published: Vec<String> = match agent.capabilities.commands.as_slice() {
            [] => USUAL_COMMANDS.map(str::to_owned).to_vec(),
            commands => commands.to_vec(),
        };
        if published.contains(&control.command) {
            return Ok(());
        }
        let text = format!(
            "the agent does not know {:?}; it knows {}",
            control.command,
            published.join(", ")
        );
        Err(ErrorReply::new(ErrorCode::UnknownCommand, text).with("commands", published))
    }

    /// The agent answered, or no answer came.
    pub(super) fn command_answered(
        &mut self,
        command_id: CommandId,
        outcome: Result<CommandReply, ErrorReply>,
        now: Timestamp,
    ) {
        let Some(PendingCommand {
            job: id,
            attempt,
            mutes,
            from,
        }) = self.pending_commands.remove(&command_id)
        else {
            return;
        };
        if let (Some(muted), Ok(reply)) = (mutes, &outcome)
            && reply.answer.get("success").and_then(Value::as_bool) != Some(false)
            && self
                .job(&id)
                .is_some_and(|job| job.attempt == attempt && job.status.holds_agent())
        {
            self.set_muted(&id, muted, now);
        }
        let Some(from) = from else { return };
        let outcome = match outcome {
            Ok(reply) => Ok(Some(reply.answer)),
            // A mute that fails is reported as such; the request itself was carried out.
            Err(error) if mutes.is_some() => Ok(Some(failure(&error))),
            Err(error) => Err(error),
        };
        self.answer_control(from, &id, outcome);
    }

    /// The client of a mute has waited long enough.
    pub(super) fn command_due(&mut self, command_id: CommandId) {
        let Some(waiting) = self.pending_commands.get_mut(&command_id) else {
            return;
        };
        let (from, id) = (waiting.from.take(), waiting.job.clone());
        if let Some(from) = from {
            self.answer_control(from, &id, Ok(None));
        }
    }

    fn answer_control(
        &mut self,
        from: RequestId<ControlReply>,
        id: &JobId,
        outcome: Result<Option<JsonObject>, ErrorReply>,
    ) {
        let outcome = match (outcome, self.job(id)) {
            (Ok(answer), Some(job)) => Ok(ControlReply {
                job: job.clone(),
                answer,
            }),
            (Ok(_), None) => Err(ErrorReply::not_found()),
            (Err(error), _) => Err(error),
        };
        self.reply(from, outcome);
    }
}

fn failure(error: &ErrorReply) -> JsonObject {
    [
        ("success".to_owned(), Value::Bool(false)),
        ("reason".to_owned(), Value::String(error.error.clone())),
    ]
    .into_iter()
    .collect()
}
