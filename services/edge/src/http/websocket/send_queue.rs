//! A queue of messages for one WebSocket, bounded in messages and in bytes, and the task that writes it. A client that does
//! not read overflows it, and its socket is closed.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::SinkExt;
use futures::stream::SplitSink;
use quintet_service::tasks::{ExitPolicy, Tasks};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::accept::Socket;
use super::close;

/// Messages that wait to be read by the client; when full, the queue overflows.
const MAX_MESSAGES: usize = 256;
/// Bytes of messages that wait; when there are more, the queue overflows as well. One message may be larger.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// How long a close frame may take to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

type Sink = SplitSink<Socket, Message>;

/// The sending half of a socket.
pub(crate) struct SendQueue {
    queue: Option<mpsc::Sender<Message>>,
    /// Bytes of the messages that wait.
    bytes: Arc<AtomicUsize>,
    overflow: CancellationToken,
    /// The sink, when the task has ended.
    written: oneshot::Receiver<Sink>,
}

impl SendQueue {
    pub(crate) fn start(mut sink: Sink, tasks: &Tasks) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Message>(MAX_MESSAGES);
        let (overflow, bytes) = (CancellationToken::new(), Arc::<AtomicUsize>::default());
        let (stop, waiting_bytes) = (overflow.clone(), bytes.clone());
        let (done, written) = oneshot::channel();
        // Ends with its socket, whose session drops the queue.
        tasks.spawn("send queue", ExitPolicy::Optional, async move {
            while let Some(message) = waiting.recv().await {
                let size = message.len();
                let sent = tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    sent = sink.send(message) => sent,
                };
                waiting_bytes.fetch_sub(size, Ordering::Relaxed);
                if sent.is_err() {
                    break;
                }
            }
            // A session that does not close the socket does not wait for it.
            let _ = done.send(sink);
            Ok::<_, Infallible>(())
        });
        Self {
            queue: Some(queue),
            bytes,
            overflow,
            written,
        }
    }

    /// Queues a message.
    pub(crate) fn send(&self, message: Message) {
        let size = message.len();
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
            if let Ok(mut sink) = (&mut self.written).await {
                let _ = sink.send(close(code, reason)).await;
                let _ = sink.close().await;
            }
        };
        // When it is over, dropping the queue ends the task.
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

impl Drop for SendQueue {
    fn drop(&mut self) {
        self.overflow.cancel();
    }
}
