//! Ties a child's fate to its worker's: what runs in the child between fork and exec.
//!
//! This is the only unsafe code of workers. Between fork and exec only async-signal-safe calls are allowed, since
//! another thread may have held any lock at the moment of the fork; so nothing here allocates or panics.

#![expect(
    unsafe_code,
    reason = "a hook between fork and exec is unsafe by its nature"
)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use rustix::net::{SendFlags, send};
use rustix::process::{Pid, getpid, getppid};

/// Longest line to the reaper: a sign, ten digits, a line end.
const LINE: usize = 16;

/// The child gets a process group of its own, dies with the thread that starts it, and is announced to the reaper.
pub(super) fn tie_to_parent(
    command: &mut Command,
    reaper: Option<Arc<OwnedFd>>,
    restartable: bool,
) {
    command.process_group(0);
    let worker = getpid();
    let sign = if restartable { b'~' } else { b'+' };
    // SAFETY: the hook makes system calls only (prctl, getppid, getpid, send), formats into an array on its
    // stack, and builds its error from a number; it takes no lock and does not allocate. The descriptor is
    // kept open by the Arc that moves into the hook.
    unsafe {
        command.pre_exec(move || {
            die_with_parent(worker)?;
            if let Some(reaper) = &reaper {
                let mut line = [0; LINE];
                let length = register(sign, getpid(), &mut line);
                notify(reaper.as_fd(), line.get(..length).unwrap_or_default());
            }
            Ok(())
        });
    }
}

/// Sends a line to the reaper. One that is gone or does not listen cannot be helped; its absence must not
/// kill or block the sender, hence a socket without SIGPIPE.
pub(super) fn notify(reaper: BorrowedFd<'_>, line: &[u8]) {
    let _ = send(reaper, line, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn die_with_parent(worker: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // The worker may have died before the line above: then no process would ever send the signal.
    if getppid() == Some(worker) {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(
        rustix::io::Errno::SRCH.raw_os_error(),
    ))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn die_with_parent(_worker: Pid) -> io::Result<()> {
    Ok(())
}

/// Writes the sign, the pid and a line end without allocating; how long it is.
fn register(sign: u8, pid: Pid, line: &mut [u8; LINE]) -> usize {
    let mut digits = [0_u8; LINE];
    let mut rest = pid.as_raw_nonzero().get().unsigned_abs();
    let mut count = 0;
    while rest > 0 && count < LINE - 2 {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    line[0] = sign;
    for index in 0..count {
        line[1 + index] = digits[count - 1 - index];
    }
    line[count + 1] = b'\n';
    count + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_registered_in_the_words_that_the_reaper_reads() {
        for number in [2, 90, 4_194_304, i32::MAX] {
            let mut line = [0; LINE];
            let length = register(b'~', Pid::from_raw(number).unwrap(), &mut line);
            assert_eq!(line[..length], *format!("~{number}\n").as_bytes());
        }
    }
}
