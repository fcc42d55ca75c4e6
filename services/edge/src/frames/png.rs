//! Draws a bitmap as a PNG, part by part: a large canvas at a large scale is gigabytes of pixels, of which only two rows
//! are ever in memory.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use png::{BitDepth, ColorType, Compression, Encoder, EncodingError, Filter, StreamWriter};
use quintet_contract::frame::Bitmap;

/// Most pixels of an image for one of the bitmap, in each direction.
pub(crate) const MAX_SCALE: u16 = 64;
/// Bytes of the file from which on they are given away.
const PART_BYTES: usize = 16 * 1024;

const LIT: u8 = 0;
const UNLIT: u8 = 255;

/// A PNG that is being drawn: 8-bit grayscale, every pixel of the bitmap a square; lit ones are black, as ink on paper.
pub(crate) struct PngDrawing {
    bitmap: Bitmap,
    scale: u16,
    /// The row of the bitmap that is drawn next.
    row: u16,
    /// Where the file is written to.
    output: Output,
    /// None when everything is drawn.
    writer: Option<StreamWriter<'static, Output>>,
}

/// Bytes of the file that are not taken yet; clones are the same.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PngDrawing {
    /// Begins to draw; each pixel becomes `scale` × `scale`, between 1 and [`MAX_SCALE`].
    pub(crate) fn new(bitmap: Bitmap, scale: u16) -> Result<Self, EncodingError> {
        let scale = scale.clamp(1, MAX_SCALE);
        let side = |length: u16| u32::from(length) * u32::from(scale);
        let (width, height) = (side(bitmap.canvas().width), side(bitmap.canvas().height));
        let output = Output::default();
        let mut encoder = Encoder::new(output.clone(), width, height);
        encoder.set_color(ColorType::Grayscale);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_compression(Compression::Fastest);
        // Most rows are the same as the one above.
        encoder.set_filter(Filter::Up);
        let writer = encoder.write_header()?.into_stream_writer()?;
        Ok(Self {
            bitmap,
            scale,
            row: 0,
            output,
            writer: Some(writer),
        })
    }

    /// Pixels of the image.
    pub(crate) fn pixels(&self) -> u64 {
        let canvas = self.bitmap.canvas();
        let area = u64::from(canvas.width) * u64::from(canvas.height);
        area * u64::from(self.scale).pow(2)
    }

    /// Draws until there is enough to be given away; none when everything was.
    pub(crate) fn part(&mut self) -> Result<Option<Vec<u8>>, EncodingError> {
        let canvas = self.bitmap.canvas();
        while let Some(writer) = &mut self.writer {
            if self.row < canvas.height {
                let line = line(&self.bitmap, self.row, self.scale);
                for _ in 0..self.scale {
                    writer.write_all(&line)?;
                }
                self.row += 1;
            } else if let Some(writer) = self.writer.take() {
                writer.finish()?;
            }
            if self.output.len() >= PART_BYTES {
                break;
            }
        }
        let part = self.output.take();
        Ok((!part.is_empty()).then_some(part))
    }

    /// The whole file.
    pub(crate) fn whole(mut self) -> Result<Vec<u8>, EncodingError> {
        let mut file = Vec::new();
        while let Some(part) = self.part()? {
            file.extend(part);
        }
        Ok(file)
    }
}

/// A row of the bitmap as a row of the image.
fn line(bitmap: &Bitmap, row: u16, scale: u16) -> Vec<u8> {
    let width = bitmap.canvas().width;
    let mut line = Vec::with_capacity(usize::from(width) * usize::from(scale));
    for column in 0..width {
        let level = if bitmap.is_lit(column, row) {
            LIT
        } else {
            UNLIT
        };
        line.resize(line.len() + usize::from(scale), level);
    }
    line
}

#[cfg(test)]
mod tests {
    use quintet_contract::frame::Canvas;

    use super::*;

    fn checkered(width: u16, height: u16) -> Bitmap {
        let mut bitmap = Bitmap::dark(Canvas { width, height });
        for y in 0..height {
            for x in 0..width {
                bitmap.set(x, y, (x * 7 + y * 3) % 5 < 2);
            }
        }
        bitmap
    }

    #[test]
    fn every_pixel_is_a_square_of_its_level() {
        for (width, height, scale) in [(28, 14, 10), (3, 5, 1), (1, 1, 64), (9, 2, 7)] {
            let bitmap = checkered(width, height);
            let file = PngDrawing::new(bitmap.clone(), scale)
                .unwrap()
                .whole()
                .unwrap();
            let mut reader = png::Decoder::new(io::Cursor::new(file))
                .read_info()
                .unwrap();
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut pixels).unwrap();
            let (wide, high) = (usize::from(width * scale), usize::from(height * scale));
            assert_eq!((info.width as usize, info.height as usize), (wide, high));
            assert_eq!(info.color_type, ColorType::Grayscale);
            assert_eq!(info.bit_depth, BitDepth::Eight);
            for (place, level) in pixels.iter().enumerate() {
                let (x, y) = (
                    place % wide / usize::from(scale),
                    place / wide / usize::from(scale),
                );
                let is_lit = bitmap.is_lit(x as u16, y as u16);
                assert_eq!(*level, if is_lit { 0 } else { 255 }, "{x} {y}");
            }
        }
    }

    #[test]
    fn a_large_image_is_sent_in_small_parts() {
        let mut drawing = PngDrawing::new(checkered(512, 64), 32).unwrap();
        assert_eq!(drawing.pixels(), 512 * 64 * 32 * 32);
        let (mut parts, mut largest, mut last) = (0, 0, Vec::new());
        while let Some(part) = drawing.part().unwrap() {
            parts += 1;
            largest = largest.max(part.len());
            last = part;
        }
        assert!(parts > 1, "one part");
        // A row of the bitmap is drawn as a whole.
        assert!(largest < PART_BYTES + 32 * 512 * 32, "{largest} bytes");
        assert!(last.ends_with(b"IEND\xAE\x42\x60\x82"));
    }
}
