//! The sending half of an agent's socket: a queue, bounded in frames and in bytes, and a task that writes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures::SinkExt;
use futures::stream::SplitSink;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::close;

/// Frames that wait to be read by the agent; when full, the socket is closed 1013.
const MAX_FRAMES: usize = 256;
/// Bytes of frames that wait; when there are more, the socket is closed as well. One frame may be larger.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// How long a close frame may take to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct SendQueue {
    queue: Option<mpsc::Sender<Message>>,
    /// Bytes of the frames that wait.
    bytes: Arc<AtomicUsize>,
    overflow: CancellationToken,
    task: JoinHandle<SplitSink<WebSocket, Message>>,
}

impl SendQueue {
    pub(crate) fn start(mut sink: SplitSink<WebSocket, Message>) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Message>(MAX_FRAMES);
        let (overflow, bytes) = (CancellationToken::new(), Arc::<AtomicUsize>::default());
        let (stop, waiting_bytes) = (overflow.clone(), bytes.clone());
        // Lives as long as its socket, which waits for it.
        let task = tokio::spawn(async move {
            while let Some(message) = waiting.recv().await {
                let size = size(&message);
                let written = tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    written = sink.send(message) => written,
                };
                waiting_bytes.fetch_sub(size, Ordering::Relaxed);
                if written.is_err() {
                    break;
                }
            }
            sink
        });
        Self {
            queue: Some(queue),
            bytes,
            overflow,
            task,
        }
    }

    /// Queues a frame.
    pub(crate) fn send(&self, message: Message) {
        let size = size(&message);
        let before = self.bytes.fetch_add(size, Ordering::Relaxed);
        let full = self.queue.as_ref().is_some_and(|queue| {
            matches!(
                queue.try_send(message),
                Err(mpsc::error::TrySendError::Full(_))
            )
        });
        if full || (before > 0 && before + size > MAX_BYTES) {
            self.overflow.cancel();
        }
    }

    /// Resolves when the queue was full. Cancel-safe.
    pub(crate) async fn overflowed(&self) {
        self.overflow.cancelled().await;
    }

    /// Writes what is queued, then the close frame.
    pub(crate) async fn close(mut self, code: u16, reason: &'static str) {
        self.queue = None;
        let closing = async {
            if let Ok(mut sink) = (&mut self.task).await {
                let _ = sink.send(close(code, reason)).await;
                let _ = sink.close().await;
            }
        };
        if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            self.task.abort();
        }
    }
}

/// Bytes that a frame keeps.
fn size(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    }
}

impl Drop for SendQueue {
    fn drop(&mut self) {
        self.overflow.cancel();
    }
}
