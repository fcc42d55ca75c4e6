//! `quintet jobs watch` and `--wait`: a job to its end, also over connections that break.

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::path::path;
use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::http::Http;
use crate::client::job_events::follow;
use crate::client::output::table::text;
use crate::client::output::terminal::Progress;

/// Follows a job to its end with a progress display; an interrupt leaves the job running.
pub(super) async fn wait(http: &Http, id: &str, global: &Global) -> anyhow::Result<Value> {
    let mut progress = Progress::new(global.output == Output::Table);
    let mut status = id.to_owned();
    let mut events = follow(http, id);
    let mut redraws = interval(Progress::INTERVAL);
    redraws.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let event = tokio::select! {
            biased;
            _ = &mut interrupted => {
                progress.clear()?;
                let text = format!("no longer waits; job {id} continues (`quintet jobs stop {id}` ends it)");
                return Err(Failure::new(exit::FAILED, text).into());
            }
            event = events.next() => event,
            _ = redraws.tick() => {
                progress.draw(&status)?;
                continue;
            }
        };
        let Some(event) = event.transpose()? else {
            break;
        };
        match event.event.as_str() {
            "job.status" => {
                let (at, now) = (text(&event.data["at"]), text(&event.data["status"]));
                let reason = event.data["reason"].as_str().unwrap_or_default();
                status = format!("{now} {id} {reason}");
                progress.print(format!("{at}  {now}"))?;
            }
            "job.event" => status = format!("{id} {}", text(&event.data["message"])),
            _ => {}
        }
    }
    progress.clear()?;
    let job = http.get(&path(id)).await?;
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
