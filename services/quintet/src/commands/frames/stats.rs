//! `quintet frames stats`: statistics of frames, once or as they change.

use std::time::Duration;

use ratatui::text::Line;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::cli::exit::Outcome;
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::http::Http;
use crate::client::output::table::{names, text};
use crate::client::output::terminal::{Screen, terminal};

const PATH: &str = "/stats";
/// Time between two polls.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// What is counted.
const COUNTS: [&str; 3] = ["received", "forwarded", "dropped"];

/// What was seen, and when.
struct Seen {
    stats: Value,
    at: Instant,
}

pub(super) async fn once(http: &Http, global: &Global) -> Outcome {
    let stats = http.get(PATH).await?;
    match global.output {
        Output::Json => print(format_args!("{stats:#}")),
        Output::Table => print(lines(&stats, None).join("\n")),
    }
    Ok(())
}

/// Shows it once a second until Ctrl-C: drawn over in a terminal, else a line each.
pub(super) async fn watch(http: &Http, global: &Global) -> Outcome {
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(()),
        outcome = follow(http, global.output) => outcome,
    }
}

async fn follow(http: &Http, output: Output) -> Outcome {
    let mut polls = interval(POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut screen, mut before) = (Screen::default(), None);
    loop {
        polls.tick().await;
        let seen = Seen {
            stats: http.get(PATH).await?,
            at: Instant::now(),
        };
        let rates = before.as_ref().map(|before| rates(before, &seen));
        match (output, terminal()) {
            (Output::Table, Some((rows, columns))) => {
                let lines = lines(&seen.stats, rates).into_iter().map(Line::raw);
                // All that is drawn over must be in sight.
                let lines: Vec<_> = lines.take(usize::from(rows.saturating_sub(1))).collect();
                screen.draw(&lines, columns)?;
            }
            (Output::Table, None) => print(short(&seen.stats)),
            (Output::Json, _) => print(&seen.stats),
        }
        before = Some(seen);
    }
}

/// Frames per second, of each that is counted. A service that restarted counts from zero.
fn rates(before: &Seen, now: &Seen) -> [f64; 3] {
    let seconds = (now.at - before.at).as_secs_f64().max(0.001);
    COUNTS.map(|name| {
        let count = |seen: &Seen| seen.stats["counts"][name].as_u64().unwrap_or(0);
        let (old, new) = (count(before), count(now));
        new.checked_sub(old).unwrap_or(new) as f64 / seconds
    })
}

fn lines(stats: &Value, rates: Option<[f64; 3]>) -> Vec<String> {
    let line = |name: &str, value: String| format!("{name:<10}{value}");
    let list = |value: &Value| match value.as_array() {
        Some(list) if !list.is_empty() => names(list),
        _ => "-".to_owned(),
    };
    let mut lines = vec![
        line("active", text(&stats["active"])),
        line("fps", text(&stats["fps"])),
        line("running", list(&stats["running"])),
        line("sources", list(&stats["sources"])),
    ];
    for (place, name) in COUNTS.into_iter().enumerate() {
        let rate = rates.map(|rates| format!("  {:.1}/s", rates[place]));
        let count = text(&stats["counts"][name]);
        lines.push(line(name, format!("{count}{}", rate.unwrap_or_default())));
    }
    if stats["degraded"] == true {
        lines.push(line(
            "degraded",
            "the display refused a frame and is spared".to_owned(),
        ));
    }
    for (worker, error) in stats["errors"].as_object().into_iter().flatten() {
        lines.push(line("error", format!("{worker}: {}", text(error))));
    }
    lines
}

fn short(stats: &Value) -> String {
    let counts = COUNTS.map(|name| format!("{name} {}", text(&stats["counts"][name])));
    let degraded = if stats["degraded"] == true {
        "  degraded"
    } else {
        ""
    };
    format!(
        "{}  {} fps  {}{degraded}",
        text(&stats["active"]),
        text(&stats["fps"]),
        counts.join("  ")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stats(received: u64) -> Value {
        json!({
            "active": "text", "fps": 30, "running": ["dot", "text"], "sources": [], "degraded": true,
            "counts": {"received": received, "forwarded": 60, "dropped": 1}, "errors": {"dot": "bad magic"}
        })
    }

    #[test]
    fn stats_are_printed_line_by_line() {
        let expected = [
            "active    text",
            "fps       30",
            "running   dot, text",
            "sources   -",
            "received  61  30.5/s",
            "forwarded 60  0.0/s",
            "dropped   1  0.0/s",
            "degraded  the display refused a frame and is spared",
            "error     dot: bad magic",
        ];
        let begin = Instant::now();
        let seen = |received, after| Seen {
            stats: stats(received),
            at: begin + Duration::from_secs(after),
        };
        let found = rates(&seen(0, 0), &seen(61, 2));
        assert_eq!(lines(&stats(61), Some(found)), expected);
        let restarted = rates(&seen(100, 0), &seen(10, 1));
        assert_eq!(restarted[0], 10.0);
        let line = "text  30 fps  received 61  forwarded 60  dropped 1  degraded";
        assert_eq!(short(&stats(61)), line);
    }
}
