//! The configuration of a flip-dot display, as it is configured and as `GET /config` shows it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::frame::{Canvas, Fps, Thousandths};
use crate::time::Timestamp;

/// Version of [`DisplayConfig`].
pub const DISPLAY_CONFIG_VERSION: u32 = 1;

/// How a panel is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Orientation {
    /// As it is.
    #[default]
    Normal,
    /// A quarter turn clockwise.
    Rot90,
    /// Upside down.
    Rot180,
    /// A quarter turn anticlockwise.
    Rot270,
    /// Left and right exchanged.
    FlipH,
    /// Top and bottom exchanged.
    FlipV,
}

/// Where a panel's part of the canvas begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Column.
    pub x: u16,
    /// Row.
    pub y: u16,
}

/// How much of the canvas a panel shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PanelSize {
    /// Columns of the canvas.
    pub w: u16,
    /// Rows of the canvas.
    pub h: u16,
}

/// One panel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Panel {
    /// Its display name.
    pub id: String,
    /// Its number on the line.
    pub address: u8,
    /// Where its part of the canvas begins.
    pub origin: Origin,
    /// How much of the canvas it shows.
    pub size: PanelSize,
    /// How it is mounted.
    #[serde(default)]
    pub orientation: Orientation,
}

/// The check bit of a character on the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Parity {
    /// There is none.
    #[default]
    None,
    /// The ones of a character are odd in number.
    Odd,
    /// They are even in number.
    Even,
}

/// The line to the panels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SerialLine {
    /// The device; none when no panels are attached.
    pub device: Option<String>,
    /// Bits per second.
    pub baud: u32,
    /// The check bit.
    pub parity: Parity,
    /// Bits of a character, 5 to 8.
    pub data_bits: u8,
    /// 1 or 2.
    pub stop_bits: u8,
}

/// The display as `GET /config` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DisplayConfig {
    /// [`DISPLAY_CONFIG_VERSION`].
    pub version: u32,
    /// All pixels.
    pub canvas: Canvas,
    /// The size of the first panel, which most displays have in common to all.
    pub panel_size: PanelSize,
    /// The panels, in the order in which they are written to.
    pub panels: Vec<Panel>,
    /// The line to them.
    pub serial: SerialLine,
    /// Frames per second unless an operator sets another rate.
    pub fps: Fps,
}

/// How the line to the panels is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LineState {
    /// No device is configured.
    #[default]
    Off,
    /// The device cannot be opened, or was lost; it is tried again.
    Lost,
    /// It is written to.
    Connected,
    /// A state of a newer version.
    #[serde(other)]
    Unknown,
}

/// What the display does, as `GET /v1/display` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisplayStats {
    /// Frames that wait for their turn.
    pub buffer_size: usize,
    /// Frames that can wait.
    pub buffer_capacity: usize,
    /// Frames per second as they are configured.
    pub fps_configured: Fps,
    /// Frames per second now.
    pub fps_effective: Fps,
    /// Frames per second that the display can show at most.
    pub fps_max: Fps,
    /// Frames forwarded to the display.
    pub frames_received: u64,
    /// Frames that it showed.
    pub writer_ticks: u64,
    /// When it showed the last one.
    pub last_write_at: Option<Timestamp>,
    /// Milliseconds between the last two.
    pub interval_ms: Option<Thousandths>,
    /// The line to the panels.
    pub line: LineState,
}
