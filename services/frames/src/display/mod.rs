//! The display: it buffers frames, shows each for its time, and writes to its panels.

mod panel;
mod ring;
mod screen;

pub use panel::{BitOrder, Map, PanelError, Shown, flush_packet, view};
pub use ring::{Accepted, Full, Pace, Ring};
pub use screen::{Screen, reply};
