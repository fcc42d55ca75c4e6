//! A queue for a WebSocket that keeps the newest message of each kind only: a client that does not read misses what is worth
//! nothing later.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use futures::SinkExt;
use futures::stream::SplitSink;
use quintet_service::tasks::{ExitPolicy, Tasks};
use tokio::sync::{Notify, oneshot};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::accept::Socket;
use super::close;

/// Messages that wait: at most one of each of `N` kinds, which are written in their order.
#[derive(Debug)]
struct Waiting<const N: usize> {
    texts: [Option<String>; N],
    ping: bool,
    close: Option<(u16, &'static str)>,
}

impl<const N: usize> Default for Waiting<N> {
    fn default() -> Self {
        Self {
            texts: [const { None }; N],
            ping: false,
            close: None,
        }
    }
}

impl<const N: usize> Waiting<N> {
    fn take(&mut self) -> Option<Message> {
        let text = self.texts.iter_mut().find_map(Option::take);
        if let Some(text) = text {
            return Some(Message::text(text));
        }
        if std::mem::take(&mut self.ping) {
            return Some(Message::Ping(Default::default()));
        }
        self.close.take().map(|(code, reason)| close(code, reason))
    }
}

#[derive(Default)]
struct Shared<const N: usize> {
    waiting: Mutex<Waiting<N>>,
    filled: Notify,
}

impl<const N: usize> Shared<N> {
    fn change(&self, change: impl FnOnce(&mut Waiting<N>)) {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.filled.notify_one();
    }

    fn take(&self) -> Option<Message> {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// The sending half of a socket; `N` kinds of messages.
pub(crate) struct ConflatingQueue<const N: usize> {
    shared: Arc<Shared<N>>,
    stop: CancellationToken,
    /// Closed when the last message is written.
    written: oneshot::Receiver<Infallible>,
}

impl<const N: usize> ConflatingQueue<N> {
    pub(crate) fn start(sink: SplitSink<Socket, Message>, tasks: &Tasks) -> Self {
        let (shared, stop) = (Arc::<Shared<N>>::default(), CancellationToken::new());
        let (end, written) = oneshot::channel();
        let (waiting, stopped) = (shared.clone(), stop.clone());
        // Ends with its socket, whose session drops the queue.
        tasks.spawn("conflating queue", ExitPolicy::Optional, async move {
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = write(sink, waiting) => {}
            }
            drop(end);
            Ok::<_, Infallible>(())
        });
        Self {
            shared,
            stop,
            written,
        }
    }

    /// Writes a text when there is room for it, unless a newer one of its kind comes first.
    pub(crate) fn put(&self, kind: usize, text: String) {
        self.shared.change(|waiting| {
            if let Some(place) = waiting.texts.get_mut(kind) {
                *place = Some(text);
            }
        });
    }

    pub(crate) fn ping(&self) {
        self.shared.change(|waiting| waiting.ping = true);
    }

    /// Writes what waits, then the close frame.
    pub(crate) async fn close(mut self, code: u16, reason: &'static str) {
        self.shared
            .change(|waiting| waiting.close = Some((code, reason)));
        // It fails only when the other end is gone.
        let _ = (&mut self.written).await;
    }
}

impl<const N: usize> Drop for ConflatingQueue<N> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn write<const N: usize>(mut sink: SplitSink<Socket, Message>, shared: Arc<Shared<N>>) {
    loop {
        while let Some(message) = shared.take() {
            let is_last = matches!(message, Message::Close(_));
            if sink.send(message).await.is_err() || is_last {
                return;
            }
        }
        shared.filled.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_kind_waits_and_they_leave_in_order() {
        let shared = Shared::<3>::default();
        let put = |kind: usize, text: &str| {
            shared.change(|waiting| waiting.texts[kind] = Some(text.to_owned()));
        };
        put(2, "tick 1");
        shared.change(|waiting| waiting.close = Some((1012, "bye")));
        put(1, "config");
        shared.change(|waiting| waiting.ping = true);
        put(2, "tick 2");
        put(0, "hello");
        let mut left = Vec::new();
        while let Some(Message::Text(text)) = shared.take() {
            left.push(text.to_string());
        }
        assert_eq!(left, ["hello", "config", "tick 2"]);
        assert!(
            matches!(shared.take(), Some(Message::Close(_))),
            "the ping was taken just before"
        );
        assert!(shared.take().is_none(), "the close was the last");
    }
}
