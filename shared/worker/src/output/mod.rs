//! Output of a program: assembled into lines in bounded memory, and limited in rate.

mod limit;
mod lines;

pub use limit::{Limiter, LogLimits};
pub use lines::{Line, LineSplitter};
