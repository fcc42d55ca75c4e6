//! The client of the schedulers: one function per request.

use std::sync::Arc;

use axum::extract::FromRef;
use quintet_bus::RequestError;
use quintet_contract::agent::Agent;
use quintet_contract::api::{
    AgentPage, AgentRef, AgentReply, BatchReply, ControlJob, ControlReply, Done, DrainAgent,
    DryRunReply, Explanation, JobPage, JobRef, ListAgents, ListJobs, ListTemplates, MetadataReply,
    PatchMetadata, PutTemplate, SubmitBatch, SubmitJob, SubmitReply, TemplateList, TemplateRef,
    TemplateReply,
};
use quintet_contract::bucket::Jobs;
use quintet_contract::error::{ErrorCode, Retry};
use quintet_contract::id::{AgentId, JobId, PoolName};
use quintet_contract::job::Job;
use quintet_contract::subject::{
    ControlJobs, DeleteTemplate, DrainAgents, DryRunJob, ExplainJob, ForgetAgent, GetAgent, GetJob,
    GetTemplate, ListAgentsOf, ListJobsOf, ListStoredTemplates, PatchJobMetadata,
    PutStoredTemplate, StopJob, SubmitJobBatch, SubmitJobs,
};

use super::pools::Pools;
use crate::error::HttpError;
use crate::state::App;

type Reply<T> = Result<T, HttpError>;

/// What handlers ask about jobs, agents and templates.
#[derive(Clone)]
pub(crate) struct JobsClient {
    app: App,
    pub(crate) pools: Arc<Pools>,
}

impl FromRef<App> for JobsClient {
    fn from_ref(app: &App) -> Self {
        Self {
            app: app.clone(),
            pools: app.live.part(),
        }
    }
}

impl JobsClient {
    pub(crate) async fn submit(&self, submit: &SubmitJob) -> Reply<SubmitReply> {
        let pool = submit.pool.clone().unwrap_or_default();
        self.app.request(&SubmitJobs { pool }, submit).await
    }

    pub(crate) async fn submit_batch(
        &self,
        pool: PoolName,
        batch: &SubmitBatch,
    ) -> Reply<BatchReply> {
        self.app.request(&SubmitJobBatch { pool }, batch).await
    }

    pub(crate) async fn dry_run(&self, submit: &SubmitJob) -> Reply<DryRunReply> {
        let pool = submit.pool.clone().unwrap_or_default();
        self.app.request(&DryRunJob { pool }, submit).await
    }

    pub(crate) async fn list_jobs(&self, pool: PoolName, list: &ListJobs) -> Reply<JobPage> {
        self.app.request(&ListJobsOf { pool }, list).await
    }

    /// A job as its scheduler knows it; as it is stored, when no scheduler leads.
    pub(crate) async fn job(&self, id: &JobId) -> Reply<Job> {
        let subject = GetJob {
            pool: self.pools.of_job(id).await?,
        };
        let message = JobRef { id: id.clone() };
        match self
            .app
            .bus
            .request(&subject, &message, self.app.config.request_timeout)
            .await
        {
            Ok(reply) => Ok(reply.job),
            // A pool without a leader since this edge started is not known to it.
            Err(error) if has_no_leader(&error) || is_unknown(&error) => {
                self.stored_job(id).await?.ok_or_else(HttpError::not_found)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A job as it is stored.
    pub(crate) async fn stored_job(&self, id: &JobId) -> Reply<Option<Job>> {
        Ok(self
            .app
            .bus
            .bucket::<Jobs>()
            .get(id)
            .await?
            .map(|found| found.record.job))
    }

    pub(crate) async fn stop(&self, id: JobId) -> Reply<Job> {
        let subject = StopJob {
            pool: self.pools.of_job(&id).await?,
        };
        Ok(self.app.request(&subject, &JobRef { id }).await?.job)
    }

    /// Asked once: a live command may do something each time.
    pub(crate) async fn control(&self, control: &ControlJob) -> Reply<ControlReply> {
        let subject = ControlJobs {
            pool: self.pools.of_job(&control.id).await?,
        };
        let timeout = self.app.config.request_timeout + std::time::Duration::from_secs(2);
        Ok(self.app.bus.request(&subject, control, timeout).await?)
    }

    pub(crate) async fn patch_metadata(&self, patch: &PatchMetadata) -> Reply<MetadataReply> {
        let subject = PatchJobMetadata {
            pool: self.pools.of_job(&patch.id).await?,
        };
        self.app.request(&subject, patch).await
    }

    pub(crate) async fn explain(&self, id: JobId) -> Reply<Explanation> {
        let subject = ExplainJob {
            pool: self.pools.of_job(&id).await?,
        };
        self.app.request(&subject, &JobRef { id }).await
    }

    /// All agents of all pools in order of registration.
    pub(crate) async fn agents(&self) -> Reply<Vec<Agent>> {
        let mut agents = Vec::new();
        for pool in self.pools.all() {
            let mut list = ListAgents::default();
            loop {
                let subject = ListAgentsOf { pool: pool.clone() };
                let page: AgentPage = self.app.request(&subject, &list).await?;
                agents.extend(page.agents);
                list.after = page.next;
                if list.after.is_none() {
                    break;
                }
            }
        }
        agents.sort_by(|a, b| (a.registered_at, &a.id).cmp(&(b.registered_at, &b.id)));
        Ok(agents)
    }

    pub(crate) async fn agent(&self, id: AgentId) -> Reply<AgentReply> {
        let subject = GetAgent {
            pool: self.pools.of_agent(&id).await?,
        };
        self.app.request(&subject, &AgentRef { id }).await
    }

    pub(crate) async fn drain(&self, drain: &DrainAgent) -> Reply<AgentReply> {
        let subject = DrainAgents {
            pool: self.pools.of_agent(&drain.id).await?,
        };
        self.app.request(&subject, drain).await
    }

    pub(crate) async fn forget(&self, id: AgentId) -> Reply<Done> {
        let subject = ForgetAgent {
            pool: self.pools.of_agent(&id).await?,
        };
        self.app.request(&subject, &AgentRef { id }).await
    }

    pub(crate) async fn templates(&self) -> Reply<TemplateList> {
        self.app
            .request(&ListStoredTemplates {}, &ListTemplates::default())
            .await
    }

    pub(crate) async fn template(&self, template: &TemplateRef) -> Reply<TemplateReply> {
        self.app.request(&GetTemplate {}, template).await
    }

    pub(crate) async fn put_template(&self, put: &PutTemplate) -> Reply<TemplateReply> {
        self.app.request(&PutStoredTemplate {}, put).await
    }

    pub(crate) async fn delete_template(&self, template: &TemplateRef) -> Reply<Done> {
        self.app.request(&DeleteTemplate {}, template).await
    }
}

fn is_unknown(error: &RequestError) -> bool {
    matches!(error, RequestError::Refused(reply) if reply.code == ErrorCode::NotFound)
}

fn has_no_leader(error: &RequestError) -> bool {
    match error {
        RequestError::NoResponders { .. } => true,
        RequestError::Refused(reply) => {
            reply.code == ErrorCode::Unavailable && reply.retry == Retry::Later
        }
        RequestError::Timeout { .. } | RequestError::Link { .. } | RequestError::Codec(_) => false,
    }
}
