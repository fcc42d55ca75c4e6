//! One pixel that begins at the top left, and continuese step right and one down in every frame until it meets an edge.

use std::time::Duration;

use quintet_contract::frame::{Bitmap, Canvas};

use super::Animation;

/// One direction in which the dot moves.
#[derive(Clone, Copy, Debug)]
struct Axis {
    at: u16,
    last: u16,
    is_back: bool,
}

impl Axis {
    fn new(size: u16) -> Self {
        Self {
            at: 0,
            last: size.saturating_sub(1),
            is_back: false,
        }
    }

    fn step(&mut self) {
        if self.last == 0 {
            return;
        }
        if self.at == 0 {
            self.is_back = false;
        } else if self.at == self.last {
            self.is_back = true;
        }
        if self.is_back {
            self.at -= 1;
        } else {
            self.at += 1;
        }
    }
}

/// The effect.
#[derive(Debug)]
pub(super) struct BouncingDot {
    canvas: Canvas,
    x: Axis,
    y: Axis,
}

impl BouncingDot {
    pub(super) fn new(canvas: Canvas) -> Self {
        Self {
            canvas,
            x: Axis::new(canvas.width),
            y: Axis::new(canvas.height),
        }
    }
}

impl Animation for BouncingDot {
    fn draw(&mut self, _: Duration) -> Bitmap {
        let mut bitmap = Bitmap::dark(self.canvas);
        bitmap.set(self.x.at, self.y.at, true);
        self.x.step();
        self.y.step();
        bitmap
    }

    fn has_settings(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_bounces_off_every_edge() {
        let canvas = Canvas {
            width: 4,
            height: 2,
        };
        let mut dot = BouncingDot::new(canvas);
        let path: Vec<(u16, u16)> = (0..8)
            .map(|_| {
                let bitmap = dot.draw(Duration::ZERO);
                let mut all = (0..2).flat_map(|y| (0..4).map(move |x| (x, y)));
                all.find(|(x, y)| bitmap.is_lit(*x, *y)).unwrap()
            })
            .collect();
        let expected = [
            (0, 0),
            (1, 1),
            (2, 0),
            (3, 1),
            (2, 0),
            (1, 1),
            (0, 0),
            (1, 1),
        ];
        assert_eq!(path, expected);
        let mut one = BouncingDot::new(Canvas {
            width: 1,
            height: 1,
        });
        for _ in 0..3 {
            assert!(one.draw(Duration::ZERO).is_lit(0, 0));
        }
    }
}
