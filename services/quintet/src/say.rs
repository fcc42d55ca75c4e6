//! Lines for people and scripts on standard output. Whoever closed it does not want to read any more, which is no
//! reason for a running system to end, as it would with `println!`.

use std::fmt::Display;
use std::io::Write;

/// Writes a line at once.
pub(crate) fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
