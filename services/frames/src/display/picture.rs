//! Pictures of a bitmap for people: a PNG, and half blocks for a terminal.

use quintet_contract::frame::Bitmap;

/// Most pixels of a picture for one of the canvas, in each direction.
pub const MAX_SCALE: u16 = 64;

const LIT: u8 = 0;
const UNLIT: u8 = 255;

/// An 8-bit grayscale PNG in which each pixel is a square of `scale` × `scale`, between 1 and [`MAX_SCALE`]: lit ones are
/// black, as ink on paper.
pub fn png(bitmap: &Bitmap, scale: u16) -> Vec<u8> {
    let scale = usize::from(scale.clamp(1, MAX_SCALE));
    let canvas = bitmap.canvas();
    let (width, height) = (
        usize::from(canvas.width) * scale,
        usize::from(canvas.height) * scale,
    );
    let mut pixels = Vec::with_capacity(width * height);
    for y in 0..canvas.height {
        let begin = pixels.len();
        for x in 0..canvas.width {
            let level = if bitmap.is_lit(x, y) { LIT } else { UNLIT };
            pixels.resize(pixels.len() + scale, level);
        }
        for _ in 1..scale {
            pixels.extend_from_within(begin..begin + width);
        }
    }
    let mut file = Vec::new();
    // Sides of at most 64 × 65 535 pixels fit.
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let written = encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&pixels));
    written.expect("memory takes what is written, and the pixels are as many as the header says");
    file
}

/// Lines of half blocks: two rows of pixels each.
pub fn half_blocks(bitmap: &Bitmap) -> String {
    let canvas = bitmap.canvas();
    let mut text = String::new();
    for y in (0..canvas.height).step_by(2) {
        for x in 0..canvas.width {
            text.push(match (bitmap.is_lit(x, y), bitmap.is_lit(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use quintet_contract::frame::Canvas;

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

    #[test]
    fn every_pixel_is_a_square_of_its_level() {
        let file = png(&bitmap(), 4);
        let mut reader = png::Decoder::new(std::io::Cursor::new(file))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; 12 * 12];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (12, 12));
        assert_eq!(info.color_type, png::ColorType::Grayscale);
        assert_eq!(info.bit_depth, png::BitDepth::Eight);
        for (place, level) in pixels.iter().enumerate() {
            let (x, y) = (place % 12 / 4, place / 12 / 4);
            let is_lit = bitmap().is_lit(x as u16, y as u16);
            assert_eq!(*level, if is_lit { 0 } else { 255 }, "{x} {y}");
        }
    }

    #[test]
    fn two_rows_are_one_line_of_a_terminal() {
        assert_eq!(half_blocks(&bitmap()), "█▄ \n  ▀\n");
    }
}
