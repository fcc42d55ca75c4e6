//! The frames service: drives one display with the frames of the worker that a person chose.
//!
//! It owns who is active, how fast frames come, what each worker is set to, and the display itself: the frames that wait, the
//! picture that is shown, the line to the panels. It refuses to show what no active worker drew, what is no frame, and more
//! than the display can. Several may run; whoever holds the lease drives the display, the others stand by.
//!
//! ```text
//!   waiting ──lease──▶ loading ──▶ driving ──lease lost──▶ waiting
//!                                     │
//!                                     └── asked to end: lease released, another drives at once
//! ```

mod config;
pub mod core;
pub mod display;
mod driver;
mod error;
mod inbound;
mod line;
pub mod metrics;
mod outbound;
mod processes;

pub use config::{ConfigError, Display, FramesConfig, Line, ProcessSpec};
pub use driver::run;
pub use error::Error;
