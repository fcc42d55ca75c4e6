//! Parts of the canvas as panels see them, and the packets that panels read from their RS-485 line.
//!
//! ```text
//! 0x80 │ command │ address │ one byte per column │ 0x8F
//! ```
//!
//! The command sets how many columns there are, and whether they are shown at once or when the flush packet comes.

use quintet_contract::display::{Orientation, Panel};
use quintet_contract::frame::{Bitmap, Canvas};
use serde::{Deserialize, Serialize};

const BEGIN: u8 = 0x80;
const END: u8 = 0x8F;
/// The command that makes all panels show what they were sent.
const FLUSH: u8 = 0x82;
/// Rows of the tallest panel: a byte of a column has seven bits, the eighth begins a packet.
const MAX_ROWS: u16 = 7;

/// Which bit of a column's byte is its top pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BitOrder {
    /// The highest that is used: 0x40 of a panel with seven rows.
    #[default]
    MsbTop,
    /// The lowest.
    LsbTop,
}

/// Why panels do not fit a canvas.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PanelError {
    /// A part of it would show nothing.
    #[error("panel {id} lies outside of the canvas of {canvas}; change its origin or size")]
    Outside {
        /// The panel.
        id: String,
        /// What there is.
        canvas: Canvas,
    },
    /// No packet could hold so many columns.
    #[error("panel {id} has {columns} columns as it is mounted; panels have 7, 14 or 28")]
    Columns {
        /// The panel.
        id: String,
        /// Its columns.
        columns: u16,
    },
    /// A byte has no room for so many rows.
    #[error("panel {id} has {rows} rows as it is mounted; panels have 1 to 7")]
    Rows {
        /// The panel.
        id: String,
        /// Its rows.
        rows: u16,
    },
    /// Two panels have the same name or number.
    #[error("two panels have the {what} {value}; each needs its own")]
    Twice {
        /// `id` or `address`.
        what: &'static str,
        /// What both have.
        value: String,
    },
}

/// When panels show what they are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// At once.
    #[default]
    Instantly,
    /// All together, when the flush packet comes.
    Together,
}

/// Panels that fit their canvas.
#[derive(Clone, Debug)]
pub struct Map {
    panels: Vec<Panel>,
    bit_order: BitOrder,
}

/// Columns and rows of a panel as it is mounted.
fn mounted(panel: &Panel) -> (u16, u16) {
    let (w, h) = (panel.size.w, panel.size.h);
    match panel.orientation {
        Orientation::Rot90 | Orientation::Rot270 => (h, w),
        Orientation::Normal | Orientation::Rot180 | Orientation::FlipH | Orientation::FlipV => {
            (w, h)
        }
    }
}

/// What a panel shows of a canvas, as it is mounted.
pub fn view(panel: &Panel, canvas: &Bitmap) -> Bitmap {
    let (columns, rows) = mounted(panel);
    let (w, h) = (panel.size.w, panel.size.h);
    let mut view = Bitmap::dark(Canvas {
        width: columns,
        height: rows,
    });
    for y in 0..h {
        for x in 0..w {
            if !canvas.is_lit(panel.origin.x + x, panel.origin.y + y) {
                continue;
            }
            let (to_x, to_y) = match panel.orientation {
                Orientation::Normal => (x, y),
                Orientation::Rot90 => (h - 1 - y, x),
                Orientation::Rot180 => (w - 1 - x, h - 1 - y),
                Orientation::Rot270 => (y, w - 1 - x),
                Orientation::FlipH => (w - 1 - x, y),
                Orientation::FlipV => (x, h - 1 - y),
            };
            view.set(to_x, to_y, true);
        }
    }
    view
}

fn check(panel: &Panel, canvas: Canvas) -> Result<(), PanelError> {
    let id = || panel.id.clone();
    let is_inside = |origin: u16, size: u16, room: u16| {
        size > 0 && origin.checked_add(size).is_some_and(|end| end <= room)
    };
    let (origin, size) = (panel.origin, panel.size);
    if !is_inside(origin.x, size.w, canvas.width) || !is_inside(origin.y, size.h, canvas.height) {
        return Err(PanelError::Outside { id: id(), canvas });
    }
    let (columns, rows) = mounted(panel);
    if command(columns, Shown::Instantly).is_none() {
        return Err(PanelError::Columns { id: id(), columns });
    }
    if rows > MAX_ROWS {
        return Err(PanelError::Rows { id: id(), rows });
    }
    Ok(())
}

impl Map {
    /// Checks panels.
    pub fn new(
        panels: Vec<Panel>,
        bit_order: BitOrder,
        canvas: Canvas,
    ) -> Result<Self, PanelError> {
        for (place, panel) in panels.iter().enumerate() {
            check(panel, canvas)?;
            for other in &panels[..place] {
                let twice = |what, value: String| Err(PanelError::Twice { what, value });
                if other.id == panel.id {
                    return twice("id", panel.id.clone());
                }
                if other.address == panel.address {
                    return twice("address", panel.address.to_string());
                }
            }
        }
        Ok(Self { panels, bit_order })
    }

    /// The panels in their order.
    pub fn panels(&self) -> &[Panel] {
        &self.panels
    }

    /// The packet for each panel; what is shown together needs a [`flush_packet`] after the last.
    pub fn packets(&self, canvas: &Bitmap, shown: Shown) -> Vec<Vec<u8>> {
        let of = |panel: &Panel| {
            let view = view(panel, canvas);
            let columns = view.canvas().width;
            let mut packet = Vec::with_capacity(usize::from(columns) + 4);
            let command = command(columns, shown).expect("the panels were checked");
            packet.extend([BEGIN, command, panel.address]);
            packet.extend((0..columns).map(|x| self.column(&view, x)));
            packet.push(END);
            packet
        };
        self.panels.iter().map(of).collect()
    }

    fn column(&self, view: &Bitmap, x: u16) -> u8 {
        let rows = view.canvas().height;
        (0..rows).filter(|y| view.is_lit(x, *y)).fold(0, |byte, y| {
            let bit = match self.bit_order {
                BitOrder::MsbTop => rows - 1 - y,
                BitOrder::LsbTop => y,
            };
            byte | (1 << bit)
        })
    }
}

/// Makes all panels show what they were sent.
pub fn flush_packet() -> [u8; 3] {
    [BEGIN, FLUSH, END]
}

fn command(columns: u16, shown: Shown) -> Option<u8> {
    Some(match (columns, shown) {
        (28, Shown::Instantly) => 0x83,
        (14, Shown::Instantly) => 0x92,
        (7, Shown::Instantly) => 0x87,
        (28, Shown::Together) => 0x84,
        (14, Shown::Together) => 0x93,
        (7, Shown::Together) => 0x86,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use quintet_contract::display::{Origin, PanelSize};

    use super::*;

    const CANVAS: Canvas = Canvas {
        width: 28,
        height: 14,
    };

    fn panel(id: &str, address: u8, origin: (u16, u16), size: (u16, u16)) -> Panel {
        Panel {
            id: id.to_owned(),
            address,
            origin: Origin {
                x: origin.0,
                y: origin.1,
            },
            size: PanelSize {
                w: size.0,
                h: size.1,
            },
            orientation: Orientation::Normal,
        }
    }

    fn two() -> Vec<Panel> {
        vec![
            panel("top", 1, (0, 0), (28, 7)),
            panel("bottom", 2, (0, 7), (28, 7)),
        ]
    }

    fn lit(pixels: &[(u16, u16)]) -> Bitmap {
        let mut bitmap = Bitmap::dark(CANVAS);
        for (x, y) in pixels {
            bitmap.set(*x, *y, true);
        }
        bitmap
    }

    #[test]
    fn the_first_pixel_lit_is_these_bytes() {
        let map = Map::new(two(), BitOrder::MsbTop, CANVAS).unwrap();
        let packets = map.packets(&lit(&[(0, 0)]), Shown::Instantly);
        let top = [&[0x80, 0x83, 1, 0x40][..], &[0; 27], &[0x8F]].concat();
        let bottom = [&[0x80, 0x83, 2][..], &[0; 28], &[0x8F]].concat();
        assert_eq!(packets, [top, bottom]);
        let together = map.packets(&lit(&[(0, 13)]), Shown::Together);
        assert_eq!(together[1][..4], [0x80, 0x84, 2, 0x01]);
        assert_eq!(flush_packet(), [0x80, 0x82, 0x8F]);
        let map = Map::new(two(), BitOrder::LsbTop, CANVAS).unwrap();
        let packets = map.packets(&lit(&[(0, 0), (1, 6)]), Shown::Instantly);
        assert_eq!(packets[0][3..5], [0x01, 0x40]);
    }

    #[test]
    fn every_orientation_moves_the_corners_as_named_also_where_sides_differ() {
        // The pixel right of the top left corner of a part that is 14 wide and 7 high.
        let corner = lit(&[(3, 5)]);
        for (orientation, columns, rows, at) in [
            (Orientation::Normal, 14, 7, (1, 0)),
            (Orientation::Rot90, 7, 14, (6, 1)),
            (Orientation::Rot180, 14, 7, (12, 6)),
            (Orientation::Rot270, 7, 14, (0, 12)),
            (Orientation::FlipH, 14, 7, (12, 0)),
            (Orientation::FlipV, 14, 7, (1, 6)),
        ] {
            let mut panel = panel("p", 1, (2, 5), (14, 7));
            panel.orientation = orientation;
            let view = view(&panel, &corner);
            let expected = Canvas {
                width: columns,
                height: rows,
            };
            assert_eq!(view.canvas(), expected, "{orientation:?}");
            let mut only = Bitmap::dark(expected);
            only.set(at.0, at.1, true);
            assert_eq!(view, only, "{orientation:?}");
        }
    }

    #[test]
    fn panels_that_do_not_fit_are_refused() {
        let refused = |panels: Vec<Panel>| {
            let map = Map::new(panels, BitOrder::MsbTop, CANVAS);
            map.unwrap_err().to_string()
        };
        let outside = "panel p lies outside of the canvas of 28x14; change its origin or size";
        assert_eq!(refused(vec![panel("p", 1, (1, 0), (28, 7))]), outside);
        assert_eq!(refused(vec![panel("p", 1, (0, 65_535), (28, 7))]), outside);
        assert_eq!(refused(vec![panel("p", 1, (0, 0), (0, 7))]), outside);
        assert_eq!(
            refused(vec![panel("p", 1, (0, 0), (10, 7))]),
            "panel p has 10 columns as it is mounted; panels have 7, 14 or 28"
        );
        let mut turned = panel("p", 1, (0, 0), (14, 7));
        turned.orientation = Orientation::Rot90;
        assert_eq!(
            refused(vec![turned]),
            "panel p has 14 rows as it is mounted; panels have 1 to 7"
        );
        let mut same = two();
        same[1].address = 1;
        assert_eq!(
            refused(same),
            "two panels have the address 1; each needs its own"
        );
    }
}
