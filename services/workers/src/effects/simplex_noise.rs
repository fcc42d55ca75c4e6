//! OpenSimplex noise that flows: lit where it is above a threshold.

use std::time::Duration;

use noise::{NoiseFn, OpenSimplex};
use quintet_contract::JsonObject;
use quintet_contract::frame::{Bitmap, Canvas};

use super::{Animation, SettingError, number};

/// The effect.
pub(super) struct SimplexNoise {
    canvas: Canvas,
    noise: OpenSimplex,
    scale: f64,
    step: f64,
    threshold: f64,
}

impl SimplexNoise {
    pub(super) fn new(settings: &JsonObject, canvas: Canvas) -> Result<Self, SettingError> {
        let is_seed =
            |seed: f64| seed.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&seed);
        let seed = number(
            settings,
            "seed",
            0.0,
            is_seed,
            "an integer from 0 to 4294967295",
        )?;
        Ok(Self {
            canvas,
            noise: OpenSimplex::new(seed as u32),
            scale: number(
                settings,
                "scale",
                4.0,
                |scale| scale > 0.0,
                "a number above 0",
            )?,
            step: number(settings, "step", 0.05, f64::is_finite, "a number")?,
            threshold: number(settings, "threshold", 128.0, f64::is_finite, "a number")?,
        })
    }
}

impl Animation for SimplexNoise {
    fn draw(&mut self, at: Duration) -> Bitmap {
        let mut bitmap = Bitmap::dark(self.canvas);
        let z = at.as_secs_f64() * self.step;
        for y in 0..self.canvas.height {
            for x in 0..self.canvas.width {
                let place = [f64::from(x) / self.scale, f64::from(y) / self.scale, z];
                let level = ((self.noise.get(place) + 1.0) / 2.0 * 255.0).floor();
                bitmap.set(x, y, level > self.threshold);
            }
        }
        bitmap
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CANVAS: Canvas = Canvas {
        width: 28,
        height: 14,
    };

    fn drawn(settings: serde_json::Value, at: u64) -> Bitmap {
        let settings = settings.as_object().cloned().unwrap();
        let mut effect = SimplexNoise::new(&settings, CANVAS).unwrap();
        effect.draw(Duration::from_secs(at))
    }

    #[test]
    fn it_follows_from_its_seed_and_the_time_and_its_threshold_decides_what_is_lit() {
        assert_eq!(drawn(json!({"seed": 7}), 3), drawn(json!({"seed": 7}), 3));
        assert_ne!(drawn(json!({"seed": 7}), 3), drawn(json!({"seed": 8}), 3));
        assert_ne!(drawn(json!({"seed": 7}), 3), drawn(json!({"seed": 7}), 30));
        assert_eq!(drawn(json!({"threshold": 255}), 0), Bitmap::dark(CANVAS));
        let mut lit = Bitmap::dark(CANVAS);
        lit.invert();
        assert_eq!(drawn(json!({"threshold": -1}), 0), lit);
        let wrong = json!({"scale": 0}).as_object().cloned().unwrap();
        let error = SimplexNoise::new(&wrong, CANVAS).err().unwrap();
        assert_eq!(error.to_string(), "scale must be a number above 0");
    }
}
