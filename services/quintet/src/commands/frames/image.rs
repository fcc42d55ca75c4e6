//! What the display shows as text: read from a PNG of one pixel per disc, drawn with half blocks in a frame.

use std::io::Cursor;

use anyhow::Context;
use png::{BitDepth, ColorType, Decoder};
use quintet_contract::frame::{Bitmap, Canvas};

/// What is darker is lit.
const MIDDLE: u8 = 128;

/// Rows and columns of characters that there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) rows: u16,
    pub(super) columns: u16,
}

/// The pixels of an image in which each is one disc.
pub(super) fn read(file: &[u8]) -> anyhow::Result<Bitmap> {
    let mut reader = Decoder::new(Cursor::new(file))
        .read_info()
        .context("the image is no PNG")?;
    let info = reader.info();
    anyhow::ensure!(
        (info.color_type, info.bit_depth) == (ColorType::Grayscale, BitDepth::Eight),
        "the image is none of a display: {:?} of {:?} bits",
        info.color_type,
        info.bit_depth
    );
    let side = |length: u32| u16::try_from(length).context("the image is too large");
    let canvas = Canvas {
        width: side(info.width)?,
        height: side(info.height)?,
    };
    let mut bitmap = Bitmap::dark(canvas);
    for y in 0..canvas.height {
        let row = reader.next_row().context("the image is broken")?;
        let row = row.context("the image breaks off")?;
        for (x, level) in (0..canvas.width).zip(row.data()) {
            bitmap.set(x, y, *level < MIDDLE);
        }
    }
    Ok(bitmap)
}

/// Lines of half blocks: two rows of pixels each.
pub(super) fn half_blocks(bitmap: &Bitmap) -> Vec<String> {
    let canvas = bitmap.canvas();
    let block = |x, y: u16| match (bitmap.is_lit(x, y), bitmap.is_lit(x, y.saturating_add(1))) {
        (true, true) => '█',
        (true, false) => '▀',
        (false, true) => '▄',
        (false, false) => ' ',
    };
    let line = |y| (0..canvas.width).map(|x| block(x, y)).collect();
    (0..canvas.height).step_by(2).map(line).collect()
}

/// The same in a frame: a display that is dark would be nothing to see. What does not fit is left out, which the frame shows
/// by being open there.
pub(super) fn framed(bitmap: &Bitmap, size: Option<Size>) -> Vec<String> {
    let canvas = bitmap.canvas();
    let (width, height) = (
        usize::from(canvas.width),
        usize::from(canvas.height).div_ceil(2),
    );
    let (columns, rows) = size.map_or((width, height), |size| {
        let inside = |size: u16| usize::from(size.saturating_sub(2));
        (
            inside(size.columns).min(width),
            inside(size.rows).min(height),
        )
    });
    let edge = |left: char, right: char| {
        let right = if columns < width { '─' } else { right };
        format!("{left}{}{right}", "─".repeat(columns))
    };
    let side = if columns < width { ' ' } else { '│' };
    let inside = half_blocks(bitmap).into_iter().take(rows).map(|line| {
        let line: String = line.chars().take(columns).collect();
        format!("│{line}{side}")
    });
    let mut lines = vec![edge('┌', '┐')];
    lines.extend(inside);
    if rows == height {
        lines.push(edge('└', '┘'));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bitmap() -> Bitmap {
        let mut bitmap = Bitmap::dark(Canvas {
            width: 3,
            height: 3,
        });
        for (x, y) in [(0, 0), (1, 1), (0, 1), (2, 2)] {
            bitmap.set(x, y, true);
        }
        bitmap
    }

    fn png(color: ColorType, bytes: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 3, 3);
        encoder.set_color(color);
        encoder.set_depth(BitDepth::Eight);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(bytes).unwrap();
        drop(writer);
        file
    }

    #[test]
    fn two_rows_are_one_line_of_a_terminal() {
        assert_eq!(half_blocks(&bitmap()), ["█▄ ", "  ▀"]);
    }

    #[test]
    fn black_pixels_of_an_image_are_lit() {
        let file = png(ColorType::Grayscale, &[0, 255, 255, 0, 0, 255, 255, 255, 0]);
        assert_eq!(read(&file).unwrap(), bitmap());
        assert!(read(&file[..50]).is_err());
        assert!(read(b"<html>").is_err());
        let error = read(&png(ColorType::Rgb, &[0; 27])).unwrap_err();
        assert!(error.to_string().contains("none of a display"), "{error}");
    }

    #[test]
    fn the_frame_is_open_where_something_is_left_out() {
        let whole = ["┌───┐", "│█▄ │", "│  ▀│", "└───┘"];
        assert_eq!(framed(&bitmap(), None), whole);
        let size = |rows, columns| Some(Size { rows, columns });
        assert_eq!(framed(&bitmap(), size(40, 80)), whole);
        assert_eq!(framed(&bitmap(), size(3, 4)), ["┌───", "│█▄ "]);
    }
}
