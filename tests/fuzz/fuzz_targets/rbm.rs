//! Frames from arbitrary bytes: reading never panics, and what is read equals its bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quintet_contract::frame::{Bitmap, Canvas, FLAG_INVERT, Rbm, RbmError};

const DISPLAYS: [Canvas; 3] = [canvas(28, 14), canvas(1, 1), canvas(9, 3)];

const fn canvas(width: u16, height: u16) -> Canvas {
    Canvas { width, height }
}

fn read_for(canvas: Canvas, bytes: &[u8]) {
    let frame = match Rbm::read(bytes, canvas) {
        Ok(frame) => frame,
        Err(RbmError::SizeMismatch { got, want }) => {
            assert!(want == canvas && Rbm::canvas_of(bytes) == Some(got) && got != want);
            return;
        }
        Err(RbmError::ShortPayload) => {
            assert!(bytes.len() < canvas.frame_bytes());
            return;
        }
        Err(_) => return,
    };
    assert_eq!(frame.bytes(), &bytes[..canvas.frame_bytes()]);
    let patched = frame.with_duration(143);
    let again = Rbm::read(&patched, canvas).expect("only its duration is another");
    assert_eq!(
        (again.seq(), again.payload(), again.duration_ms()),
        (frame.seq(), frame.payload(), 143)
    );
    let lit = frame.bitmap(canvas);
    let written = lit.to_rbm(frame.seq(), frame.duration_ms());
    let read = Rbm::read(&written, canvas).expect("what was written can be read");
    same_pixels(&read.bitmap(canvas), &lit);
    let mut inverted = patched;
    inverted[3] ^= FLAG_INVERT;
    let other = Rbm::read(&inverted, canvas)
        .expect("only its flag is another")
        .bitmap(canvas);
    for (x, y) in pixels(canvas) {
        assert!(other.is_lit(x, y) != lit.is_lit(x, y));
    }
}

fn same_pixels(a: &Bitmap, b: &Bitmap) {
    for (x, y) in pixels(a.canvas()) {
        assert_eq!(a.is_lit(x, y), b.is_lit(x, y));
    }
}

fn pixels(canvas: Canvas) -> impl Iterator<Item = (u16, u16)> {
    (0..canvas.height).flat_map(move |y| (0..canvas.width).map(move |x| (x, y)))
}

fuzz_target!(|bytes: &[u8]| {
    for canvas in DISPLAYS {
        read_for(canvas, bytes);
    }
    // Whatever size a frame claims, as long as it is not larger than what is there.
    if let Some(canvas) = Rbm::canvas_of(bytes)
        && canvas.frame_bytes() <= bytes.len()
    {
        read_for(canvas, bytes);
    }
});
