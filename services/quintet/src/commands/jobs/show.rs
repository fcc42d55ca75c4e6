//! Jobs as tables, and why a job is where it is.

use quintet_bus::now;
use serde_json::Value;

use crate::cli::exit::Outcome;
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::output::table::{age, table, text, what};

pub(super) fn rows(jobs: &[Value]) {
    if jobs.is_empty() {
        return print("no jobs; submit one with `quintet jobs submit`");
    }
    let mut rows = table(&["job", "status", "agent", "attempt", "age", "what"]);
    for job in jobs {
        rows.add_row([
            text(&job["id"]),
            text(&job["status"]),
            text(&job["agentId"]),
            text(&job["attempt"]),
            age(&job["createdAt"], now()),
            what(job),
        ]);
    }
    print(rows);
}

pub(super) fn show(job: &Value, global: &Global) -> Outcome {
    match global.output {
        Output::Json => print(format_args!("{job:#}")),
        Output::Table => rows(std::slice::from_ref(job)),
    }
    Ok(())
}

pub(super) fn explain(why: &Value, global: &Global) -> Outcome {
    if global.output == Output::Json {
        print(format_args!("{why:#}"));
        return Ok(());
    }
    let seconds = why["waitingMs"].as_f64().unwrap_or_default() / 1000.0;
    print(format_args!(
        "{} for {seconds:.1} s: {}",
        text(&why["status"]),
        text(&why["message"])
    ));
    if let Some(until) = why["until"].as_str() {
        print(format_args!("until {until} at the latest"));
    }
    for agent in why["agents"].as_array().into_iter().flatten() {
        print(format_args!(
            "  {}: {}",
            text(&agent["agentId"]),
            text(&agent["reason"])
        ));
    }
    Ok(())
}
