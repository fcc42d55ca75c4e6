//! What must always hold.

use super::*;

impl World {
    pub(super) fn check_agent(&self, index: usize) {
        let machine = &self.machines[index];
        let count = machine.agent.processes().count();
        assert!(
            count <= SLOTS as usize,
            "an agent runs more than it has slots for"
        );
        for placement in machine.agent.processes() {
            for (other, machine) in self.machines.iter().enumerate() {
                let frozen = self.until(&self.frozen_until, Who::Agent(other)) > self.now
                    || machine.thawed_at + THAW > self.now;
                if other == index || frozen || self.machines[index].thawed_at + THAW > self.now {
                    continue;
                }
                let twice = machine
                    .agent
                    .processes()
                    .any(|found| found.job_id == placement.job_id);
                assert!(
                    !twice,
                    "{} runs on agents {index} and {other}",
                    placement.job_id
                );
            }
        }
    }

    /// What must hold for every change of a job that is stored.
    pub(super) fn check_change(&self, index: usize, before: Option<&JobRecord>, id: &JobId) {
        let job = &self.store.jobs[id].1.job;
        let timeline = &job.timeline;
        assert_eq!(timeline.last().unwrap().status, job.status);
        if let Some(before) = before
            && job.timeline_dropped == 0
        {
            let before = &before.job.timeline;
            assert!(
                timeline.starts_with(before),
                "history was rewritten: {job:?}"
            );
            let ended = before.last().is_some_and(|last| last.status.is_final());
            assert!(
                !ended || timeline == before,
                "an ended job went on: {job:?}"
            );
        }
        let repeats = timeline
            .windows(2)
            .any(|pair| pair[0].status == pair[1].status);
        assert!(!repeats, "a status came twice: {job:?}");
        if self.store.holder(self.now) != Some(index) {
            return;
        }
        if job.status == JobStatus::Assigned
            && before.is_none_or(|before| before.job.attempt != job.attempt)
            && let Some(agent) = &job.agent_id
        {
            let is_drained = self
                .store
                .agents
                .get(agent)
                .is_some_and(|(_, found)| found.agent.drain);
            assert!(
                !(is_drained && self.drained.contains(agent)),
                "a drained agent got a job: {job:?}"
            );
        }
    }
}
