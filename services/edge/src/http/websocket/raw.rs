//! A WebSocket that is mostly written to: a message for many clients is one whole frame, encoded once and shared.
//!
//! The protocol is tungstenite's; only the payloads of our own text frames bypass its buffer, which would keep a copy for
//! every socket and never shrink again after the first snapshot. It is written around at moments when it is empty.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::accept::Socket;
use super::close;
use crate::metrics;

/// How long a client may take to read what is written at once before it is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// First byte of a whole frame that holds text.
const TEXT: u8 = 0x81;

/// A text as a whole frame of a server.
pub(crate) fn text_frame(text: &str) -> Bytes {
    let mut frame = BytesMut::with_capacity(text.len() + 10);
    let length = text.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => frame.extend([TEXT, short]),
        (_, Ok(medium)) => {
            frame.extend([TEXT, 126]);
            frame.extend(medium.to_be_bytes());
        }
        _ => {
            frame.extend([TEXT, 127]);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(text.as_bytes());
    frame.freeze()
}

/// Frames in flight to one client.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    waiting: VecDeque<Bytes>,
    bytes: usize,
}

impl Frames {
    pub(crate) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.waiting.push_back(frame);
    }
}

impl Buf for Frames {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.waiting.front().map_or(&[], |frame| frame)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pairs = slices.iter_mut().zip(&self.waiting);
        pairs
            .map(|(slice, frame)| *slice = IoSlice::new(frame))
            .count()
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(frame) = self.waiting.front_mut() {
            if count < frame.len() {
                frame.advance(count);
                return;
            }
            count -= frame.len();
            self.waiting.pop_front();
        }
    }
}

/// A socket that is written to in whole frames.
#[derive(Debug)]
pub(crate) struct RawSocket(Socket);

impl From<Socket> for RawSocket {
    fn from(socket: Socket) -> Self {
        Self(socket)
    }
}

impl RawSocket {
    /// The next message; none at the end. Cancel-safe: a message is taken only when it is returned.
    pub(crate) async fn recv(&mut self) -> Option<Result<Message, Error>> {
        self.0.next().await
    }

    /// Writes all of these. Not cancel-safe: the socket can only be dropped after that.
    pub(crate) async fn write(&mut self, frames: &mut Frames) -> io::Result<()> {
        // An answer to a ping may wait in the buffer that is written around.
        let flushed = pin!(self.0.flush()).await;
        flushed.map_err(io::Error::other)?;
        self.0.get_mut().write_all_buf(frames).await
    }

    /// Writes a close frame.
    async fn close(&mut self, code: u16, reason: &'static str) -> Result<(), Error> {
        self.0.send(close(code, reason)).await
    }
}

/// The client is gone, or does not read.
pub(crate) struct Gone;

/// Writes all of these, unless the client does not read them in time. Not cancel-safe.
pub(crate) async fn write_in_time(
    socket: &mut RawSocket,
    mut frames: Frames,
    kind: &'static str,
) -> Result<(), Gone> {
    match timeout(WRITE_TIMEOUT, socket.write(&mut frames)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Gone),
        Err(_) => {
            metrics::slow_client(kind);
            Err(Gone)
        }
    }
}

/// Sends a goodbye, unless the client does not read it in time.
pub(crate) async fn close_in_time(
    socket: &mut RawSocket,
    code: u16,
    reason: &'static str,
) -> Result<(), Gone> {
    match timeout(WRITE_TIMEOUT, socket.close(code, reason)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone),
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    #[tokio::test]
    async fn a_frame_of_any_length_is_read_as_the_text_it_was_made_of() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 200_000] {
            let text = "x".repeat(length);
            let (client, mut server) = tokio::io::duplex(length + 16);
            server.write_all(&text_frame(&text)).await.unwrap();
            let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
            let read = client.next().await.unwrap().unwrap();
            assert_eq!(read, Message::text(text), "{length}");
        }
    }

    #[test]
    fn frames_are_given_away_byte_by_byte_and_frame_by_frame() {
        for step in 1..=9 {
            let mut frames = Frames::default();
            for part in ["one", "", "two", "six"] {
                frames.push(Bytes::from_static(part.as_bytes()));
            }
            let mut read = Vec::new();
            while frames.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 4];
                let count = frames.chunks_vectored(&mut slices);
                let seen: usize = slices[..count].iter().map(|slice| slice.len()).sum();
                assert_eq!(seen, frames.remaining());
                let taken = frames.copy_to_bytes(step.min(frames.remaining()));
                read.extend_from_slice(&taken);
            }
            assert_eq!(read, b"onetwosix", "{step} at a time");
        }
    }
}
