//! `quintet jobs watch` and `--wait`: a job to its end, also over connections that break.

use std::time::Duration;

use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::path::path;
use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::http::Http;
use crate::client::job_events::follow;
use crate::client::output::table::text;

/// Follows a job to its end with a progress display; an interrupt leaves the job running.
pub(super) async fn wait(http: &Http, id: &str, global: &Global) -> anyhow::Result<Value> {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {elapsed_precise} {prefix:.bold} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(120));
    let mut events = follow(http, id);
    let followed = async {
        while let Some(event) = events.next().await {
            let event = event?;
            match event.event.as_str() {
                "job.status" => {
                    bar.set_prefix(text(&event.data["status"]));
                    let reason = event.data["reason"].as_str().unwrap_or_default();
                    bar.set_message(format!("{id} {reason}"));
                    if global.output == Output::Table {
                        let (at, status) = (&event.data["at"], &event.data["status"]);
                        bar.println(format!("{}  {}", text(at), text(status)));
                    }
                }
                "job.event" => bar.set_message(format!("{id} {}", text(&event.data["message"]))),
                _ => {}
            }
        }
        http.get(&path(id)).await
    };
    let job = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {
            bar.finish_and_clear();
            let text = format!("no longer waits; job {id} goes on (`quintet jobs stop {id}` ends it)");
            return Err(Failure::new(exit::FAILED, text).into());
        }
        job = followed => job?,
    };
    bar.finish_and_clear();
    if global.output == Output::Json {
        print(format_args!("{job:#}"));
    } else {
        print(format_args!("{id}  {}", text(&job["status"])));
    }
    Ok(job)
}

/// Prints every event as it comes.
pub(super) async fn watch(http: &Http, id: &str, global: &Global) -> Outcome {
    let mut events = follow(http, id);
    while let Some(event) = events.next().await {
        let event = event?;
        match (global.output, event.event.as_str()) {
            (Output::Json, _) => print(format_args!(
                "{}",
                json!({"event": event.event, "id": event.id, "data": event.data})
            )),
            (Output::Table, "job.status") => {
                let reason = event.data["reason"].as_str().unwrap_or_default();
                print(format_args!(
                    "{}  {:<9} {reason}",
                    text(&event.data["at"]),
                    text(&event.data["status"])
                ));
            }
            (Output::Table, "job.event") => {
                print(format_args!(
                    "{}  {:<9} {}",
                    text(&event.data["ts"]),
                    "",
                    text(&event.data["message"])
                ));
            }
            (Output::Table, _) => {}
        }
    }
    Ok(())
}
