//! The line to the panels: a serial device, written to by a thread of its own.
//!
//! The thread always writes the newest image; those in between are passed over when the line is slower than the frames.
//! A device that cannot be opened or is lost is tried again, more and more seldom, and gets the newest image first.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use quintet_contract::display::{LineState, Parity};
use quintet_contract::frame::Bitmap;
use serial2::{CharSize, SerialPort, Settings, StopBits};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config;
use crate::display::{Map, Shown, flush_packet};
use crate::metrics;

/// How long a device may take to take a packet.
const WRITE_DEADLINE: Duration = Duration::from_secs(1);
/// First wait before a device is tried again; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest wait before a device is tried again.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The line, from the side of the display. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Line {
    newest: watch::Sender<Option<Arc<Bitmap>>>,
    state: watch::Receiver<LineState>,
}

impl Line {
    /// Starts the thread; without a device nothing is started.
    pub(crate) fn open(config: &config::Line, map: Map, skip_unchanged: bool) -> io::Result<Self> {
        let (newest, images) = watch::channel(None);
        let (publish, state) = watch::channel(LineState::Off);
        if config.enabled {
            let writer = Writer {
                config: config.clone(),
                map,
                skip_unchanged,
                images,
                publish,
                runtime: Handle::current(),
            };
            let thread = std::thread::Builder::new().name("quintet-line".to_owned());
            thread.spawn(move || writer.run())?;
        }
        Ok(Self { newest, state })
    }

    /// Shows an image as soon as the line is free.
    pub(crate) fn show(&self, bitmap: Arc<Bitmap>) {
        self.newest.send_replace(Some(bitmap));
    }

    /// How the line is.
    pub(crate) fn state(&self) -> watch::Receiver<LineState> {
        self.state.clone()
    }
}

struct Writer {
    config: config::Line,
    map: Map,
    skip_unchanged: bool,
    images: watch::Receiver<Option<Arc<Bitmap>>>,
    publish: watch::Sender<LineState>,
    runtime: Handle,
}

/// The other side is gone: no more images come.
struct Over;

impl Writer {
    fn run(mut self) {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(RETRY_MIN)
            .with_max_delay(RETRY_MAX)
            .without_max_times();
        let mut waits = backoff.build();
        loop {
            match open(&self.config) {
                Ok(port) => {
                    info!(device = %self.config.device, "writes to the panels");
                    self.publish(LineState::Connected);
                    waits = backoff.build();
                    match self.write_all(&port) {
                        Ok(Over) => return,
                        Err(error) => {
                            metrics::line_lost();
                            warn!(device = %self.config.device, %error, "lost the line to the panels");
                        }
                    }
                }
                Err(error) if *self.publish.borrow() != LineState::Lost => {
                    warn!(device = %self.config.device, %error, "cannot open the line to the panels, retrying");
                }
                Err(_) => {}
            }
            self.publish(LineState::Lost);
            if self.pause(waits.next().unwrap_or(RETRY_MAX)).is_err() {
                return;
            }
        }
    }

    fn publish(&self, state: LineState) {
        self.publish
            .send_if_modified(|published| std::mem::replace(published, state) != state);
    }

    /// Waits, but not beyond the end of the other side.
    fn pause(&mut self, pause: Duration) -> Result<(), Over> {
        let images = &mut self.images;
        self.runtime.block_on(async {
            let gone = async { while images.changed().await.is_ok() {} };
            match tokio::time::timeout(pause, gone).await {
                Ok(()) => Err(Over),
                Err(_) => Ok(()),
            }
        })
    }

    /// Writes every image that is the newest when the line is free.
    fn write_all(&mut self, port: &SerialPort) -> io::Result<Over> {
        let mut written: Vec<Vec<u8>> = Vec::new();
        self.images.mark_changed();
        loop {
            if self.runtime.block_on(self.images.changed()).is_err() {
                return Ok(Over);
            }
            let Some(bitmap) = self.images.borrow_and_update().clone() else {
                continue;
            };
            let packets = self.map.packets(&bitmap, self.config.shown);
            self.write(port, &packets, &written)?;
            written = packets;
        }
    }

    fn write(&self, port: &SerialPort, packets: &[Vec<u8>], before: &[Vec<u8>]) -> io::Result<()> {
        let mut is_first = true;
        for (place, packet) in packets.iter().enumerate() {
            if self.skip_unchanged && before.get(place) == Some(packet) {
                continue;
            }
            if !is_first && !self.config.inter_panel.is_zero() {
                std::thread::sleep(self.config.inter_panel);
            }
            is_first = false;
            port.write_all(packet)?;
        }
        if is_first {
            return Ok(());
        }
        if self.config.shown == Shown::Together {
            port.write_all(&flush_packet())?;
        }
        // Until the last bit has left: what waits meanwhile is replaced by what is newer.
        port.flush()
    }
}

fn open(config: &config::Line) -> io::Result<SerialPort> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text.to_owned());
    let mut port = SerialPort::open(&config.device, |mut settings: Settings| {
        settings.set_raw();
        settings.set_baud_rate(config.baud)?;
        let data_bits = CharSize::try_from(config.data_bits);
        settings.set_char_size(data_bits.map_err(|_| invalid("a character has 5 to 8 data bits"))?);
        let stop_bits = StopBits::try_from(config.stop_bits);
        settings.set_stop_bits(stop_bits.map_err(|_| invalid("a character has 1 or 2 stop bits"))?);
        settings.set_parity(match config.parity {
            Parity::None => serial2::Parity::None,
            Parity::Odd => serial2::Parity::Odd,
            Parity::Even => serial2::Parity::Even,
        });
        Ok(settings)
    })?;
    port.set_write_timeout(WRITE_DEADLINE)?;
    Ok(port)
}

#[cfg(test)]
mod tests;
