//! What a display does with frames: it holds some, shows each for its time, and speaks to its panels.

mod panel;
mod ring;
mod screen;

pub use panel::{BitOrder, Map, PanelError, Shown, flush_packet, view};
pub use ring::{Accepted, Full, Pace, Ring};
pub use screen::{Screen, reply};
