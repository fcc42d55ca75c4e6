//! Settings of frames: the display and the programs that draw for it.
//!
//! The file describes the display; each FLIPDISC setting overrides one of its fields.

use std::path::PathBuf;
use std::time::Duration;

use quintet_contract::frame::Fps;
use quintet_frames::display::Shown;
use quintet_frames::{Display, FramesConfig};
use quintet_service::settings::{Reader, Setting};

use super::environment::{self, AGENT_ENV};
use super::process::holder;
use super::shared::setting;

/// The settings of this file.
pub(crate) const TABLE: &[Setting] = &[
    setting(
        "frames_config",
        "FRAMES_CONFIG",
        None,
        "file with the sections display and processes, TOML or YAML: the flip-dot display and the programs that draw for it",
    ),
    setting(
        "flipdisc_fps",
        "FLIPDISC_FPS",
        None,
        "frames per second of the display unless an operator sets another rate, in place of the one in the file; 30 without both",
    ),
    setting(
        "flipdisc_max_fps",
        "FLIPDISC_MAX_FPS",
        None,
        "frames per second that the display can show at most; 30 without it and the file",
    ),
    setting(
        "flipdisc_buffer_ms",
        "FLIPDISC_BUFFER_MS",
        None,
        "how much time the frames that wait at the display may fill; 1000 without it and the file",
    ),
    setting(
        "flipdisc_frame_gap_ms",
        "FLIPDISC_FRAME_GAP_MS",
        None,
        "what lies between two frames besides their time; nothing without it and the file",
    ),
    setting(
        "flipdisc_serial",
        "FLIPDISC_SERIAL",
        None,
        "whether panels are attached to a serial line",
    ),
    setting(
        "flipdisc_serial_device",
        "FLIPDISC_SERIAL_DEVICE",
        None,
        "device of the line; naming one enables the panels; /dev/ttyUSB0 without it and the file",
    ),
    setting(
        "flipdisc_serial_baud",
        "FLIPDISC_SERIAL_BAUD",
        None,
        "bits per second of the line; 115200 without it and the file",
    ),
    setting(
        "flipdisc_serial_parity",
        "FLIPDISC_SERIAL_PARITY",
        None,
        "none, odd or even",
    ),
    setting(
        "flipdisc_serial_databits",
        "FLIPDISC_SERIAL_DATABITS",
        None,
        "data bits of a character on the line, 5 to 8; 8 without it and the file",
    ),
    setting(
        "flipdisc_serial_stopbits",
        "FLIPDISC_SERIAL_STOPBITS",
        None,
        "stop bits of a character on the line, 1 or 2; 1 without it and the file",
    ),
    setting(
        "flipdisc_serial_instant",
        "FLIPDISC_SERIAL_INSTANT",
        None,
        "true: each panel shows what it is sent at once, as without it and the file; false: all together",
    ),
    setting(
        "flipdisc_serial_interpanel_us",
        "FLIPDISC_SERIAL_INTERPANEL_US",
        None,
        "microseconds between the packets of two panels; none without it and the file",
    ),
    AGENT_ENV,
];

/// Reads [`TABLE`].
pub(crate) fn read(read: &mut Reader<'_>) -> FramesConfig {
    let mut frames = FramesConfig::new(holder());
    frames.reaper = std::env::current_exe().ok();
    frames.environment = environment::filter(read);
    if let Some(file) = read.optional("frames_config").map(PathBuf::from)
        && let Err(error) = frames.read_file(&file)
    {
        let text = quintet_service::telemetry::chain(&error).to_string();
        read.check("frames_config", false, &text);
        return frames;
    }
    display(read, &mut frames.display);
    if let Err(error) = frames.check() {
        read.check("frames_config", false, &error.to_string());
    }
    frames
}

/// What stands in place of the file's words about the display.
fn display(read: &mut Reader<'_>, display: &mut Display) {
    let fps = rate(read, "flipdisc_fps");
    let max = rate(read, "flipdisc_max_fps");
    display.fps = fps.unwrap_or(display.fps);
    display.max_fps = max.unwrap_or(match display.fps > display.max_fps {
        true => display.fps,
        false => display.max_fps,
    });
    if let Some(ms) = read.parse_optional("flipdisc_buffer_ms") {
        display.buffer = Duration::from_millis(ms);
    }
    if let Some(ms) = read.parse_optional("flipdisc_frame_gap_ms") {
        display.frame_gap = Duration::from_millis(ms);
    }
    let line = &mut display.line;
    if let Some(device) = read.optional("flipdisc_serial_device") {
        line.device = device;
        line.enabled = true;
    }
    if let Some(enabled) = switch(read, "flipdisc_serial") {
        line.enabled = enabled;
    }
    if let Some(baud) = read.parse_optional("flipdisc_serial_baud") {
        line.baud = baud;
    }
    if let Some(parity) = read.optional("flipdisc_serial_parity") {
        match serde_json::from_value(parity.to_lowercase().into()) {
            Ok(parity) => line.parity = parity,
            Err(_) => read.check(
                "flipdisc_serial_parity",
                false,
                "expected none, odd or even",
            ),
        }
    }
    if let Some(bits) = read.parse_optional("flipdisc_serial_databits") {
        line.data_bits = bits;
    }
    if let Some(bits) = read.parse_optional("flipdisc_serial_stopbits") {
        line.stop_bits = bits;
    }
    if let Some(instant) = switch(read, "flipdisc_serial_instant") {
        line.shown = match instant {
            true => Shown::Instantly,
            false => Shown::Together,
        };
    }
    if let Some(us) = read.parse_optional("flipdisc_serial_interpanel_us") {
        line.inter_panel = Duration::from_micros(us);
    }
}

fn rate(read: &mut Reader<'_>, key: &str) -> Option<Fps> {
    let fps = Fps::new(read.parse_optional(key)?);
    read.check(key, fps.is_some(), "must be 1 or more frames per second");
    fps
}

/// A setting that may be absent, which is not the same as false.
fn switch(read: &mut Reader<'_>, key: &str) -> Option<bool> {
    read.optional(key)?;
    Some(read.boolean(key))
}
