//! Reaper: cleans up after a worker that was killed, and for an agent that is frozen: one small process per worker, in
//! a session of its own.
//!
//! The worker writes to its standard input which process groups exist, one a line: `+123` a group of a job that stays
//! with it, `~123` one of a job that may be started elsewhere, `-123` either is gone. Children announce themselves
//! before they run anything, so there is no moment at which one is unknown. When the input ends the worker is gone, however
//! it went, and the groups that are left are killed.
//!
//! `=4567` is the moment, in milliseconds since the machine was started, at which the scheduler may give the jobs of `~`
//! groups away unless it sees the agent before. An agent that runs ends them itself; one that is stopped by a signal, a
//! debugger or a freezer cannot, but its children continue. So the groups are killed here when the moment comes and no
//! later one was named.

use std::collections::BTreeMap;
use std::io::{Read, stdin};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, setsid};

use crate::clock::{Moment, moment};

/// The longest sleep; a machine that was suspended wakes it late by no more than this.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Bytes read at once.
const CHUNK: usize = 4096;

/// The whole program; returns when the worker is gone and its groups are killed.
pub fn main() {
    // Fails when the process leads a group already; then it is out of the worker's group as well.
    let _ = setsid();
    // A job's folder, or the folder that the worker was started in, may have to be unmounted.
    let _ = std::env::set_current_dir("/");
    let mut watch = Watch::default();
    let mut input = stdin().lock();
    let mut chunk = [0; CHUNK];
    loop {
        kill(watch.due(moment()));
        let sleep = Timespec::try_from(watch.sleep(moment())).ok();
        let ready = poll(
            &mut [PollFd::new(&input.as_fd(), PollFlags::IN)],
            sleep.as_ref(),
        );
        match ready {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(_) => break,
        }
        match input.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(length) => watch.receive(chunk.get(..length).unwrap_or_default()),
        }
    }
    kill(watch.all());
}

fn kill(groups: Vec<i32>) {
    for group in groups.into_iter().filter_map(Pid::from_raw) {
        // Fails when the group is gone, which is what is wanted.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Messages of the worker.
#[derive(Debug, Default)]
struct Watch {
    /// Whether each group may be started elsewhere.
    groups: BTreeMap<i32, bool>,
    fences_at: Option<Moment>,
    /// A line that is not whole yet.
    rest: Vec<u8>,
}

impl Watch {
    fn receive(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            if let Ok(line) = std::str::from_utf8(&line) {
                self.line(line.trim_end());
            }
        }
    }

    fn line(&mut self, line: &str) {
        if let Some(group) = line.strip_prefix('+').and_then(pid) {
            self.groups.insert(group, false);
        } else if let Some(group) = line.strip_prefix('~').and_then(pid) {
            self.groups.insert(group, true);
        } else if let Some(group) = line.strip_prefix('-').and_then(pid) {
            self.groups.remove(&group);
        } else if let Some(at) = line.strip_prefix('=').and_then(|at| at.parse().ok()) {
            self.fences_at = Some(Moment::from_start(Duration::from_millis(at)));
        }
    }

    /// Groups that must end now; each moment that was named is acted on once.
    fn due(&mut self, now: Moment) -> Vec<i32> {
        if self.fences_at.is_none_or(|at| now <= at) {
            return Vec::new();
        }
        self.fences_at = None;
        let restartable = self.groups.iter().filter(|(_, restartable)| **restartable);
        restartable.map(|(group, _)| *group).collect()
    }

    fn sleep(&self, now: Moment) -> Duration {
        let left = self.fences_at.map(|at| at.since(now));
        // A millisecond more: at the moment itself nothing is due yet.
        left.map_or(POLL_INTERVAL, |left| left + Duration::from_millis(1))
            .min(POLL_INTERVAL)
    }

    fn all(&self) -> Vec<i32> {
        self.groups.keys().copied().collect()
    }
}

/// Never 1: killing that group would be killing everything.
fn pid(text: &str) -> Option<i32> {
    text.parse().ok().filter(|number| *number > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn groups_that_were_not_taken_back_are_left_over() {
        let mut watch = Watch::default();
        watch.receive(b"+10\n~11\n-10\nnonsense\n+1\n+-5\n+0\n+1");
        watch.receive(b"2\n+13");
        assert_eq!(watch.all(), [11, 12]);
    }

    #[test]
    fn restartable_groups_end_when_the_agent_is_not_seen_until_the_moment_it_named() {
        let mut watch = Watch::default();
        watch.receive(b"+10\n~11\n=5000\n");
        assert!(watch.due(at(4_000)).is_empty());
        watch.receive(b"=8000\n");
        assert!(watch.due(at(6_000)).is_empty(), "it was seen meanwhile");
        assert_eq!(watch.due(at(8_001)), [11]);
        assert!(watch.due(at(9_000)).is_empty(), "once");
        watch.receive(b"=9000\n~12\n-11\n");
        assert_eq!(watch.due(at(9_001)), [12]);
    }
}
