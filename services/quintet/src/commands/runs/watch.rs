//! `quintet runs watch`: a run as it goes, until it ends.
//!
//! On a terminal the run is drawn in place; elsewhere a line per event, as JSON if that is asked for.

use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use quintet_bus::now;
use quintet_contract::run::{Run, RunStatus, RunStreamEvent};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::follow::{event_of, follow, moment_of};
use super::render::{Size, render};
use super::request::{path, run_of};
use super::text::word;
use super::view::View;
use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::events::{Message, Update};
use crate::client::http::Http;
use crate::client::output::terminal::{self, Screen};

/// Time between two redraws.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// How a run is shown.
enum Show {
    /// Drawn in place.
    InPlace(Screen),
    /// A line per event, for people.
    Lines,
    /// A line per event, as JSON.
    Json,
}

/// Follows a run to its end; an interrupt leaves it alone. Fails unless it completes.
pub(super) async fn watch(http: &Http, id: &str, global: &Global) -> Outcome {
    let mut view = View::of(run_of(&http.get(&path(id)).await?)?);
    let mut show = match global.output {
        Output::Json => Show::Json,
        Output::Table if terminal::terminal().is_some() => Show::InPlace(Screen::default()),
        Output::Table => Show::Lines,
    };
    let interrupted = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => true,
        followed = until_end(http, id, &mut view, &mut show) => { followed?; false }
    };
    if !interrupted {
        // What its log no longer holds, such as why an old run failed, the run's record holds.
        let run = run_of(&http.get(&path(id)).await?)?;
        view.status = run.status;
        view.ended = run.ended_at;
        view.error = run.error;
    }
    if let Show::InPlace(screen) = &mut show {
        draw(screen, &view)?;
    }
    if interrupted {
        let text =
            format!("no longer watches; run {id} continues (`quintet runs cancel {id}` ends it)");
        return Err(Failure::new(exit::FAILED, text).into());
    }
    outcome(&view)
}

/// What the end of a run means to a shell.
fn outcome(view: &View) -> Outcome {
    if view.status == RunStatus::Completed {
        return Ok(());
    }
    let why = view.error.as_ref().map(|error| format!(": {error}"));
    let text = format!(
        "run {} {}{}",
        view.id,
        ended(view.status),
        why.unwrap_or_default()
    );
    Err(Failure::new(exit::FAILED, text).into())
}

fn ended(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Pending | RunStatus::Running => "has not ended",
        RunStatus::Completed => "completed",
        RunStatus::Failed => "failed",
        RunStatus::Canceled => "was canceled",
    }
}

async fn until_end(http: &Http, id: &str, view: &mut View, show: &mut Show) -> Outcome {
    let mut events = follow(http, id);
    let mut redraws = interval(REDRAW_INTERVAL);
    redraws.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // How the run stood when the stream was opened: what its log no longer holds cannot end the watch.
    let mut at_hello = RunStatus::Pending;
    loop {
        let update = tokio::select! {
            biased;
            _ = redraws.tick() => {
                if let Show::InPlace(screen) = show {
                    draw(screen, view)?;
                }
                continue;
            }
            update = events.next() => update.context("the events of the run ended")??,
        };
        match update {
            Update::Connected => view.connected = true,
            Update::Disconnected if at_hello.is_final() => return Ok(()),
            Update::Disconnected => view.connected = false,
            Update::Message(message) => {
                print_event(show, &message);
                let Some(event) = event_of(&message) else {
                    continue;
                };
                match &event {
                    RunStreamEvent::Hello { status, .. } => at_hello = *status,
                    RunStreamEvent::Status { status, .. } if status.is_final() => {
                        at_hello = *status
                    }
                    _ => {}
                }
                let ends =
                    matches!(&event, RunStreamEvent::Status { status, .. } if status.is_final());
                view.apply(moment_of(&message), event);
                if ends {
                    return Ok(());
                }
            }
        }
    }
}

fn draw(screen: &mut Screen, view: &View) -> Outcome {
    let Some((rows, columns)) = terminal::terminal() else {
        return Ok(());
    };
    let size = Size {
        columns,
        rows: Some(rows),
    };
    screen.draw(&render(view, now(), size), columns)?;
    Ok(())
}

/// Prints an event as a line, where lines are asked for.
fn print_event(show: &Show, message: &Message) {
    match show {
        Show::InPlace(_) => {}
        Show::Json => print(json!({
            "event": message.event, "id": message.id, "data": message.data
        })),
        Show::Lines => {
            if let Some(line) = event_of(message).and_then(|event| line_of(message, event)) {
                print(line);
            }
        }
    }
}

/// An event as a line for people.
pub(super) fn line_of(message: &Message, event: RunStreamEvent) -> Option<String> {
    let at = moment_of(message).map(|at| at.to_string());
    let at = at.unwrap_or_else(|| " ".repeat(24));
    let line = |node: &str, text: String| Some(format!("{at}  {node:<12} {text}"));
    let because = |error: Option<String>| error.map(|error| format!(": {error}"));
    match event {
        RunStreamEvent::Hello { .. } => None,
        RunStreamEvent::Status { status, error, .. } => line(
            "run",
            format!("{status}{}", because(error).unwrap_or_default()),
        ),
        RunStreamEvent::Checkpoint(checkpoint) => {
            let node = checkpoint.node_id.as_ref().map(ToString::to_string);
            let data = checkpoint.data.as_ref().map(Value::to_string);
            let text = format!(
                "checkpoint {} {}",
                checkpoint.kind,
                data.unwrap_or_default()
            );
            line(node.as_deref().unwrap_or("run"), text.trim_end().to_owned())
        }
        RunStreamEvent::Node {
            node_id,
            status,
            attempt,
            error,
            ..
        } => {
            let attempt = match attempt.0 {
                0 | 1 => String::new(),
                attempt => format!(", attempt {attempt}"),
            };
            let because = because(error).unwrap_or_default();
            line(
                node_id.as_str(),
                format!("{}{attempt}{because}", word(status)),
            )
        }
        RunStreamEvent::Output {
            node_id, output, ..
        } => line(
            node_id.as_str(),
            format!("output {}", Value::Object(output)),
        ),
        RunStreamEvent::Progress { node_id, data, .. } => line(
            node_id.as_str(),
            format!("progress {}", Value::Object(data)),
        ),
        RunStreamEvent::Log {
            node_id,
            line: text,
            ..
        } => line(node_id.as_str(), format!("│ {text}")),
    }
}

/// Draws a run as it is now, once.
pub(super) fn show(run: Run) -> Outcome {
    let size = Size {
        columns: terminal::columns(),
        rows: None,
    };
    terminal::print_lines(&render(&View::of(run), now(), size))?;
    Ok(())
}
