//! Ties a child process to this one: the kernel kills the child when the thread that started it ends, also on
//! `kill -9`. The only unsafe code of the test kit.
//!
//! The tie is to the starting thread, not to the process (prctl(2)), and a test's thread ends with its test:
//! [`crate::Process`] therefore starts every child from one thread that runs as long as the process.
#![expect(
    unsafe_code,
    reason = "what a child does between fork and exec has no safe form"
)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Makes the child die with the thread that spawns it.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = Some(rustix::process::getpid());
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
