//! The frames service: drives one display with the frames of the worker that an operator chose.
//!
//! It owns the desired state (which worker is active, the rate, the settings of workers) and the display itself: the frames
//! that wait, the image that is shown, the line to the panels. It refuses frames that no active worker drew, that are
//! invalid, and that are more than the display can show. Several may run; the holder of the lease drives the display, the
//! others stand by.
//!
//! ```text
//!   standby ──lease──▶ loading ──▶ driving ──lease lost──▶ standby
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
