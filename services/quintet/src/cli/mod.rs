//! The command line: its arguments, exit codes and standard output.

pub(crate) mod args;
pub mod exit;
pub(crate) mod global;
pub(crate) mod stdout;
