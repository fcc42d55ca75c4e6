//! Configuration of the frames service: a display, its line, and the programs that draw for it.
//!
//! The display and the programs are sections of one file, TOML or YAML, named and nested as `GET /config` shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use quintet_contract::display::{
    DISPLAY_CONFIG_VERSION, DisplayConfig, Orientation, Origin, Panel, PanelSize, Parity,
    SerialLine,
};
use quintet_contract::frame::{Canvas, Fps};
use quintet_contract::id::{HolderId, WorkerId};
use quintet_worker::process::EnvironmentFilter;
use serde::Deserialize;

use crate::display::{BitOrder, Map, PanelError, Shown};

/// Most bytes of a frame: a message of NATS has room for it, and for what goes with it.
const MOST_FRAME_BYTES: usize = 768 * 1024;

/// All settings of the frames service. [`FramesConfig::new`] has defaults for all but its name.
#[derive(Clone, Debug)]
pub struct FramesConfig {
    /// Names this process among those that may drive the display.
    pub holder: HolderId,
    /// The display.
    pub display: Display,
    /// Programs that are started when their worker is activated or started.
    pub processes: Vec<ProcessSpec>,
    /// How long a program may take to end after SIGTERM before it is killed.
    pub kill_grace: Duration,
    /// The program to start with the argument `reaper`, which must call
    /// [`reaper::main`](quintet_worker::process::reaper::main); without it, what programs started may outlive a killed
    /// service.
    pub reaper: Option<PathBuf>,
    /// Which variables of this process programs do not inherit.
    pub environment: EnvironmentFilter,
}

impl FramesConfig {
    /// A display of 28 × 14 without a line, and no programs.
    pub fn new(holder: HolderId) -> Self {
        Self {
            holder,
            display: Display::default(),
            processes: Vec::new(),
            kill_grace: Duration::from_secs(5),
            reaper: None,
            environment: EnvironmentFilter::default(),
        }
    }

    /// Checks what cannot be seen in one setting alone.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.display.map()?;
        let display = &self.display;
        let bytes = display.canvas.frame_bytes();
        if display.canvas.payload_bytes() == 0 || bytes > MOST_FRAME_BYTES {
            let canvas = display.canvas;
            return Err(ConfigError::Canvas { canvas });
        }
        if display.fps > display.max_fps {
            let (fps, max) = (display.fps, display.max_fps);
            return Err(ConfigError::TooFast { fps, max });
        }
        let line = &display.line;
        if !(5..=8).contains(&line.data_bits) || !(1..=2).contains(&line.stop_bits) {
            let (data_bits, stop_bits) = (line.data_bits, line.stop_bits);
            return Err(ConfigError::Character {
                data_bits,
                stop_bits,
            });
        }
        let mut ids = BTreeSet::new();
        for process in &self.processes {
            if process.command.first().is_none_or(String::is_empty) {
                return Err(ConfigError::NoCommand(process.id.clone()));
            }
            if !ids.insert(&process.id) {
                return Err(ConfigError::Twice(process.id.clone()));
            }
        }
        Ok(())
    }
}

/// The display.
#[derive(Clone, Debug, PartialEq)]
pub struct Display {
    /// All pixels.
    pub canvas: Canvas,
    /// The panels, in the order in which they are written to.
    pub panels: Vec<Panel>,
    /// Frames per second unless an operator sets another rate.
    pub fps: Fps,
    /// Frames per second that the display can show at most.
    pub max_fps: Fps,
    /// How much time the frames that wait may fill.
    pub buffer: Duration,
    /// What lies between two frames besides.
    pub frame_gap: Duration,
    /// Which bit of a column is its top pixel.
    pub bit_order: BitOrder,
    /// Whether a panel whose bytes did not change is left out.
    pub skip_unchanged: bool,
    /// The line to the panels.
    pub line: Line,
}

/// The line to the panels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whether panels are attached.
    pub enabled: bool,
    /// The device.
    pub device: String,
    /// Bits per second.
    pub baud: u32,
    /// The check bit.
    pub parity: Parity,
    /// Bits of a character.
    pub data_bits: u8,
    /// Stop bits of a character.
    pub stop_bits: u8,
    /// When panels show what they are sent.
    pub shown: Shown,
    /// What lies between the packets of two panels.
    pub inter_panel: Duration,
}

/// A program that draws.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    /// The worker that it is.
    pub id: WorkerId,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it works; where the service does without one.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// What its environment has besides that of the service, and in place of what the service withholds.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// Why a configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The panels do not fit the canvas.
    #[error(transparent)]
    Panels(#[from] PanelError),
    /// There are no pixels, or too many.
    #[error(
        "a canvas of {canvas} cannot be; it needs a column and a row, and at most {MOST_FRAME_BYTES} bytes of 8 pixels"
    )]
    Canvas {
        /// What was configured.
        canvas: Canvas,
    },
    /// The display cannot be as fast.
    #[error(
        "{fps} frames per second are more than the display's maximum of {max}; raise max_fps or lower fps"
    )]
    TooFast {
        /// What was configured.
        fps: Fps,
        /// The maximum.
        max: Fps,
    },
    /// The line has no such characters.
    #[error(
        "{data_bits} data bits and {stop_bits} stop bits cannot be; a character has 5 to 8 and 1 or 2 of them"
    )]
    Character {
        /// Data bits.
        data_bits: u8,
        /// Stop bits.
        stop_bits: u8,
    },
    /// A program has no name.
    #[error("the process {0} has no command; give the program and its arguments")]
    NoCommand(WorkerId),
    /// Two programs are the same worker.
    #[error("two processes have the id {0}; each needs its own")]
    Twice(WorkerId),
    /// The file is not there or cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file has invalid content.
    #[error("{} is not what is expected: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}

impl Default for Display {
    fn default() -> Self {
        let panel = |id: &str, address, y| Panel {
            id: id.to_owned(),
            address,
            origin: Origin { x: 0, y },
            size: PanelSize { w: 28, h: 7 },
            orientation: Orientation::Normal,
        };
        let fps = Fps::new(30.0).expect("30 is a rate");
        Self {
            canvas: Canvas {
                width: 28,
                height: 14,
            },
            panels: vec![panel("top", 1, 0), panel("bottom", 2, 7)],
            fps,
            max_fps: fps,
            buffer: Duration::from_millis(1000),
            frame_gap: Duration::ZERO,
            bit_order: BitOrder::MsbTop,
            skip_unchanged: false,
            line: Line {
                enabled: false,
                device: "/dev/ttyUSB0".to_owned(),
                baud: 115_200,
                parity: Parity::None,
                data_bits: 8,
                stop_bits: 1,
                shown: Shown::Instantly,
                inter_panel: Duration::ZERO,
            },
        }
    }
}

impl Display {
    /// The panels, checked.
    pub fn map(&self) -> Result<Map, PanelError> {
        Map::new(self.panels.clone(), self.bit_order, self.canvas)
    }

    /// The public configuration.
    pub fn shown(&self) -> DisplayConfig {
        let line = &self.line;
        DisplayConfig {
            version: DISPLAY_CONFIG_VERSION,
            canvas: self.canvas,
            panel_size: self
                .panels
                .first()
                .map(|panel| panel.size)
                .unwrap_or_default(),
            panels: self.panels.clone(),
            serial: SerialLine {
                device: line.enabled.then(|| line.device.clone()),
                baud: line.baud,
                parity: line.parity,
                data_bits: line.data_bits,
                stop_bits: line.stop_bits,
            },
            fps: self.fps,
        }
    }
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    display: DisplaySection,
    #[serde(default)]
    processes: Vec<ProcessSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DisplaySection {
    version: Option<u32>,
    canvas: Option<Canvas>,
    panel_size: Option<PanelSize>,
    panels: Option<Vec<PanelEntry>>,
    fps: Option<Fps>,
    max_fps: Option<Fps>,
    buffer_ms: Option<u32>,
    frame_gap_ms: Option<u32>,
    bit_order: Option<BitOrder>,
    skip_unchanged: Option<bool>,
    serial: SerialSection,
}

/// A panel whose size may be that of all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PanelEntry {
    id: String,
    address: u8,
    origin: Origin,
    size: Option<PanelSize>,
    #[serde(default)]
    orientation: Orientation,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SerialSection {
    enabled: Option<bool>,
    device: Option<String>,
    baud: Option<u32>,
    parity: Option<Parity>,
    data_bits: Option<u8>,
    stop_bits: Option<u8>,
    instant: Option<bool>,
    interpanel_us: Option<u32>,
}

impl FramesConfig {
    /// Applies a file; YAML if its name ends so, TOML else.
    pub fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let is_yaml = path
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("yaml") || end.eq_ignore_ascii_case("yml"));
        let read: Result<File, String> = match is_yaml {
            true => serde_yaml_ng::from_str(&text).map_err(|error| error.to_string()),
            false => toml::from_str(&text).map_err(|error| error.to_string()),
        };
        let wrong = |reason: String| ConfigError::Parse {
            path: path.to_owned(),
            reason: reason.trim_end().to_owned(),
        };
        let File { display, processes } = read.map_err(wrong)?;
        self.display.take(display).map_err(wrong)?;
        self.processes = processes;
        Ok(())
    }
}

impl Display {
    fn take(&mut self, section: DisplaySection) -> Result<(), String> {
        if section
            .version
            .is_some_and(|version| version != DISPLAY_CONFIG_VERSION)
        {
            return Err(format!("display.version must be {DISPLAY_CONFIG_VERSION}"));
        }
        let millis = |ms: u32| Duration::from_millis(ms.into());
        set(&mut self.canvas, section.canvas);
        set(&mut self.fps, section.fps);
        // A display that is configured to be faster can be, unless configured otherwise.
        self.max_fps = section.max_fps.unwrap_or(match self.fps > self.max_fps {
            true => self.fps,
            false => self.max_fps,
        });
        set(&mut self.buffer, section.buffer_ms.map(millis));
        set(&mut self.frame_gap, section.frame_gap_ms.map(millis));
        set(&mut self.bit_order, section.bit_order);
        set(&mut self.skip_unchanged, section.skip_unchanged);
        if let Some(panels) = section.panels {
            let panel = |entry: PanelEntry| {
                let size = entry.size.or(section.panel_size);
                let size = size.ok_or_else(|| {
                    format!(
                        "display.panels: {} has no size, and there is no panel_size",
                        entry.id
                    )
                })?;
                Ok(Panel {
                    id: entry.id,
                    address: entry.address,
                    origin: entry.origin,
                    size,
                    orientation: entry.orientation,
                })
            };
            self.panels = panels
                .into_iter()
                .map(panel)
                .collect::<Result<_, String>>()?;
        }
        self.line.take(section.serial);
        Ok(())
    }
}

impl Line {
    fn take(&mut self, section: SerialSection) {
        // A configured device exists.
        self.enabled = section
            .enabled
            .unwrap_or(section.device.is_some() || self.enabled);
        set(&mut self.device, section.device);
        set(&mut self.baud, section.baud);
        set(&mut self.parity, section.parity);
        set(&mut self.data_bits, section.data_bits);
        set(&mut self.stop_bits, section.stop_bits);
        let shown = |instant: bool| match instant {
            true => Shown::Instantly,
            false => Shown::Together,
        };
        set(&mut self.shown, section.instant.map(shown));
        let micros = |us: u32| Duration::from_micros(us.into());
        set(&mut self.inter_panel, section.interpanel_us.map(micros));
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = r#"
        [display]
        fps = 12.5
        max_fps = 60
        buffer_ms = 500
        bit_order = "lsb_top"
        canvas = { width = 14, height = 14 }
        panel_size = { w = 14, h = 7 }
        [[display.panels]]
        id = "a"
        address = 7
        origin = { x = 0, y = 7 }
        orientation = "rot180"
        [display.serial]
        device = "/dev/ttyS0"
        parity = "even"
        instant = false
        interpanel_us = 250

        [[processes]]
        id = "clock"
        command = ["python3", "clock.py"]
        environment = { TZ = "UTC" }
    "#;
    const YAML: &str = "
display:
  fps: 12.5
  max_fps: 60
  buffer_ms: 500
  bit_order: lsb_top
  canvas: {width: 14, height: 14}
  panel_size: {w: 14, h: 7}
  panels:
    - {id: a, address: 7, origin: {x: 0, y: 7}, orientation: rot180}
  serial: {device: /dev/ttyS0, parity: even, instant: false, interpanel_us: 250}
processes:
  - id: clock
    command: [python3, clock.py]
    environment: {TZ: UTC}
";

    fn config() -> FramesConfig {
        FramesConfig::new(HolderId::parse("test").unwrap())
    }

    fn read(name: &str, text: &str) -> Result<FramesConfig, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mut config = config();
        config.read_file(&path)?;
        config.check()?;
        Ok(config)
    }

    #[test]
    fn a_file_means_the_same_in_toml_and_yaml() {
        let toml = read("frames.toml", TOML).unwrap();
        let yaml = read("frames.yaml", YAML).unwrap();
        assert_eq!(toml.display, yaml.display);
        assert_eq!(toml.processes, yaml.processes);
        let shown = serde_json::to_value(toml.display.shown()).unwrap();
        let expected = serde_json::json!({
            "version": 1, "canvas": {"width": 14, "height": 14}, "panel_size": {"w": 14, "h": 7}, "fps": 12.5,
            "panels": [{"id": "a", "address": 7, "origin": {"x": 0, "y": 7}, "size": {"w": 14, "h": 7}, "orientation": "rot180"}],
            "serial": {"device": "/dev/ttyS0", "baud": 115_200, "parity": "even", "data_bits": 8, "stop_bits": 1},
        });
        assert_eq!(shown, expected);
        assert_eq!(toml.display.line.shown, Shown::Together);
        assert_eq!(toml.display.line.inter_panel, Duration::from_micros(250));
    }

    #[test]
    fn what_get_config_shows_can_be_used_as_a_file() {
        let shown = serde_json::json!({ "display": Display::default().shown() });
        // JSON is YAML.
        let read = read("frames.yaml", &shown.to_string()).unwrap();
        assert_eq!(read.display, Display::default());
    }

    #[test]
    fn what_cannot_be_is_refused_at_the_start() {
        for (text, expected) in [
            ("[display]\ncolour = 1", "colour"),
            ("[display]\nfps = 0.5", "1 or more"),
            ("[display]\nversion = 2", "version must be 1"),
            (
                "[display]\nfps = 40\nmax_fps = 30",
                "more than the display's maximum of 30",
            ),
            (
                "[display.canvas]\nwidth = 20\nheight = 14",
                "outside of the canvas",
            ),
            (
                "[display]\npanels = []\ncanvas = { width = 0, height = 1 }",
                "a canvas of 0x1 cannot be",
            ),
            ("[display.serial]\ndata_bits = 9", "5 to 8"),
            ("[[processes]]\nid = \"a\"\ncommand = []", "has no command"),
        ] {
            let error = read("frames.toml", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
