//! Jobs and agents as they are: pure, changed by one record at a time. Keeps all jobs that have not ended and the newest
//! of those that have.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use quintet_contract::agent::Agent;
use quintet_contract::api::JobCursor;
use quintet_contract::event::JobEvent;
use quintet_contract::id::{AgentId, JobId};
use quintet_contract::job::Job;
use tokio::sync::watch;

use super::snapshot::JobSnapshot;

/// Ended jobs that are kept.
pub(crate) const MAX_ENDED: usize = 1000;
/// Jobs of a snapshot; older ones are listed over HTTP.
pub(crate) const MAX_SNAPSHOT_JOBS: usize = 1000;

#[derive(Default)]
pub(crate) struct View {
    jobs: HashMap<JobId, Arc<Job>>,
    /// Ended jobs that are kept, by age.
    ended: BTreeSet<JobCursor>,
    agents: BTreeMap<AgentId, Arc<Agent>>,
    watched: HashMap<JobId, watch::Sender<JobSnapshot>>,
    /// Grows with every change.
    version: u64,
}

impl View {
    /// A job was written: returns every state that it went through since it was last seen, the newest last.
    pub(crate) fn put_job(&mut self, job: Job) -> Vec<Job> {
        let job = Arc::new(job);
        let states = match self.jobs.get(&job.id) {
            // Not seen before: new, or an old one that is not kept.
            None if job.status.is_final()
                && job.position() > 2
                && self.is_older_than_kept(&job) =>
            {
                vec![(*job).clone()]
            }
            None => states_after(&job, 0),
            Some(before) => states_after(&job, before.position()),
        };
        if job.status.is_final() {
            self.ended.insert(cursor(&job));
        }
        if let Some(watched) = self.watched.get(&job.id) {
            watched.send_modify(|latest| latest.put(Some(job.clone())));
        }
        self.version += 1;
        self.jobs.insert(job.id.clone(), job);
        while self.ended.len() > MAX_ENDED {
            if let Some(oldest) = self.ended.pop_first() {
                self.jobs.remove(&oldest.id);
            }
        }
        states
    }

    fn is_older_than_kept(&self, job: &Job) -> bool {
        self.ended.len() == MAX_ENDED
            && self
                .ended
                .first()
                .is_some_and(|oldest| cursor(job) < *oldest)
    }

    pub(crate) fn remove_job(&mut self, id: &JobId) {
        self.version += 1;
        if let Some(job) = self.jobs.remove(id) {
            self.ended.remove(&cursor(&job));
        }
        if let Some(watched) = self.watched.get(id) {
            watched.send_modify(|latest| latest.put(None));
        }
    }

    pub(crate) fn put_agent(&mut self, agent: Agent) {
        self.version += 1;
        self.agents.insert(agent.id.clone(), Arc::new(agent));
    }

    pub(crate) fn remove_agent(&mut self, id: &AgentId) {
        self.version += 1;
        self.agents.remove(id);
    }

    /// What changes with every change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Agents in order of registration.
    pub(crate) fn agents(&self) -> Vec<Arc<Agent>> {
        let mut agents: Vec<_> = self.agents.values().cloned().collect();
        agents.sort_by(|a, b| (a.registered_at, &a.id).cmp(&(b.registered_at, &b.id)));
        agents
    }

    /// The jobs of a snapshot, the most important first: those that have not ended, then the others, each newest first.
    pub(crate) fn jobs(&self) -> Vec<Arc<Job>> {
        let mut jobs: Vec<_> = self.jobs.values().cloned().collect();
        jobs.sort_by(|a, b| {
            let newest_first = (b.created_at, &b.id).cmp(&(a.created_at, &a.id));
            let ended = a.status.is_final().cmp(&b.status.is_final());
            ended.then(newest_first)
        });
        jobs.truncate(MAX_SNAPSHOT_JOBS);
        jobs
    }

    /// Watches one job.
    pub(crate) fn watch(&mut self, id: &JobId) -> watch::Receiver<JobSnapshot> {
        let known = self.jobs.get(id).cloned();
        let watched = self
            .watched
            .entry(id.clone())
            .or_insert_with(|| watch::Sender::new(JobSnapshot::of(known)));
        watched.subscribe()
    }

    /// A watcher leaves; called while it still counts.
    pub(crate) fn unwatch(&mut self, id: &JobId) {
        if self
            .watched
            .get(id)
            .is_some_and(|watched| watched.receiver_count() <= 1)
        {
            self.watched.remove(id);
        }
    }

    /// A job that is not kept was read for its watchers; what came meanwhile is newer.
    pub(crate) fn found(&mut self, job: &Job) {
        if let Some(watched) = self.watched.get(&job.id) {
            watched.send_if_modified(|latest| {
                let news = latest
                    .job
                    .as_ref()
                    .is_none_or(|known| known.job.position() < job.position());
                if news {
                    latest.put(Some(Arc::new(job.clone())));
                }
                news
            });
        }
    }

    /// Something happened to a job.
    pub(crate) fn record_event(&self, event: &JobEvent) {
        if let Some(watched) = self.watched.get(&event.job_id) {
            watched.send_modify(|latest| latest.record_event(event));
        }
    }

    /// Takes over the watchers from a view that is out of date.
    pub(crate) fn replace(&mut self, before: View) {
        self.watched = before.watched;
        self.version += before.version + 1;
        for (id, watched) in &self.watched {
            if let Some(job) = self.jobs.get(id) {
                watched.send_modify(|latest| latest.put(Some(job.clone())));
            }
        }
    }
}

/// The job at every position after this one; the job as it is when there is none, for it changed all the same.
fn states_after(job: &Job, position: u64) -> Vec<Job> {
    let positions: Vec<u64> = job.entries_after(position).map(|(at, _)| at).collect();
    if positions.is_empty() {
        return vec![job.clone()];
    }
    positions
        .into_iter()
        .map(|at| job.at_position(at))
        .collect()
}

fn cursor(job: &Job) -> JobCursor {
    JobCursor {
        created_at: job.created_at,
        id: job.id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use quintet_contract::job::JobStatus;
    use serde_json::json;

    use super::*;

    fn job(id: &str, created: u32, statuses: &[&str]) -> Job {
        let at = format!("2026-01-01T00:00:{created:02}.000Z");
        let timeline: Vec<_> = statuses
            .iter()
            .map(|status| json!({"status": status, "at": at}))
            .collect();
        serde_json::from_value(json!({
            "id": id, "status": statuses.last().unwrap_or(&"CREATED"), "createdAt": at, "updatedAt": at, "requestedBy": "x",
            "timeline": timeline
        }))
        .unwrap()
    }

    #[test]
    fn every_status_that_was_written_at_once_is_a_state_of_its_own() {
        let mut view = View::default();
        let statuses =
            |states: Vec<Job>| states.into_iter().map(|job| job.status).collect::<Vec<_>>();
        use JobStatus::{Assigned, Created, Pending, Running};
        assert_eq!(
            statuses(view.put_job(job("j", 1, &["CREATED", "PENDING"]))),
            [Created, Pending]
        );
        let story = ["CREATED", "PENDING", "ASSIGNED", "RUNNING"];
        assert_eq!(
            statuses(view.put_job(job("j", 1, &story))),
            [Assigned, Running]
        );
        assert_eq!(
            statuses(view.put_job(job("j", 1, &story))),
            [Running],
            "something else changed"
        );
    }

    #[test]
    fn a_watcher_of_a_job_sees_its_newest_state_and_its_end() {
        let mut view = View::default();
        let mut latest = view.watch(&JobId::parse("j").unwrap());
        assert!(latest.borrow_and_update().job.is_none());
        view.put_job(job("j", 1, &["CREATED"]));
        view.found(&job("j", 1, &[]));
        assert_eq!(
            latest
                .borrow_and_update()
                .job
                .as_ref()
                .unwrap()
                .job
                .position(),
            1,
            "what is older changes nothing"
        );
        view.remove_job(&JobId::parse("j").unwrap());
        assert!(latest.borrow_and_update().job.is_none());
        view.unwatch(&JobId::parse("j").unwrap());
        assert!(view.watched.is_empty());
    }

    #[test]
    fn old_ended_jobs_are_let_go_and_running_ones_are_not() {
        let mut view = View::default();
        view.put_job(job("old but running", 0, &["CREATED", "RUNNING"]));
        for index in 0..=MAX_ENDED {
            view.put_job(job(&format!("{index:04}"), 1, &["CREATED", "CANCELED"]));
        }
        assert_eq!(view.jobs.len(), MAX_ENDED + 1);
        assert!(
            !view.jobs.contains_key(&JobId::parse("0000").unwrap()),
            "the oldest of those that have ended"
        );
        let jobs = view.jobs();
        assert_eq!(jobs.len(), MAX_SNAPSHOT_JOBS);
        assert_eq!(
            (jobs[0].id.as_str(), jobs[1].id.as_str()),
            ("old but running", "1000")
        );
        assert_eq!(jobs[MAX_SNAPSHOT_JOBS - 1].id.as_str(), "0002");
    }
}
