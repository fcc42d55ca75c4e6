//! What waits to be written to a worker's socket: at most one message of each kind, the newest. A worker that does not
//! read misses ticks, which are worth nothing later.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::ws::{Message, WebSocket};
use futures::SinkExt;
use futures::stream::SplitSink;
use quintet_contract::frame_api::ToFrameWorker;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::close;

/// Messages that wait, in the order in which they are written.
#[derive(Debug, Default)]
struct Waiting {
    hello: Option<String>,
    config: Option<String>,
    tick: Option<String>,
    ping: bool,
    close: Option<(u16, &'static str)>,
}

impl Waiting {
    /// Takes the place of an older message of the same kind.
    fn put(&mut self, message: &ToFrameWorker) {
        let place = match message {
            ToFrameWorker::Hello { .. } => &mut self.hello,
            ToFrameWorker::Config { .. } => &mut self.config,
            ToFrameWorker::Tick { .. } => &mut self.tick,
            ToFrameWorker::Start | ToFrameWorker::Stop | ToFrameWorker::Unknown => return,
        };
        // Plain data: it can always be written.
        *place = serde_json::to_string(message).ok();
    }

    fn take(&mut self) -> Option<Message> {
        let texts = [&mut self.hello, &mut self.config, &mut self.tick];
        let text = texts.into_iter().find_map(Option::take);
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
struct Shared {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Waiting)) {
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

/// The sending half of a worker's socket.
pub(crate) struct ConflatingQueue {
    shared: Arc<Shared>,
    writer: JoinHandle<()>,
}

impl ConflatingQueue {
    pub(crate) fn start(sink: SplitSink<WebSocket, Message>) -> Self {
        let shared = Arc::<Shared>::default();
        // Lives as long as its socket, whose session ends it.
        let writer = tokio::spawn(write(sink, shared.clone()));
        Self { shared, writer }
    }

    /// Writes a message when there is room for it.
    pub(crate) fn put(&self, message: &ToFrameWorker) {
        self.shared.change(|waiting| waiting.put(message));
    }

    pub(crate) fn ping(&self) {
        self.shared.change(|waiting| waiting.ping = true);
    }

    /// Writes what waits, then says goodbye.
    pub(crate) async fn close(mut self, code: u16, reason: &'static str) {
        self.shared
            .change(|waiting| waiting.close = Some((code, reason)));
        // It fails only when the other end is gone.
        let _ = (&mut self.writer).await;
    }
}

impl Drop for ConflatingQueue {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

async fn write(mut sink: SplitSink<WebSocket, Message>, shared: Arc<Shared>) {
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
    use quintet_contract::frame::{Canvas, Fps, Thousandths};
    use serde_json::{Value, json};

    use super::*;

    fn tick(t: f64) -> ToFrameWorker {
        let t = Thousandths::of(t).unwrap();
        ToFrameWorker::Tick { t }
    }

    #[test]
    fn the_newest_of_each_kind_waits_and_they_leave_in_order() {
        let mut waiting = Waiting::default();
        waiting.put(&tick(0.033));
        waiting.close = Some((1012, "bye"));
        waiting.put(&ToFrameWorker::Config {
            data: Default::default(),
        });
        waiting.put(&ToFrameWorker::Start);
        waiting.put(&tick(1.0));
        waiting.put(&ToFrameWorker::Hello {
            fps: Fps::new(30.0).unwrap(),
            canvas: Canvas {
                width: 28,
                height: 14,
            },
        });
        let mut left = Vec::new();
        while let Some(Message::Text(text)) = waiting.take() {
            left.push(serde_json::from_str::<Value>(&text).unwrap());
        }
        let hello = json!({"type": "hello", "fps": 30, "canvas": {"width": 28, "height": 14}});
        let config = json!({"type": "config", "data": {}});
        assert_eq!(left, [hello, config, json!({"type": "tick", "t": 1})]);
        assert!(waiting.take().is_none(), "the close was the last");
    }
}
