//! Effects: pictures that move. Each is pure: what it draws follows from its settings, the time and what it drew before.

mod bouncing_dot;
mod options;
mod simplex_noise;
mod text;

use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::frame::{Bitmap, Canvas};

pub use options::Options;

/// An effect that draws one frame after the other.
pub trait Effect: Send {
    /// The next frame; `at` is how long the effect has been shown.
    fn draw(&mut self, at: Duration) -> Bitmap;
}

/// A setting that is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} must be {expected}")]
pub struct SettingError {
    name: &'static str,
    expected: &'static str,
}

/// The names of all effects.
pub const NAMES: [&str; 3] = ["bouncing-dot", "text", "simplex-noise"];

/// An effect by its name; what a setting lacks has its default.
pub fn make(
    name: &str,
    settings: &JsonObject,
    canvas: Canvas,
) -> Option<Result<Box<dyn Effect>, SettingError>> {
    let boxed = |effect: Box<dyn Effect>| effect;
    Some(match name {
        "bouncing-dot" => Ok(boxed(Box::new(bouncing_dot::BouncingDot::new(canvas)))),
        "text" => text::Text::new(settings, canvas).map(|effect| boxed(Box::new(effect))),
        "simplex-noise" => {
            simplex_noise::SimplexNoise::new(settings, canvas).map(|effect| boxed(Box::new(effect)))
        }
        _ => return None,
    })
}

/// A number of the settings, or its default.
fn number(
    settings: &JsonObject,
    name: &'static str,
    default: f64,
    is_good: impl Fn(f64) -> bool,
    expected: &'static str,
) -> Result<f64, SettingError> {
    match settings.get(name) {
        None => Ok(default),
        Some(value) => value
            .as_f64()
            .filter(|number| is_good(*number))
            .ok_or(SettingError { name, expected }),
    }
}
