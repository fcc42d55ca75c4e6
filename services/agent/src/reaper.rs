//! Cleans up after an agent that was killed: one small process per agent, in a session of its own.
//!
//! The agent tells it, on its standard input, which process groups exist: `+123` and `-123`, one a line. When
//! the input ends the agent is gone, however it went, and the groups that are left are killed. Children
//! announce themselves before they run anything, so there is no moment at which one is unknown.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};

use rustix::process::{Pid, Signal, kill_process_group, setsid};

/// The whole program; returns when the agent is gone and its groups are killed.
pub fn main() {
    // Fails when the process leads a group already; then it is out of the agent's group as well.
    let _ = setsid();
    // A job's folder, or the folder that the agent was started in, may have to be unmounted.
    let _ = std::env::set_current_dir("/");
    let groups = left_over(std::io::stdin().lock());
    for group in groups.into_iter().filter_map(Pid::from_raw) {
        // Fails when the group is gone, which is what is wanted.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// The groups that are still registered when the input ends.
fn left_over(input: impl Read) -> BTreeSet<i32> {
    let mut groups = BTreeSet::new();
    for line in BufReader::new(input).split(b'\n').map_while(Result::ok) {
        let Ok(line) = std::str::from_utf8(&line) else {
            continue;
        };
        if let Some(group) = line.strip_prefix('+').and_then(pid) {
            groups.insert(group);
        } else if let Some(group) = line.strip_prefix('-').and_then(pid) {
            groups.remove(&group);
        }
    }
    groups
}

/// Never 1: killing that group would be killing everything.
fn pid(text: &str) -> Option<i32> {
    text.parse().ok().filter(|number| *number > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_were_not_taken_back_are_left_over() {
        let input = "+10\n+11\n-10\nnonsense\n+1\n+-5\n+0\n+12";
        let groups = left_over(input.as_bytes());
        assert_eq!(groups.into_iter().collect::<Vec<_>>(), [11, 12]);
    }
}
