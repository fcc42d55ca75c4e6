//! Requests of clients, each answered once: reads from memory, changes of agents and metadata. New jobs are in
//! `submit`, live commands in `control`, explanations in `explain`.

use quintet_contract::api::{
    AgentPage, AgentReply, Done, DryRunReply, JobCursor, JobPage, JobReply, ListAgents, ListJobs,
    ListScope, MAX_PAGE, MetadataReply, PatchMetadata, Placement, SubmitJob,
};
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::{AgentId, JobId};
use quintet_contract::job::Job;
use quintet_contract::time::Timestamp;
use quintet_contract::{JsonObject, metadata};

use super::Core;
use super::event::{Question, Traceparent, Write};
use super::submit::{check_metadata_limits, size_of_object};

/// Most bytes of one page, roughly: a page is one message of the bus.
const PAGE_BYTES: usize = 512 * 1024;
/// A job without its objects and timeline, roughly.
const JOB_BYTES: usize = 700;
/// One timeline entry without its reason, roughly.
const ENTRY_BYTES: usize = 64;
/// An agent without its objects, roughly.
const AGENT_BYTES: usize = 400;
/// Most agents of one page.
const AGENTS_PER_PAGE: usize = 500;
/// Ended jobs that a UI starts with.
const RECENT_JOBS: usize = 1000;

impl Core {
    pub(super) fn request_received(
        &mut self,
        question: Question,
        trace: Traceparent,
        now: Timestamp,
    ) {
        match question {
            Question::Submit(from, submit) => self.submit_one(from, *submit, trace, now),
            Question::SubmitBatch(from, batch) => self.submit_batch(from, batch, &trace, now),
            Question::Control(from, control) => self.control(from, control, trace, now),
            Question::DryRun(from, submit) => {
                let outcome = self.dry_run(*submit, now);
                self.reply(from, outcome);
            }
            Question::List(from, list) => self.reply(from, Ok(self.list(&list))),
            Question::Get(from, job) => self.reply(from, self.get(&job.id)),
            Question::Stop(from, job) => {
                self.stop(&job.id, now);
                self.reply(from, self.get(&job.id));
            }
            Question::Metadata(from, patch) => {
                let outcome = self.patch_metadata(patch, now);
                self.reply(from, outcome);
            }
            Question::Explain(from, job) => self.reply(from, self.explain(&job.id, now)),
            Question::ListAgents(from, list) => self.reply(from, Ok(self.list_agents(&list))),
            Question::GetAgent(from, agent) => self.reply(from, self.get_agent(&agent.id)),
            Question::Drain(from, drain) => {
                let outcome = self.drain(&drain.id, drain.drain);
                self.reply(from, outcome);
            }
            Question::Forget(from, agent) => {
                let outcome = self.forget(&agent.id);
                self.reply(from, outcome);
            }
        }
    }

    fn get(&self, id: &JobId) -> Result<JobReply, ErrorReply> {
        let job = self.job(id).ok_or_else(ErrorReply::not_found)?.clone();
        Ok(JobReply { job })
    }

    fn list(&self, list: &ListJobs) -> JobPage {
        let limit = list.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE) as usize;
        let recent = match list.scope {
            ListScope::All => None,
            ListScope::Recent => self.order.iter().nth_back(RECENT_JOBS - 1),
        };
        let wanted = |cursor: &JobCursor, job: &Job| {
            list.status.is_none_or(|status| job.status == status)
                && list
                    .agent_id
                    .as_ref()
                    .is_none_or(|agent| job.agent_id.as_ref() == Some(agent))
                && (!job.status.is_final() || recent.is_none_or(|recent| cursor >= recent))
        };
        let start = match &list.after {
            Some(after) => std::ops::Bound::Excluded(after),
            None => std::ops::Bound::Unbounded,
        };
        let mut page = JobPage {
            jobs: Vec::new(),
            next: None,
        };
        let mut bytes = 0;
        for cursor in self.order.range((start, std::ops::Bound::Unbounded)) {
            let Some(job) = self.job(&cursor.id).filter(|job| wanted(cursor, job)) else {
                continue;
            };
            if page.jobs.len() == limit || bytes > PAGE_BYTES {
                page.next = page.jobs.last().map(super::cursor);
                break;
            }
            bytes += size_of_job(job);
            page.jobs.push(job.clone());
        }
        page
    }

    fn dry_run(&self, submit: SubmitJob, now: Timestamp) -> Result<DryRunReply, ErrorReply> {
        let mut submit = submit;
        // A dry run makes no job; the id is only there to be complete.
        submit.job_id = submit.job_id.or_else(|| JobId::parse("dry-run").ok());
        let record = self.new_record(submit, None, now)?;
        let demand = self.demand(&record.job);
        let refused = self.refusals(&demand, &record.private.refusals, now);
        let placement = self
            .choose_for(&demand, &record.private.refusals, now)
            .map(|agent_id| Placement { agent_id });
        Ok(DryRunReply { placement, refused })
    }

    fn patch_metadata(
        &mut self,
        patch: PatchMetadata,
        now: Timestamp,
    ) -> Result<MetadataReply, ErrorReply> {
        if self.job(&patch.id).is_none() {
            return Err(ErrorReply::not_found());
        }
        metadata::check(&patch.metadata)
            .map_err(|error| ErrorReply::invalid(&error.field, error.to_string()))?;
        let metadata = self.merge_metadata(&patch.id, patch.metadata, now)?;
        Ok(MetadataReply { metadata })
    }

    /// Merges checked fields into a job's metadata; refused as a whole when it would grow too large.
    pub(super) fn merge_metadata(
        &mut self,
        id: &JobId,
        patch: JsonObject,
        now: Timestamp,
    ) -> Result<JsonObject, ErrorReply> {
        let Some(job) = self.job(id) else {
            return Err(ErrorReply::not_found());
        };
        let before = job.stream_metadata.clone().unwrap_or_default();
        let mut after = before.clone();
        metadata::merge(&mut after, patch);
        check_metadata_limits(&after)?;
        if after != before {
            let stored = after.clone();
            self.change(id, now, |record| record.job.stream_metadata = Some(stored));
        }
        Ok(after)
    }

    fn list_agents(&self, list: &ListAgents) -> AgentPage {
        let mut agents: Vec<_> = self.agents.iter().map(|(_, entry)| entry).collect();
        agents.sort_by(|a, b| {
            let (a, b) = (&a.record.agent, &b.record.agent);
            (a.registered_at, &a.id).cmp(&(b.registered_at, &b.id))
        });
        let start = match &list.after {
            None => 0,
            Some(after) => agents
                .iter()
                .position(|entry| &entry.record.agent.id == after)
                .map_or(0, |at| at + 1),
        };
        let mut page = AgentPage {
            agents: Vec::new(),
            next: None,
        };
        let mut bytes = 0;
        for entry in agents.into_iter().skip(start) {
            if page.agents.len() == AGENTS_PER_PAGE || bytes > PAGE_BYTES {
                page.next = page.agents.last().map(|agent| agent.id.clone());
                break;
            }
            let agent = entry.shown();
            bytes +=
                AGENT_BYTES + size_of_object(&agent.capabilities) + size_of_object(&agent.meta);
            bytes += agent.jobs.len() * ENTRY_BYTES;
            page.agents.push(agent);
        }
        page
    }

    fn get_agent(&self, id: &AgentId) -> Result<AgentReply, ErrorReply> {
        let agent = self
            .agents
            .get(id)
            .ok_or_else(ErrorReply::not_found)?
            .shown();
        Ok(AgentReply { agent })
    }

    fn drain(&mut self, id: &AgentId, drain: bool) -> Result<AgentReply, ErrorReply> {
        self.agents
            .change(id, |entry| entry.record.agent.drain = drain)
            .ok_or_else(ErrorReply::not_found)?;
        self.effects.write(Write::Agent(id.clone()));
        self.get_agent(id)
    }

    fn forget(&mut self, id: &AgentId) -> Result<Done, ErrorReply> {
        let entry = self.agents.get(id).ok_or_else(ErrorReply::not_found)?;
        if entry.is_online() {
            let text = "the agent is online; only an offline agent can be forgotten: stop it first";
            return Err(ErrorReply::new(ErrorCode::AgentOnline, text));
        }
        self.agents.remove(id);
        self.effects.write(Write::NoAgent(id.clone()));
        Ok(Done { ok: true })
    }
}

fn size_of_job(job: &Job) -> usize {
    let objects = [&job.inline_config, &job.stream_metadata]
        .into_iter()
        .flatten()
        .map(size_of_object)
        .sum::<usize>();
    let reasons = job
        .timeline
        .iter()
        .filter_map(|entry| entry.reason.as_ref())
        .map(String::len)
        .sum::<usize>();
    let detail = job.error.as_ref().map_or(0, |error| {
        error.message.len()
            + error
                .detail
                .as_ref()
                .map_or(0, |detail| detail.to_string().len())
    });
    JOB_BYTES
        + objects
        + size_of_object(&job.params)
        + job.timeline.len() * ENTRY_BYTES
        + reasons
        + detail
}
