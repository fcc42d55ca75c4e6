//! Frames: what workers draw is checked, de-duplicated and throttled ([`core`]), and paced onto the panels of a display
//! ([`display`]). Both are pure: time is a [`std::time::Duration`] since any moment that stays the same.

pub mod core;
pub mod display;
