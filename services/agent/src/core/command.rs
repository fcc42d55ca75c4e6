//! Commands of the owner: every command is answered, whatever its outcome.

use quintet_contract::JsonObject;
use quintet_contract::agent::{AgentReport, CommandReply};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::job::JobAttempt;
use serde_json::Value;

use super::Core;
use super::event::{AnswerId, Effect, Request};
use super::job::EndReason;
use crate::executors::Verdict;

impl Core {
    pub(super) fn command_received(
        &mut self,
        placement: JobAttempt,
        request: Request,
        answer: AnswerId,
    ) {
        if !self.jobs.contains_key(&placement) {
            let text = format!(
                "this agent does not have attempt {} of job {}",
                placement.attempt, placement.job_id
            );
            return self.refuse(answer, ErrorReply::new(ErrorCode::NotFound, text));
        }
        match request {
            Request::Stop { deadline } => {
                self.stop(placement, EndReason::Requested, deadline);
                self.reply(answer, JsonObject::new());
            }
            Request::Kill => {
                self.kill(placement);
                self.reply(answer, JsonObject::new());
            }
            Request::Control { command, args } => self.control(placement, command, args, answer),
        }
    }

    fn control(
        &mut self,
        placement: JobAttempt,
        command: String,
        args: JsonObject,
        answer: AnswerId,
    ) {
        let Some(job) = self.jobs.get(&placement) else {
            return;
        };
        if !job.is_running() {
            let text = "the job is not running on this agent now";
            return self.refuse(answer, ErrorReply::new(ErrorCode::CommandFailed, text));
        }
        match job.plan.verdict(&command) {
            Verdict::Deliver => self.effects.push(Effect::Control {
                placement,
                command,
                args,
                answer,
            }),
            Verdict::Decline(reason) => {
                self.controlled(placement, &command, answer, Err(reason));
            }
            Verdict::Unknown(known) => {
                let text = format!(
                    "the job does not know {command}; it knows {}",
                    known.join(", ")
                );
                let error = ErrorReply::new(ErrorCode::UnknownCommand, text);
                self.refuse(answer, error.with("commands", known));
            }
        }
    }

    pub(super) fn controlled(
        &mut self,
        placement: JobAttempt,
        command: &str,
        answer: AnswerId,
        outcome: Result<(), String>,
    ) {
        let muted = match command {
            "mute" => Some(true),
            "unmute" => Some(false),
            _ => None,
        };
        if let (Some(muted), true) = (muted, self.is_speaking(&placement)) {
            self.effects.push(Effect::Report(AgentReport::JobMuted {
                job_id: placement.job_id.clone(),
                attempt: Some(placement.attempt),
                muted,
                success: outcome.is_ok(),
            }));
        }
        if let (Some(muted), Ok(())) = (muted, &outcome) {
            let (kind, message) = if muted {
                ("mute", "the sound is off")
            } else {
                ("unmute", "the sound is on")
            };
            self.record_event(placement, kind, message.to_owned(), None);
        }
        let mut fields = JsonObject::new();
        fields.insert("success".to_owned(), Value::Bool(outcome.is_ok()));
        if let Err(reason) = outcome {
            fields.insert("reason".to_owned(), Value::String(reason));
        }
        self.reply(answer, fields);
    }

    fn reply(&mut self, answer: AnswerId, fields: JsonObject) {
        let reply = Ok(CommandReply { answer: fields });
        self.effects.push(Effect::Answer(answer, reply));
    }

    pub(super) fn refuse(&mut self, answer: AnswerId, error: ErrorReply) {
        self.effects.push(Effect::Answer(answer, Err(error)));
    }
}
