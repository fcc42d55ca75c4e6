//! `quintet top`: agents and jobs, live in the terminal.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use crossterm::event::{Event, EventStream, KeyCode, KeyEventKind};
use futures::StreamExt;
use futures::stream::BoxStream;
use quintet_bus::now;
use quintet_contract::socket::ui;
use ratatui::Frame;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Row, Table, TableState};
use serde_json::Value;
use tokio::time::{interval, timeout};

use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::global::Global;
use crate::cli::stdout::print;
use crate::client::events::Update;
use crate::client::http::{Http, path_of};
use crate::client::output::table::{age, text, what};
use crate::client::websocket;

/// The socket of the dashboard.
const PATH: &str = "/ui";
/// How long the connection and each of the first snapshots may take.
const FIRST_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct TopCommand {
    /// Print one screen and end
    #[arg(long)]
    once: bool,
}

/// Everything that is shown.
#[derive(Default)]
struct View {
    agents: BTreeMap<String, Value>,
    jobs: BTreeMap<String, Value>,
    connected: bool,
    selected: TableState,
    message: String,
}

impl View {
    /// Applies an update of the connection; the first messages of each are snapshots.
    fn update(&mut self, update: Update<String>) {
        match update {
            Update::Connected => self.connected = true,
            Update::Message(message) => self.apply(&message),
            Update::Disconnected => self.connected = false,
        }
    }

    /// Applies a message of the dashboard's socket.
    fn apply(&mut self, frame: &str) {
        let Ok(mut frame) = serde_json::from_str::<Value>(frame) else {
            return;
        };
        let payload = frame["payload"].take();
        let into = match frame["type"].as_str() {
            Some(ui::AGENT_UPDATE) => &mut self.agents,
            Some(ui::JOB_UPDATE) => &mut self.jobs,
            Some(ui::AGENT_REMOVED) => {
                self.agents.remove(&text(&payload["id"]));
                return;
            }
            Some(ui::JOB_REMOVED) => {
                self.jobs.remove(&text(&payload["id"]));
                return;
            }
            _ => return,
        };
        match payload {
            Value::Array(all) => {
                *into = all.into_iter().map(|one| (text(&one["id"]), one)).collect()
            }
            one => drop(into.insert(text(&one["id"]), one)),
        }
    }

    /// Jobs, newest first.
    fn newest(&self) -> Vec<&Value> {
        let mut jobs: Vec<&Value> = self.jobs.values().collect();
        jobs.sort_by_key(|job| std::cmp::Reverse(text(&job["createdAt"])));
        jobs
    }

    fn selected_job(&self) -> Option<String> {
        let jobs = self.newest();
        self.selected
            .selected()
            .and_then(|index| jobs.get(index))
            .map(|job| text(&job["id"]))
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let agents = u16::try_from(self.agents.len())
            .unwrap_or(u16::MAX)
            .clamp(1, 12)
            + 3;
        let [head, top, bottom, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(agents),
            Constraint::Min(4),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        let running = self
            .jobs
            .values()
            .filter(|job| job["status"] == "RUNNING")
            .count();
        let waiting = self
            .jobs
            .values()
            .filter(|job| job["status"] == "PENDING")
            .count();
        let online = self
            .agents
            .values()
            .filter(|agent| agent["state"] != "OFFLINE")
            .count();
        let link = if self.connected {
            ""
        } else {
            "  (reconnecting)"
        };
        let line = format!(
            "quintet  {online}/{} agents online  {running} running  {waiting} waiting  {} jobs{link}",
            self.agents.len(),
            self.jobs.len()
        );
        frame.render_widget(
            Line::from(line).style(Style::new().add_modifier(Modifier::BOLD)),
            head,
        );
        frame.render_widget(self.agent_table(), top);
        let jobs = self.job_table();
        frame.render_stateful_widget(jobs, bottom, &mut self.selected);
        let help = if self.message.is_empty() {
            "↑ ↓ choose   s stop   m mute   u unmute   q leave"
        } else {
            &self.message
        };
        frame.render_widget(
            Line::from(help.to_owned()).style(Style::new().fg(Color::DarkGray)),
            foot,
        );
    }

    fn agent_table(&self) -> Table<'static> {
        let rows = self.agents.values().map(|agent| {
            let used = agent["jobs"].as_array().map_or(0, Vec::len);
            Row::new([
                Cell::from(text(&agent["id"])),
                state(&agent["state"]),
                Cell::from(format!(
                    "{used}/{}",
                    agent["capabilities"]["slots"].as_u64().unwrap_or(1)
                )),
                Cell::from(if agent["drain"] == true { "drain" } else { "" }),
                Cell::from(text(&agent["version"])),
            ])
        });
        let widths = [
            Constraint::Fill(2),
            Constraint::Length(10),
            Constraint::Length(7),
            Constraint::Length(6),
            Constraint::Fill(1),
        ];
        Table::new(rows, widths)
            .header(
                Row::new(["AGENT", "STATE", "SLOTS", "", "VERSION"])
                    .style(Style::new().fg(Color::DarkGray)),
            )
            .block(Block::bordered().title("agents"))
    }

    fn job_table(&self) -> Table<'static> {
        let rows = self.newest().into_iter().map(|job| {
            let progress = &job["streamMetadata"]["progress"];
            let doing = match progress["outTimeMs"].as_f64() {
                Some(at) if job["status"] == "RUNNING" => {
                    format!("{:.0} s, {}", at / 1000.0, what(job))
                }
                _ => what(job),
            };
            Row::new([
                Cell::from(text(&job["id"])),
                state(&job["status"]),
                Cell::from(text(&job["agentId"])),
                Cell::from(age(&job["createdAt"], now())),
                Cell::from(doing),
            ])
        });
        let widths = [
            Constraint::Length(36),
            Constraint::Length(10),
            Constraint::Length(16),
            Constraint::Length(7),
            Constraint::Fill(1),
        ];
        Table::new(rows.collect::<Vec<_>>(), widths)
            .header(
                Row::new(["JOB", "STATUS", "AGENT", "AGE", "WHAT"])
                    .style(Style::new().fg(Color::DarkGray)),
            )
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .block(Block::bordered().title("jobs"))
    }
}

fn state(value: &Value) -> Cell<'static> {
    let color = match value.as_str().unwrap_or_default() {
        "RUNNING" | "IDLE" => Color::Green,
        "FAILED" | "ERROR" | "OFFLINE" => Color::Red,
        "UNKNOWN" | "STOPPING" | "DRAINING" => Color::Yellow,
        "STOPPED" | "CANCELED" => Color::DarkGray,
        _ => Color::Cyan,
    };
    Cell::from(text(value)).style(Style::new().fg(color))
}

pub(super) async fn run(command: TopCommand, global: &Global) -> Outcome {
    let http = Http::of(global)?;
    let mut updates = websocket::follow(&http, PATH);
    let mut view = View::default();
    for _ in 0..3 {
        let first = timeout(FIRST_TIMEOUT, updates.next()).await.ok().flatten();
        view.update(first.context("the server sends nothing")??);
    }
    if command.once {
        return once(&mut view);
    }
    let mut terminal = ratatui::try_init().map_err(|_| {
        Failure::new(
            exit::USAGE,
            "top needs a terminal; with --once it prints one screen and ends",
        )
    })?;
    let outcome = live(&mut terminal, &http, updates, view).await;
    ratatui::restore();
    outcome
}

/// One screen as text.
fn once(view: &mut View) -> Outcome {
    let height = u16::try_from(view.jobs.len() + view.agents.len() + 10)
        .unwrap_or(u16::MAX)
        .min(200);
    let mut terminal = Terminal::new(TestBackend::new(120, height))?;
    terminal.draw(|frame| view.draw(frame))?;
    let buffer = terminal.backend().buffer();
    for line in buffer.content.chunks(usize::from(buffer.area.width)) {
        let text: String = line.iter().map(|cell| cell.symbol()).collect();
        print(text.trim_end());
    }
    Ok(())
}

async fn live(
    terminal: &mut ratatui::DefaultTerminal,
    http: &Http,
    mut updates: BoxStream<'static, anyhow::Result<Update<String>>>,
    mut view: View,
) -> Outcome {
    let mut keys = EventStream::new();
    let mut ticks = interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            biased;
            key = keys.next() => match key {
                Some(Ok(Event::Key(key))) if key.kind == KeyEventKind::Press => {
                    if matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                        return Ok(());
                    }
                    pressed(&mut view, http, key.code).await;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(()),
            },
            update = updates.next() => match update {
                Some(update) => { view.update(update?); continue }
                None => return Ok(()),
            },
            _ = ticks.tick() => {}
        }
        terminal.draw(|frame| view.draw(frame))?;
    }
}

async fn pressed(view: &mut View, http: &Http, key: KeyCode) {
    view.message.clear();
    let verb = match key {
        KeyCode::Down => return view.selected.select_next(),
        KeyCode::Up => return view.selected.select_previous(),
        KeyCode::Char('s') => "stop",
        KeyCode::Char('m') => "mute",
        KeyCode::Char('u') => "unmute",
        _ => return,
    };
    let Some(id) = view.selected_job() else {
        view.message = "choose a job with ↑ ↓ first".to_owned();
        return;
    };
    view.message = match http
        .post_empty(&format!("/v1/jobs/{}/{verb}", path_of(&id)))
        .await
    {
        Ok(_) => format!("{verb} {id}"),
        Err(error) => error.to_string(),
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_screen_shows_agents_and_jobs_newest_first() {
        let mut view = View {
            connected: true,
            ..View::default()
        };
        view.apply(&json!({"type": "ui.agent.update", "payload": [{"id": "a", "state": "RUNNING", "jobs": ["1"],
            "capabilities": {"slots": 4}, "version": "1.0"}]}).to_string());
        view.apply(&json!({"type": "ui.job.update", "payload": [
            {"id": "old", "status": "STOPPED", "createdAt": "2026-01-01T00:00:00.000Z", "inlineConfig": {"command": ["x"]}}]})
            .to_string());
        view.apply(&json!({"type": "ui.job.update", "payload":
            {"id": "new", "status": "RUNNING", "createdAt": "2026-01-02T00:00:00.000Z", "inlineConfig": {"command": ["y"]}}})
            .to_string());
        let mut terminal = Terminal::new(TestBackend::new(110, 14)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let lines: Vec<String> = terminal
            .backend()
            .buffer()
            .content
            .chunks(110)
            .map(|line| line.iter().map(|cell| cell.symbol()).collect())
            .collect();
        assert!(
            lines[0].contains("1/1 agents online  1 running"),
            "{lines:#?}"
        );
        let row = |id: &str| lines.iter().position(|line| line.contains(id)).unwrap();
        assert!(
            row("new") < row("old") && lines[3].contains("1/4"),
            "{lines:#?}"
        );
        for (kind, id) in [(ui::JOB_REMOVED, "old"), (ui::AGENT_REMOVED, "a")] {
            view.apply(&json!({"type": kind, "payload": {"id": id}}).to_string());
        }
        assert!(
            view.agents.is_empty() && view.jobs.len() == 1,
            "they are gone"
        );
    }
}
