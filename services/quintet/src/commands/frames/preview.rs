//! `quintet frames preview`: the display in the terminal, drawn over whenever it changes.

use std::io::{self, IsTerminal};
use std::time::Duration;

use crossterm::cursor::{Hide, Show};
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::execute;
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use quintet_contract::frame::Bitmap;
use ratatui::text::Line;
use tokio::time::{MissedTickBehavior, interval_at};

use super::image::{Size, framed, read};
use crate::cli::exit::Outcome;
use crate::cli::stdout::print;
use crate::client::http::Http;
use crate::client::output::terminal::{CARE, DIM, Screen, terminal};

/// One pixel per disc.
const PATH: &str = "/frame.png?scale=1";
/// Time between two polls. One at a display that did not change costs the server nearly nothing.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// An image and its tag.
type Tagged = (Bitmap, Option<String>);

/// What a poll brings.
enum Poll {
    New(Bitmap),
    Same,
    Lost,
}

/// Shows the display until it is interrupted; once where there is no terminal.
pub(super) async fn preview(http: &Http, is_once: bool) -> Outcome {
    // The first poll may fail, with its reason; later ones are repeated.
    let (bitmap, tag) = match poll(http, None).await? {
        Some(first) => first,
        None => anyhow::bail!("the server reports an image as unchanged that it never sent"),
    };
    if is_once || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        print(framed(&bitmap, None).join("\n"));
        return Ok(());
    }
    let _raw = RawTerminal::enter()?;
    live(bitmap, polls(http.clone(), tag)).await
}

async fn poll(http: &Http, tag: Option<&str>) -> anyhow::Result<Option<Tagged>> {
    match http.get_unless(PATH, tag).await? {
        Some((file, tag)) => Ok(Some((read(&file)?, tag))),
        None => Ok(None),
    }
}

/// Polls, one after the other. Cancel-safe to await: a poll that is under way is kept by the stream.
fn polls(http: Http, tag: Option<String>) -> BoxStream<'static, Poll> {
    let mut times = interval_at(tokio::time::Instant::now() + POLL_INTERVAL, POLL_INTERVAL);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let again = async |(http, mut times, tag): (Http, tokio::time::Interval, Option<String>)| {
        times.tick().await;
        let (poll, tag) = match poll(&http, tag.as_deref()).await {
            Ok(Some((bitmap, tag))) => (Poll::New(bitmap), tag),
            Ok(None) => (Poll::Same, tag),
            Err(_) => (Poll::Lost, tag),
        };
        Some((poll, (http, times, tag)))
    };
    stream::unfold((http, times, tag), again).boxed()
}

async fn live(mut bitmap: Bitmap, mut polls: BoxStream<'static, Poll>) -> Outcome {
    let (mut keys, mut screen) = (EventStream::new(), Screen::default());
    let mut is_lost = false;
    draw(&mut screen, &bitmap, is_lost)?;
    loop {
        let poll = tokio::select! {
            biased;
            key = keys.next() => match key {
                Some(Ok(Event::Key(key))) if ends(&key) => return Ok(()),
                Some(Ok(Event::Resize(..))) => Poll::New(bitmap.clone()),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return Ok(()),
            },
            poll = polls.next() => match poll {
                Some(poll) => poll,
                None => return Ok(()),
            },
        };
        let was_lost = is_lost;
        is_lost = matches!(poll, Poll::Lost);
        let is_new = matches!(poll, Poll::New(_));
        if let Poll::New(new) = poll {
            bitmap = new;
        }
        if is_new || is_lost != was_lost {
            draw(&mut screen, &bitmap, is_lost)?;
        }
    }
}

/// Ctrl-C comes as a key, since the terminal is raw.
fn ends(key: &KeyEvent) -> bool {
    let is_interrupt =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let is_end = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
    key.kind == KeyEventKind::Press && (is_end || is_interrupt)
}

fn draw(screen: &mut Screen, bitmap: &Bitmap, is_lost: bool) -> io::Result<()> {
    let Some((rows, columns)) = terminal() else {
        return Ok(());
    };
    // One row for the foot, one below it for the cursor; the last column stays free.
    let size = Size {
        rows: rows.saturating_sub(2),
        columns: columns.saturating_sub(1),
    };
    let mut lines: Vec<Line<'_>> = framed(bitmap, Some(size))
        .into_iter()
        .map(Line::raw)
        .collect();
    let size = bitmap.canvas();
    lines.push(match is_lost {
        false => Line::styled(format!("{size}  q ends"), DIM),
        true => Line::styled(format!("{size}  no answer, tries again  q ends"), CARE),
    });
    screen.draw(&lines, columns)
}

/// A terminal that gives every key at once; as it was when this is dropped.
struct RawTerminal;

impl RawTerminal {
    fn enter() -> io::Result<Self> {
        enable_raw_mode()?;
        let raw = Self;
        execute!(io::stdout(), Hide)?;
        Ok(raw)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // No output is left to report a lost terminal to.
        let _ = execute!(io::stdout(), Show);
        let _ = disable_raw_mode();
    }
}
