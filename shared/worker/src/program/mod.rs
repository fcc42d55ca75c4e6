//! The contract with the program of a node of kind `command`, wherever it is started: its input ([`ProgramInput`]),
//! its events ([`ProgramEvent`]), and what its exit code means.

mod input;
mod stdout_event;

pub use input::{MAX_VARIABLE_BYTES, ProgramInput};
pub use stdout_event::{MAX_EVENT_BYTES, ProgramEvent};

/// A program that exits so has failed, but another attempt may help; zero is success, everything else failure.
pub const EXIT_RETRYABLE: i32 = 3;
