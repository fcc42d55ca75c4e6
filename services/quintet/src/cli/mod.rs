//! The command line's basics: options of every command, exit codes and standard output.

pub mod exit;
pub(crate) mod global;
pub(crate) mod stdout;
