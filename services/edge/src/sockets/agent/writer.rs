//! The sending half of an agent's socket: a bounded queue and a task that writes it.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures::SinkExt;
use futures::stream::SplitSink;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::sockets::close;

/// Frames that wait to be read by the agent; when full, the socket is closed 1013.
const QUEUE: usize = 256;
/// How long a close frame may take to be written.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

pub(super) struct Writer {
    queue: Option<mpsc::Sender<Message>>,
    overflow: CancellationToken,
    task: JoinHandle<SplitSink<WebSocket, Message>>,
}

impl Writer {
    pub(super) fn start(mut sink: SplitSink<WebSocket, Message>) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Message>(QUEUE);
        let overflow = CancellationToken::new();
        let stop = overflow.clone();
        // Lives as long as its socket, which waits for it.
        let task = tokio::spawn(async move {
            while let Some(message) = waiting.recv().await {
                let written = tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    written = sink.send(message) => written,
                };
                if written.is_err() {
                    break;
                }
            }
            sink
        });
        Self {
            queue: Some(queue),
            overflow,
            task,
        }
    }

    /// Queues a frame.
    pub(super) fn send(&self, message: Message) {
        let full = self.queue.as_ref().is_some_and(|queue| {
            matches!(
                queue.try_send(message),
                Err(mpsc::error::TrySendError::Full(_))
            )
        });
        if full {
            self.overflow.cancel();
        }
    }

    /// Resolves when the queue was full. Cancel-safe.
    pub(super) async fn overflowed(&self) {
        self.overflow.cancelled().await;
    }

    /// Writes what is queued, then the close frame.
    pub(super) async fn close(mut self, code: u16, reason: &'static str) {
        self.queue = None;
        let closing = async {
            if let Ok(mut sink) = (&mut self.task).await {
                let _ = sink.send(close(code, reason)).await;
                let _ = sink.close().await;
            }
        };
        if timeout(CLOSE_DEADLINE, closing).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.overflow.cancel();
    }
}
