//! Effects: images that move, each a worker of frames on the bus, all of them one program.
//!
//! - `bouncing_dot`, `text`, `simplex_noise`: what they draw follows from their settings, the time and what they drew
//!   before; `options` transforms every image.
//! - `player`: the core of one of them, which decides when it draws and what it publishes.
//! - `runner`: the driver, which connects players with the bus.

mod bouncing_dot;
mod options;
mod player;
mod runner;
mod simplex_noise;
mod text;

use std::time::Duration;

use quintet_contract::JsonObject;
use quintet_contract::frame::{Bitmap, Canvas};

use options::Options;

pub use runner::{EffectsConfig, run};

/// An effect that draws one frame after the other.
trait Animation: Send {
    /// The next frame; `at` is how long the effect has been shown.
    fn draw(&mut self, at: Duration) -> Bitmap;

    /// Whether its image depends on settings. An effect without settings continues when they change.
    fn has_settings(&self) -> bool {
        true
    }
}

/// An invalid setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} must be {expected}")]
struct SettingError {
    name: &'static str,
    expected: &'static str,
}

/// The effects that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    BouncingDot,
    Text,
    SimplexNoise,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::BouncingDot, Self::Text, Self::SimplexNoise];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BouncingDot => "bouncing-dot",
            Self::Text => "text",
            Self::SimplexNoise => "simplex-noise",
        }
    }

    /// Makes the effect; what its settings lack has its default.
    fn make(
        self,
        settings: &JsonObject,
        canvas: Canvas,
    ) -> Result<Box<dyn Animation>, SettingError> {
        Ok(match self {
            Self::BouncingDot => Box::new(bouncing_dot::BouncingDot::new(canvas)),
            Self::Text => Box::new(text::Text::new(settings, canvas)?),
            Self::SimplexNoise => Box::new(simplex_noise::SimplexNoise::new(settings, canvas)?),
        })
    }
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
