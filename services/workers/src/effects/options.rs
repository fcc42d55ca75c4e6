//! Options of every effect's image: `invert`, `flip_h`, `flip_v`, `rotate180`, in this order.

use quintet_contract::JsonObject;
use quintet_contract::frame::Bitmap;

use super::SettingError;

/// Which of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    invert: bool,
    flip_h: bool,
    flip_v: bool,
    rotate180: bool,
}

impl Options {
    /// Reads them from an effect's settings.
    pub(super) fn read(settings: &JsonObject) -> Result<Self, SettingError> {
        let switch = |name: &'static str| match settings.get(name) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or(SettingError {
                name,
                expected: "true or false",
            }),
        };
        Ok(Self {
            invert: switch("invert")?,
            flip_h: switch("flip_h")?,
            flip_v: switch("flip_v")?,
            rotate180: switch("rotate180")?,
        })
    }

    /// The image with them.
    pub(super) fn apply(self, mut bitmap: Bitmap) -> Bitmap {
        if self.invert {
            bitmap.invert();
        }
        // Half a turn exchanges both: what is done twice is not done.
        let is_mirrored = self.flip_h != self.rotate180;
        let is_upside_down = self.flip_v != self.rotate180;
        if !is_mirrored && !is_upside_down {
            return bitmap;
        }
        let canvas = bitmap.canvas();
        let mut turned = Bitmap::dark(canvas);
        for y in 0..canvas.height {
            for x in 0..canvas.width {
                let from_x = if is_mirrored { canvas.width - 1 - x } else { x };
                let from_y = if is_upside_down {
                    canvas.height - 1 - y
                } else {
                    y
                };
                turned.set(x, y, bitmap.is_lit(from_x, from_y));
            }
        }
        turned
    }
}

#[cfg(test)]
mod tests {
    use quintet_contract::frame::Canvas;
    use serde_json::json;

    use super::*;

    #[test]
    fn each_option_does_what_it_names_and_half_a_turn_is_both_flips() {
        let canvas = Canvas {
            width: 9,
            height: 3,
        };
        let mut corner = Bitmap::dark(canvas);
        corner.set(1, 0, true);
        let with = |settings: serde_json::Value| {
            let settings = settings.as_object().cloned().unwrap();
            Options::read(&settings).unwrap().apply(corner.clone())
        };
        let lit = |bitmap: &Bitmap| -> Vec<(u16, u16)> {
            let all = (0..3).flat_map(|y| (0..9).map(move |x| (x, y)));
            all.filter(|(x, y)| bitmap.is_lit(*x, *y)).collect()
        };
        assert_eq!(lit(&with(json!({}))), [(1, 0)]);
        assert_eq!(lit(&with(json!({"flip_h": true}))), [(7, 0)]);
        assert_eq!(lit(&with(json!({"flip_v": true}))), [(1, 2)]);
        assert_eq!(lit(&with(json!({"rotate180": true}))), [(7, 2)]);
        let all = json!({"flip_h": true, "flip_v": true, "rotate180": true});
        assert_eq!(lit(&with(all)), [(1, 0)]);
        let inverted = with(json!({"invert": true}));
        assert_eq!(lit(&inverted).len(), 26);
        assert!(!inverted.is_lit(1, 0));
        let wrong = json!({"invert": "yes"}).as_object().cloned().unwrap();
        let error = Options::read(&wrong).unwrap_err().to_string();
        assert_eq!(error, "invert must be true or false");
    }
}
