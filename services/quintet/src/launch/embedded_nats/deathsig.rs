//! Ties a child process to the thread that starts it: the kernel kills the child when that thread ends, also on
//! `kill -9` of the whole process. The only unsafe code of the program.
#![expect(
    unsafe_code,
    reason = "what a child does between fork and exec has no safe form"
)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Makes the child die with the thread that spawns it, which must live as long as the child is wanted.
pub(crate) fn die_with_this_thread(command: &mut Command) {
    let parent = Some(getpid());
    let tie = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died between fork and prctl: then no signal will ever come.
        if getppid() == parent {
            Ok(())
        } else {
            Err(std::io::Error::from_raw_os_error(
                rustix::io::Errno::SRCH.raw_os_error(),
            ))
        }
    };
    // SAFETY: the closure runs in the forked child before exec; it makes two system calls, allocates nothing, takes
    // no lock and touches no memory of the parent beyond the copied process id.
    unsafe {
        command.pre_exec(tie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let starter = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("1000");
            die_with_this_thread(&mut command);
            command.spawn().unwrap()
        });
        let status = starter.join().unwrap().wait().unwrap();
        assert!(!status.success());
    }
}
