//! RBM, the form of a frame on every wire: a header of 16 bytes, then one bit for every pixel.
//!
//! | offset | length | field |
//! |---|---|---|
//! | 0 | 2 | `RB` |
//! | 2 | 1 | version, 1 |
//! | 3 | 1 | flags; bit 0: inverted |
//! | 4 | 2 | width |
//! | 6 | 2 | height |
//! | 8 | 4 | number of the frame, wraps around |
//! | 12 | 2 | how long it is shown, in milliseconds; 0: the display's default |
//! | 14 | 2 | reserved |
//! | 16 | height × ceil(width / 8) | rows from the top, most significant bit first |
//!
//! Numbers are big-endian. Reserved fields and unknown flags are passed through.

use std::borrow::Cow;
use std::time::Duration;

use data_encoding::BASE64;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes before the pixels.
pub const HEADER_BYTES: usize = 16;
/// The flag of a frame in which lit and dark are exchanged.
pub const FLAG_INVERT: u8 = 1;

const MAGIC: [u8; 2] = *b"RB";
const VERSION: u8 = 1;
const DURATION: std::ops::Range<usize> = 12..14;

/// What a display shows, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Canvas {
    /// Pixels of a row.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

impl Canvas {
    /// Bytes of one row.
    pub fn row_bytes(self) -> usize {
        usize::from(self.width).div_ceil(8)
    }

    /// Bytes of all rows.
    pub fn payload_bytes(self) -> usize {
        self.row_bytes() * usize::from(self.height)
    }

    /// Bytes of a frame.
    pub fn frame_bytes(self) -> usize {
        HEADER_BYTES + self.payload_bytes()
    }
}

impl std::fmt::Display for Canvas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// A number with three decimals, written as a number: every one is read back as what it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thousandths(pub i64);

/// The largest whole part that has three exact decimals in a floating-point number.
const MOST: f64 = 1e12;

impl Thousandths {
    /// Rounds a number; none that is not finite, or beyond 10^12.
    pub fn of(number: f64) -> Option<Self> {
        (number.is_finite() && number.abs() <= MOST).then(|| Self((number * 1000.0).round() as i64))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl std::fmt::Display for Thousandths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

/// Whole numbers are written without a fraction.
impl Serialize for Thousandths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 1000 {
            0 => serializer.serialize_i64(self.0 / 1000),
            _ => serializer.serialize_f64(self.get()),
        }
    }
}

impl<'de> Deserialize<'de> for Thousandths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of(f64::deserialize(deserializer)?)
            .ok_or_else(|| de::Error::custom("a number must be finite and at most 10^12"))
    }
}

impl JsonSchema for Thousandths {
    fn schema_name() -> Cow<'static, str> {
        "Thousandths".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number"})
    }
}

/// Frames per second: 1 or more, with three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Fps(Thousandths);

impl Fps {
    /// A rate; none below 1, and none that is not finite.
    pub fn new(fps: f64) -> Option<Self> {
        Thousandths::of(fps).and_then(Self::of)
    }

    /// A rate; none below 1.
    pub fn of(fps: Thousandths) -> Option<Self> {
        (fps.0 >= 1000).then_some(Self(fps))
    }

    /// Frames per second.
    pub fn get(self) -> f64 {
        self.0.get()
    }

    /// Milliseconds of one frame, rounded: what is written into forwarded frames.
    pub fn frame_ms(self) -> u16 {
        // At least 1, at most 1000: a rate is 1 or more.
        (1000.0 / self.get()).round().clamp(1.0, 1000.0) as u16
    }

    /// The time of one frame.
    pub fn frame(self) -> Duration {
        Duration::from_secs_f64(1.0 / self.get())
    }
}

impl std::fmt::Display for Fps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Fps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of(Thousandths::deserialize(deserializer)?)
            .ok_or_else(|| de::Error::custom("a rate is a number of frames per second, 1 or more"))
    }
}

impl JsonSchema for Fps {
    fn schema_name() -> Cow<'static, str> {
        "Fps".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "minimum": 1})
    }
}

/// Bytes inside of a message, written as base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = BASE64.decode(text.as_bytes());
        bytes.map(Self).map_err(de::Error::custom)
    }
}

impl JsonSchema for Base64 {
    fn schema_name() -> Cow<'static, str> {
        "Base64".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "contentEncoding": "base64"})
    }
}

/// Stands for the message of a subject whose bodies are the bytes of one frame, as they are: neither MessagePack nor JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawFrame;

impl JsonSchema for RawFrame {
    fn schema_name() -> Cow<'static, str> {
        "RawFrame".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "contentMediaType": "application/octet-stream"})
    }
}

/// Why bytes are no frame for a canvas. The texts are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RbmError {
    /// There are not even 16 bytes.
    #[error("short rbm header")]
    ShortHeader,
    /// They do not begin with `RB`.
    #[error("bad magic")]
    BadMagic,
    /// Another version than 1.
    #[error("unsupported version")]
    UnsupportedVersion,
    /// The frame is for another canvas.
    #[error("size mismatch: got {got} want {want}")]
    SizeMismatch {
        /// The header's value.
        got: Canvas,
        /// What the display has.
        want: Canvas,
    },
    /// Pixels are missing.
    #[error("short payload")]
    ShortPayload,
}

/// Checked bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rbm<'a> {
    bytes: &'a [u8],
}

impl<'a> Rbm<'a> {
    /// Checks the bytes of a frame for a canvas. What comes after the last pixel is ignored.
    ///
    /// # Errors
    /// [`RbmError`] for bytes that are no frame of this canvas.
    pub fn read(bytes: &'a [u8], canvas: Canvas) -> Result<Self, RbmError> {
        let header = bytes.get(..HEADER_BYTES).ok_or(RbmError::ShortHeader)?;
        if header[..2] != MAGIC {
            return Err(RbmError::BadMagic);
        }
        if header[2] != VERSION {
            return Err(RbmError::UnsupportedVersion);
        }
        let got = Self::canvas_of(header).ok_or(RbmError::ShortHeader)?;
        if got != canvas {
            return Err(RbmError::SizeMismatch { got, want: canvas });
        }
        let bytes = bytes
            .get(..canvas.frame_bytes())
            .ok_or(RbmError::ShortPayload)?;
        Ok(Self { bytes })
    }

    /// The subject in the header of a frame.
    pub fn canvas_of(bytes: &[u8]) -> Option<Canvas> {
        let header = bytes.get(..HEADER_BYTES)?;
        Some(Canvas {
            width: u16::from_be_bytes([header[4], header[5]]),
            height: u16::from_be_bytes([header[6], header[7]]),
        })
    }

    /// The frame without what came after it.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The pixels.
    pub fn payload(self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Whether lit and dark are exchanged.
    pub fn is_inverted(self) -> bool {
        self.bytes[3] & FLAG_INVERT != 0
    }

    /// Its number, which the worker gave it.
    pub fn seq(self) -> u32 {
        let at = |offset: usize| self.bytes[8 + offset];
        u32::from_be_bytes([at(0), at(1), at(2), at(3)])
    }

    /// How long it is shown, in milliseconds; 0: the display's default.
    pub fn duration_ms(self) -> u16 {
        u16::from_be_bytes([self.bytes[DURATION.start], self.bytes[DURATION.start + 1]])
    }

    /// The same frame, shown for so many milliseconds.
    pub fn with_duration(self, ms: u16) -> Vec<u8> {
        let mut bytes = self.bytes.to_vec();
        bytes[DURATION].copy_from_slice(&ms.to_be_bytes());
        bytes
    }

    /// What is to be lit, with [`FLAG_INVERT`] applied.
    pub fn bitmap(self, canvas: Canvas) -> Bitmap {
        let mut bitmap = Bitmap {
            canvas,
            rows: self.payload().to_vec(),
        };
        if self.is_inverted() {
            bitmap.invert();
        }
        bitmap
    }
}

/// Pixels of a canvas, lit or dark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    canvas: Canvas,
    rows: Vec<u8>,
}

impl Bitmap {
    /// All dark.
    pub fn dark(canvas: Canvas) -> Self {
        Self {
            canvas,
            rows: vec![0; canvas.payload_bytes()],
        }
    }

    /// What it covers.
    pub fn canvas(&self) -> Canvas {
        self.canvas
    }

    /// Whether a pixel is lit; outside of the canvas none is.
    pub fn is_lit(&self, x: u16, y: u16) -> bool {
        let is_inside = x < self.canvas.width && y < self.canvas.height;
        is_inside && self.rows[self.place(x, y)] & mask(x) != 0
    }

    /// Lights a pixel or darkens it; outside of the canvas nothing happens.
    pub fn set(&mut self, x: u16, y: u16, is_lit: bool) {
        if x >= self.canvas.width || y >= self.canvas.height {
            return;
        }
        let place = self.place(x, y);
        if is_lit {
            self.rows[place] |= mask(x);
        } else {
            self.rows[place] &= !mask(x);
        }
    }

    /// Rows from the top, each of [`Canvas::row_bytes`], most significant bit first.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        // A canvas without columns has rows without bytes, which are no chunks.
        self.rows.chunks(self.canvas.row_bytes().max(1))
    }

    /// Exchanges lit and dark.
    pub fn invert(&mut self) {
        for byte in &mut self.rows {
            *byte = !*byte;
        }
        self.clear_padding();
    }

    /// A frame of these pixels.
    pub fn to_rbm(&self, seq: u32, duration_ms: u16) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.canvas.frame_bytes());
        bytes.extend(MAGIC);
        bytes.extend([VERSION, 0]);
        bytes.extend(self.canvas.width.to_be_bytes());
        bytes.extend(self.canvas.height.to_be_bytes());
        bytes.extend(seq.to_be_bytes());
        bytes.extend(duration_ms.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(&self.rows);
        bytes
    }

    fn place(&self, x: u16, y: u16) -> usize {
        usize::from(y) * self.canvas.row_bytes() + usize::from(x / 8)
    }

    fn clear_padding(&mut self) {
        let used = self.canvas.width % 8;
        if used == 0 {
            return;
        }
        let keep = !(0xFF_u8 >> used);
        for row in self.rows.chunks_mut(self.canvas.row_bytes()) {
            if let Some(last) = row.last_mut() {
                *last &= keep;
            }
        }
    }
}

fn mask(x: u16) -> u8 {
    0x80 >> (x % 8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CANVAS: Canvas = Canvas {
        width: 28,
        height: 14,
    };

    fn error(bytes: &[u8]) -> String {
        Rbm::read(bytes, CANVAS).unwrap_err().to_string()
    }

    #[test]
    fn the_time_of_a_frame_is_rounded_to_milliseconds() {
        for (rate, expected) in [
            (7.0, 143),
            (12.0, 83),
            (24.0, 42),
            (30.0, 33),
            (60.0, 17),
            (5000.0, 1),
        ] {
            assert_eq!(Fps::new(rate).unwrap().frame_ms(), expected);
        }
        for wrong in [0.99, 0.0, -3.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Fps::new(wrong), None);
        }
    }

    #[test]
    fn a_whole_rate_is_written_as_such_and_none_below_one_is_read() {
        let text = |fps: f64| serde_json::to_string(&Fps::new(fps).unwrap()).unwrap();
        assert_eq!([text(30.0), text(7.5)], ["30", "7.5"]);
        assert_eq!(serde_json::from_str::<Fps>("30").unwrap().get(), 30.0);
        assert!(serde_json::from_str::<Fps>("0.5").is_err());
        assert!(serde_json::from_str::<Fps>("1e300").is_err());
    }

    #[test]
    fn everything_that_is_wrong_has_its_text() {
        let good = Bitmap::dark(CANVAS).to_rbm(7, 0);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        assert_eq!(error(&good[..15]), "short rbm header");
        assert_eq!(error(&with(1, b'b')), "bad magic");
        assert_eq!(error(&with(2, 2)), "unsupported version");
        assert_eq!(error(&with(5, 29)), "size mismatch: got 29x14 want 28x14");
        assert_eq!(error(&good[..good.len() - 1]), "short payload");
        let longer = [&good[..], &[1, 2, 3]].concat();
        assert_eq!(Rbm::read(&longer, CANVAS).unwrap().bytes(), good);
    }

    #[test]
    fn a_frame_is_encoded_as_the_table_specifies() {
        let mut bitmap = Bitmap::dark(CANVAS);
        bitmap.set(0, 0, true);
        bitmap.set(27, 13, true);
        let bytes = bitmap.to_rbm(0xFFFF_FFFF, 33);
        assert_eq!(bytes.len(), 16 + 14 * 4);
        let header = [
            0x52, 0x42, 1, 0, 0, 28, 0, 14, 0xFF, 0xFF, 0xFF, 0xFF, 0, 33, 0, 0,
        ];
        assert_eq!(bytes[..16], header);
        assert_eq!(bytes[16], 0x80);
        assert_eq!(bytes[16 + 13 * 4 + 3], 0x10);
        let read = Rbm::read(&bytes, CANVAS).unwrap();
        assert_eq!((read.seq(), read.duration_ms()), (u32::MAX, 33));
        assert_eq!(read.with_duration(143)[12..14], [0, 143]);
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_what_is_read_is_what_was_written(
            bytes in proptest::collection::vec(any::<u8>(), 0..120), width in 1..40_u16, height in 1..20_u16,
        ) {
            let canvas = Canvas { width, height };
            let _ = Rbm::read(&bytes, canvas);
            let mut bitmap = Bitmap::dark(canvas);
            for (place, byte) in bytes.iter().enumerate() {
                let x = u16::from(*byte) % width;
                bitmap.set(x, u16::try_from(place).unwrap() % height, byte % 3 > 0);
            }
            let written = bitmap.to_rbm(5, 0);
            let read = Rbm::read(&written, canvas).unwrap();
            prop_assert_eq!(read.bitmap(canvas), bitmap.clone());
            let mut inverted = written.clone();
            inverted[3] |= FLAG_INVERT;
            let inverted = Rbm::read(&inverted, canvas).unwrap().bitmap(canvas);
            for y in 0..height {
                for x in 0..width {
                    prop_assert!(inverted.is_lit(x, y) != bitmap.is_lit(x, y));
                }
            }
            let mut again = inverted;
            again.invert();
            prop_assert_eq!(again, bitmap, "the padding stays dark");
        }
    }
}
