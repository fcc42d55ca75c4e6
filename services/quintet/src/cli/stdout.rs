//! Lines for people and scripts on standard output, and what happens when their reader has gone.

use std::fmt::Display;
use std::io::{ErrorKind, Result, Write};

/// A line of something that runs on. A closed pipe is no reason for a running system to end, as it would be
/// with `println!`.
pub(crate) fn emit(line: impl Display) {
    let _ = write(line);
}

/// A line of a command's answer. A reader that closed the pipe, as `head` does, has read enough: the command ends well.
pub(crate) fn print(line: impl Display) {
    done(write(line));
}

/// Bytes of a command's answer as they came; see [`print`].
pub(crate) fn print_bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    done(out.write_all(bytes).and_then(|()| out.flush()));
}

fn done(written: Result<()>) {
    let Err(error) = written else {
        return;
    };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    eprintln!("quintet: cannot write to standard output: {error}");
    std::process::exit(i32::from(crate::cli::exit::FAILED));
}

fn write(line: impl Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
