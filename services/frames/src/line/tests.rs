//! The line against pseudo-terminals: the other end reads what panels would.

use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use quintet_contract::frame::Canvas;
use quintet_testkit::wait_for;
use tempfile::TempDir;

use super::*;
use crate::config::Display;

const TIMEOUT: Duration = Duration::from_secs(20);
const CANVAS: Canvas = Canvas {
    width: 28,
    height: 14,
};

/// The panels' end of a line whose name stays, whatever becomes of the device behind it.
struct Panels {
    folder: TempDir,
    port: Option<SerialPort>,
}

impl Panels {
    fn attached() -> Self {
        let mut panels = Self {
            folder: TempDir::new().unwrap(),
            port: None,
        };
        panels.attach();
        panels
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("line")
    }

    fn attach(&mut self) {
        let (mut port, ours) = SerialPort::pair().unwrap();
        port.set_read_timeout(Duration::from_millis(20)).unwrap();
        let name = std::fs::read_link(format!("/proc/self/fd/{}", ours.as_raw_fd()));
        symlink(name.unwrap(), self.path()).unwrap();
        self.port = Some(port);
    }

    fn detach(&mut self) {
        self.port = None;
        std::fs::remove_file(self.path()).unwrap();
    }

    /// Bits per second that the other end has set.
    fn baud(&self) -> u32 {
        // Both ends of a pseudo-terminal have one setting.
        let port = self.port.as_ref().unwrap();
        port.get_configuration().unwrap().get_baud_rate().unwrap()
    }

    /// Reads until there are so many bytes.
    async fn read(&mut self, count: usize) -> Vec<u8> {
        let port = self.port.as_ref().unwrap();
        let mut read = Vec::new();
        let enough = wait_for("bytes on the line", TIMEOUT, async || {
            let mut buffer = [0; 4096];
            // Nothing yet, or the other end is not open yet.
            if let Ok(more) = port.read(&mut buffer[..count - read.len()]) {
                read.extend_from_slice(&buffer[..more]);
            }
            match read.len() == count {
                true => Ok(()),
                false => Err(format!("{} of {count}: {read:02x?}", read.len())),
            }
        });
        enough.await.unwrap();
        read
    }
}

fn display(panels: &Panels) -> Display {
    let mut display = Display::default();
    display.line.enabled = true;
    display.line.device = panels.path().display().to_string();
    display
}

fn open_line(display: &Display) -> Line {
    Line::open(
        &display.line,
        display.map().unwrap(),
        display.skip_unchanged,
    )
    .unwrap()
}

fn lit(pixels: &[(u16, u16)]) -> Arc<Bitmap> {
    let mut bitmap = Bitmap::dark(CANVAS);
    for (x, y) in pixels {
        bitmap.set(*x, *y, true);
    }
    Arc::new(bitmap)
}

fn packet(command: u8, address: u8, first_column: u8) -> Vec<u8> {
    [
        &[0x80, command, address, first_column][..],
        &[0; 27],
        &[0x8F],
    ]
    .concat()
}

async fn until(line: &Line, expected: LineState) {
    let mut state = line.state();
    let reached = tokio::time::timeout(TIMEOUT, state.wait_for(|state| *state == expected));
    reached.await.unwrap().unwrap();
}

#[tokio::test]
async fn panels_get_their_packets_byte_for_byte_at_the_configured_speed() {
    let mut panels = Panels::attached();
    let line = open_line(&display(&panels));
    line.show(lit(&[(0, 0)]));
    let expected = [packet(0x83, 1, 0x40), packet(0x83, 2, 0)].concat();
    assert_eq!(panels.read(64).await, expected);
    assert_eq!(panels.baud(), 115_200);
    until(&line, LineState::Connected).await;
    line.show(lit(&[(0, 13)]));
    let expected = [packet(0x83, 1, 0), packet(0x83, 2, 0x01)].concat();
    assert_eq!(panels.read(64).await, expected);
}

#[tokio::test]
async fn panels_that_show_together_get_a_flush_packet_and_unchanged_ones_nothing_if_so_configured()
{
    let mut panels = Panels::attached();
    let mut display = display(&panels);
    display.line.shown = Shown::Together;
    display.line.baud = 57_600;
    display.line.inter_panel = Duration::from_micros(200);
    display.skip_unchanged = true;
    let line = open_line(&display);
    line.show(lit(&[(0, 0)]));
    let flush = vec![0x80, 0x82, 0x8F];
    let expected = [packet(0x84, 1, 0x40), packet(0x84, 2, 0), flush.clone()].concat();
    assert_eq!(panels.read(67).await, expected);
    assert_eq!(panels.baud(), 57_600);
    // Only the lower panel changes; then none, which writes nothing; then the upper one.
    line.show(lit(&[(0, 0), (0, 7)]));
    assert_eq!(
        panels.read(35).await,
        [packet(0x84, 2, 0x40), flush.clone()].concat()
    );
    line.show(lit(&[(0, 0), (0, 7)]));
    line.show(lit(&[(0, 7)]));
    assert_eq!(panels.read(35).await, [packet(0x84, 1, 0), flush].concat());
}

#[tokio::test]
async fn a_line_that_is_lost_is_reopened_and_gets_the_newest_image_first() {
    let mut panels = Panels::attached();
    let line = open_line(&display(&panels));
    line.show(lit(&[(0, 0)]));
    panels.read(64).await;
    panels.detach();
    // No part waits for the line: images continue being shown to every watcher.
    for y in 0..7 {
        line.show(lit(&[(0, y)]));
    }
    until(&line, LineState::Lost).await;
    panels.attach();
    let expected = [packet(0x83, 1, 0x01), packet(0x83, 2, 0)].concat();
    assert_eq!(panels.read(64).await, expected);
    until(&line, LineState::Connected).await;
}

#[tokio::test]
async fn without_a_device_nothing_is_opened() {
    let line = open_line(&Display::default());
    line.show(lit(&[(1, 1)]));
    assert_eq!(*line.state().borrow(), LineState::Off);
}
