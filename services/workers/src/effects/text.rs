//! A line of text that runs to the left, in a font of 5×7 pixels. Characters take the columns that have ink.

use std::time::Duration;

use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_5X7;
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::*;
use embedded_graphics::text::{Baseline, Text as Line};
use quintet_contract::JsonObject;
use quintet_contract::frame::{Bitmap, Canvas};

use super::{Animation, SettingError, number};

/// Columns of a blank.
const BLANK: usize = 2;
/// Rows of the font.
const ROWS: u16 = 7;
/// What stands for a character that the font does not have.
const UNKNOWN: char = '?';
/// Longest text.
const MAX_CHARACTERS: usize = 10_000;

/// The effect.
#[derive(Debug)]
pub(super) struct Text {
    canvas: Canvas,
    /// Columns of the whole text; bit 0 is the top row.
    strip: Vec<u8>,
    /// Pixels per second.
    pps: f64,
}

impl Text {
    pub(super) fn new(settings: &JsonObject, canvas: Canvas) -> Result<Self, SettingError> {
        let text = match settings.get("text") {
            None => "HELLO FLIP-DISC",
            Some(text) => text
                .as_str()
                .filter(|text| text.chars().count() <= MAX_CHARACTERS)
                .ok_or(SettingError {
                    name: "text",
                    expected: "a text of at most 10000 characters",
                })?,
        };
        let is_spacing = |spacing: f64| spacing.fract() == 0.0 && (0.0..=100.0).contains(&spacing);
        let expected = "an integer from 0 to 100";
        let spacing = number(settings, "letter_spacing", 1.0, is_spacing, expected)?;
        let is_speed = |pps: f64| pps.is_finite() && pps >= 0.0;
        Ok(Self {
            canvas,
            strip: strip(text, spacing as usize),
            pps: number(settings, "pps", 10.0, is_speed, "a number, 0 or more")?,
        })
    }
}

impl Animation for Text {
    fn draw(&mut self, at: Duration) -> Bitmap {
        let mut bitmap = Bitmap::dark(self.canvas);
        let width = i64::from(self.canvas.width);
        // Nothing on nothing has no period.
        let period = (self.strip.len() as i64 + width).max(1);
        let offset = ((at.as_secs_f64() * self.pps).floor() as i64).rem_euclid(period);
        let top = (i32::from(self.canvas.height) - i32::from(ROWS)).div_euclid(2);
        for (place, column) in self.strip.iter().enumerate() {
            // It comes in from the right.
            let Ok(x) = u16::try_from(width - offset + place as i64) else {
                continue;
            };
            for row in (0..ROWS).filter(|row| column & (1 << row) != 0) {
                if let Ok(y) = u16::try_from(top + i32::from(row)) {
                    bitmap.set(x, y, true);
                }
            }
        }
        bitmap
    }
}

fn strip(text: &str, spacing: usize) -> Vec<u8> {
    let mut strip = Vec::new();
    for (place, character) in text.chars().enumerate() {
        if place > 0 {
            strip.resize(strip.len() + spacing, 0);
        }
        strip.extend(glyph(character));
    }
    strip
}

/// The columns of a character that have ink.
fn glyph(character: char) -> Vec<u8> {
    if character == ' ' {
        return vec![0; BLANK];
    }
    let character = match character {
        '!'..='~' => character,
        _ => UNKNOWN,
    };
    let mut cell = Cell([0; 5]);
    let style = MonoTextStyle::new(&FONT_5X7, BinaryColor::On);
    let mut buffer = [0; 4];
    let line = Line::with_baseline(
        character.encode_utf8(&mut buffer),
        Point::zero(),
        style,
        Baseline::Top,
    );
    let Ok(_) = line.draw(&mut cell);
    let first = cell.0.iter().position(|column| *column != 0);
    let last = cell.0.iter().rposition(|column| *column != 0);
    match (first, last) {
        (Some(first), Some(last)) => cell.0[first..=last].to_vec(),
        _ => vec![0; BLANK],
    }
}

/// What the font draws a character into.
struct Cell([u8; 5]);

impl OriginDimensions for Cell {
    fn size(&self) -> Size {
        Size::new(5, ROWS.into())
    }
}

impl DrawTarget for Cell {
    type Color = BinaryColor;
    type Error = std::convert::Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Self::Error>
    where
        I: IntoIterator<Item = Pixel<Self::Color>>,
    {
        for Pixel(point, color) in pixels {
            let column = usize::try_from(point.x).ok();
            let column = column.and_then(|column| self.0.get_mut(column));
            if let (Some(column), 0..=6, BinaryColor::On) = (column, point.y, color) {
                *column |= 1 << point.y;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(settings: serde_json::Value, canvas: Canvas) -> Result<Text, SettingError> {
        Text::new(settings.as_object().unwrap(), canvas)
    }

    fn image(bitmap: &Bitmap) -> Vec<String> {
        let canvas = bitmap.canvas();
        let pixel = |x, y| if bitmap.is_lit(x, y) { '#' } else { '.' };
        let row = |y| (0..canvas.width).map(|x| pixel(x, y)).collect();
        (0..canvas.height).map(row).collect()
    }

    #[test]
    fn every_character_has_ink_and_a_blank_is_two_wide() {
        for character in '!'..='~' {
            let columns = glyph(character);
            assert!(
                columns.first().is_some_and(|column| *column != 0),
                "{character}"
            );
            assert!(
                columns.last().is_some_and(|column| *column != 0),
                "{character}"
            );
            assert!(columns.len() <= 5, "{character}");
        }
        assert_eq!(glyph(' '), [0, 0]);
        assert_eq!(glyph('ß'), glyph('?'));
    }

    #[test]
    fn it_comes_in_from_the_right_goes_out_at_the_left_and_begins_again() {
        let canvas = Canvas {
            width: 6,
            height: 9,
        };
        let mut effect = text(json!({"text": "|", "pps": 2}), canvas).unwrap();
        let columns = |bitmap: &Bitmap| -> Vec<u16> {
            (0..6)
                .filter(|x| (0..9).any(|y| bitmap.is_lit(*x, y)))
                .collect()
        };
        let seen: Vec<Vec<u16>> = (0..8)
            .map(|half| columns(&effect.draw(Duration::from_millis(half * 500))))
            .collect();
        let expected = [
            vec![],
            vec![5],
            vec![4],
            vec![3],
            vec![2],
            vec![1],
            vec![0],
            vec![],
        ];
        assert_eq!(seen, expected);
        let bitmap = effect.draw(Duration::from_millis(500));
        let rows = image(&bitmap);
        assert!(
            !rows[0].contains('#') && !rows[8].contains('#'),
            "{rows:#?}"
        );
    }

    #[test]
    fn wrong_settings_are_refused() {
        let canvas = Canvas {
            width: 28,
            height: 14,
        };
        for wrong in [
            json!({"text": 5}),
            json!({"pps": -1}),
            json!({"letter_spacing": 1.5}),
            json!({"pps": "fast"}),
        ] {
            assert!(text(wrong.clone(), canvas).is_err(), "{wrong}");
        }
        assert!(text(json!({"text": ""}), canvas).is_ok());
    }
}
