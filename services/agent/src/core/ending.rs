//! Ends of jobs: stopped, killed, revoked because they may run elsewhere, drained.

use std::time::Duration;

use quintet_contract::job::{JobAttempt, JobStatus};

use super::Core;
use super::event::{Deadline, Effect, Leaving};
use super::job::{EndReason, Job, JobPhase, StopLevel};

impl Core {
    /// Begins to stop a job; only what was not under way before has effects.
    pub(super) fn stop(&mut self, placement: JobAttempt, why: EndReason, grace: Duration) {
        let Some(job) = self.jobs.get_mut(&placement) else {
            return;
        };
        match &mut job.phase {
            JobPhase::Accepted if why == EndReason::Shutdown => {
                self.rescind_acceptance(placement, "this agent is about to leave");
            }
            JobPhase::Accepted => {
                let ended = why.end_unstarted();
                self.end(placement, ended);
            }
            JobPhase::Live {
                status,
                end_reason,
                stop_level,
            } => {
                if *end_reason == EndReason::Own
                    || (*end_reason == EndReason::Shutdown && why == EndReason::Requested)
                {
                    *end_reason = why;
                }
                if *status == JobStatus::Stopping || *stop_level == StopLevel::Killed {
                    return;
                }
                *status = JobStatus::Stopping;
                *stop_level = StopLevel::Terminated;
                self.update(&placement, JobStatus::Stopping);
                self.effects.push(Effect::Terminate(placement.clone()));
                self.effects
                    .push(Effect::Schedule(placement, Deadline::Stop, grace));
            }
            JobPhase::Ended { .. } => {}
        }
    }

    pub(super) fn kill(&mut self, placement: JobAttempt) {
        match self.jobs.get_mut(&placement).map(|job| &mut job.phase) {
            Some(JobPhase::Accepted) => self.end(placement, EndReason::Requested.end_unstarted()),
            Some(JobPhase::Live { end_reason, .. }) => {
                if matches!(end_reason, EndReason::Own | EndReason::Shutdown) {
                    *end_reason = EndReason::Requested;
                }
                self.escalate_to_kill(&placement);
            }
            Some(JobPhase::Ended { .. }) | None => {}
        }
    }

    pub(super) fn escalate_to_kill(&mut self, placement: &JobAttempt) {
        if let Some(Job {
            phase: JobPhase::Live { stop_level, .. },
            ..
        }) = self.jobs.get_mut(placement)
            && *stop_level != StopLevel::Killed
        {
            *stop_level = StopLevel::Killed;
            self.effects.push(Effect::Kill(placement.clone()));
        }
    }

    pub(super) fn stop_overdue(&mut self, placement: &JobAttempt) {
        if let Some(JobPhase::Live {
            stop_level: StopLevel::Terminated,
            ..
        }) = self.phase_of(placement)
        {
            let line = "the job did not stop in time and is killed".to_owned();
            self.effects.push(Effect::Note(placement.clone(), line));
            self.escalate_to_kill(placement);
        }
    }

    /// The job must not be here any more: kill it, list it no longer, report nothing.
    pub(super) fn revoke(&mut self, placement: &JobAttempt) {
        match self.jobs.get_mut(placement).map(|job| &mut job.phase) {
            Some(JobPhase::Live { end_reason, .. }) => {
                *end_reason = EndReason::Revoked;
                self.escalate_to_kill(placement);
            }
            Some(JobPhase::Accepted | JobPhase::Ended { .. }) => {
                self.jobs.remove(placement);
            }
            None => {}
        }
    }

    pub(super) fn fenced(&mut self) {
        // A job that has ended already keeps its report: it is true whatever happened elsewhere.
        let restartable = self.jobs.iter().filter(|(_, job)| {
            job.restartable && job.takes_slot() && job.listed_status().is_some()
        });
        let restartable: Vec<JobAttempt> = restartable
            .map(|(placement, _)| placement.clone())
            .collect();
        for placement in restartable {
            let line = "no contact with the scheduler: the job may be started elsewhere and is killed here";
            self.effects
                .push(Effect::Note(placement.clone(), line.to_owned()));
            self.revoke(&placement);
        }
    }

    pub(super) fn abandon(&mut self, why: Leaving) {
        // The strongest reason is the one that the caller learns.
        if self.leaving != Some(Leaving::Replaced) {
            self.leaving = Some(why);
        }
        let all: Vec<JobAttempt> = self.jobs.keys().cloned().collect();
        for placement in all {
            self.revoke(&placement);
        }
    }

    pub(super) fn drain(&mut self, grace: Duration) {
        if self.leaving.is_some() {
            return;
        }
        self.leaving = Some(Leaving::Drained);
        let all: Vec<JobAttempt> = self.jobs.keys().cloned().collect();
        for placement in all {
            self.stop(placement, EndReason::Shutdown, grace);
        }
    }

    pub(super) fn drain_overdue(&mut self) {
        if let (Some(leaving), false) = (self.leaving, self.has_left) {
            self.has_left = true;
            self.effects.push(Effect::Leave(leaving));
        }
    }
}
