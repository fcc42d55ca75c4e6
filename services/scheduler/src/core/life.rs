//! The life cycle of a job: which transitions are legal, and how one is written into the record.
//!
//! ```text
//! CREATED -> PENDING -> ASSIGNED -> ACCEPTED -> STARTING -> RUNNING -> STOPPING -> STOPPED | FAILED
//! CREATED, PENDING -> CANCELED          PENDING -> FAILED (its template cannot be resolved)
//! ASSIGNED -> PENDING                   refused, silent, agent lost before accepting
//! ACCEPTED..RUNNING -> STOPPED | FAILED the work ended by itself
//! ACCEPTED..STOPPING -> PENDING         started again by policy, unless a client asked for the stop
//! ACCEPTED..STOPPING -> UNKNOWN         agent lost
//! UNKNOWN -> ACCEPTED..STOPPING | STOPPED | FAILED | PENDING
//! ```

use quintet_contract::job::{JobRecord, JobStatus, TIMELINE_KEPT, TimelineEntry};
use quintet_contract::time::Timestamp;

/// Whether a job may go from one status to the other.
pub(super) const fn may_follow(from: JobStatus, to: JobStatus) -> bool {
    use JobStatus::{
        Accepted, Assigned, Canceled, Created, Failed, Pending, Running, Starting, Stopped,
        Stopping, Unknown,
    };
    match from {
        Created => matches!(to, Pending | Canceled),
        Pending => matches!(to, Assigned | Canceled | Failed),
        Assigned => matches!(to, Accepted | Pending),
        Accepted => matches!(
            to,
            Starting | Running | Stopping | Stopped | Failed | Unknown | Pending
        ),
        Starting => matches!(
            to,
            Running | Stopping | Stopped | Failed | Unknown | Pending
        ),
        Running => matches!(to, Stopping | Stopped | Failed | Unknown | Pending),
        Stopping => matches!(to, Stopped | Failed | Unknown | Pending),
        Unknown => matches!(
            to,
            Accepted | Starting | Running | Stopping | Stopped | Failed | Pending
        ),
        Stopped | Failed | Canceled => false,
    }
}

/// Moves the job on and writes the step into its timeline. False, and nothing changed, when the step is illegal.
pub(super) fn advance(
    record: &mut JobRecord,
    to: JobStatus,
    at: Timestamp,
    reason: Option<String>,
) -> bool {
    let job = &mut record.job;
    if !may_follow(job.status, to) {
        return false;
    }
    job.status = to;
    // The log is in order even when the clock was set back between two leaders.
    let at = job.timeline.last().map_or(at, |entry| entry.at.max(at));
    job.updated_at = at;
    job.timeline.push(TimelineEntry {
        status: to,
        at,
        reason,
    });
    if job.timeline.len() > TIMELINE_KEPT {
        let surplus = job.timeline.len() - TIMELINE_KEPT;
        job.timeline.drain(..surplus);
        job.timeline_dropped += surplus as u64;
    }
    if to == JobStatus::Running && job.started_at.is_none() {
        job.started_at = Some(at);
    }
    if to.is_final() {
        job.ended_at = Some(at);
    }
    true
}

#[cfg(test)]
mod tests {
    use JobStatus::*;

    use super::*;

    #[test]
    fn terminal_statuses_stay_terminal() {
        for from in [Stopped, Failed, Canceled] {
            for to in JobStatus::ALL {
                assert!(!may_follow(from, to), "{from} -> {to}");
            }
        }
    }

    #[test]
    fn every_step_is_the_one_the_diagram_shows() {
        let legal: Vec<(JobStatus, Vec<JobStatus>)> = vec![
            (Created, vec![Pending, Canceled]),
            (Pending, vec![Assigned, Failed, Canceled]),
            (Assigned, vec![Pending, Accepted]),
            (
                Accepted,
                vec![
                    Pending, Starting, Running, Stopping, Stopped, Failed, Unknown,
                ],
            ),
            (
                Starting,
                vec![Pending, Running, Stopping, Stopped, Failed, Unknown],
            ),
            (Running, vec![Pending, Stopping, Stopped, Failed, Unknown]),
            (Stopping, vec![Pending, Stopped, Failed, Unknown]),
            (
                Unknown,
                vec![
                    Pending, Accepted, Starting, Running, Stopping, Stopped, Failed,
                ],
            ),
        ];
        for (from, allowed) in legal {
            for to in JobStatus::ALL {
                assert_eq!(
                    may_follow(from, to),
                    allowed.contains(&to),
                    "{from} -> {to}"
                );
            }
        }
    }
}
