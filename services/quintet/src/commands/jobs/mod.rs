//! `quintet jobs`.

use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use quintet_bus::now;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::global::{Global, Output};
use crate::cli::stdout::{print, print_bytes};
use crate::client::http::{Http, path_of};
use crate::client::input::json_argument;
use crate::client::output::table::{age, table, text, what};

/// Delay before a broken stream of events is opened again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

#[derive(Subcommand)]
pub(crate) enum JobsCommand {
    /// Submit a job
    Submit(Box<Submit>),
    /// List jobs, oldest first
    List(List),
    /// Show one job
    Get { id: String },
    /// Stop a job
    Stop {
        id: String,
        /// Wait until it has ended
        #[arg(long)]
        wait: bool,
    },
    /// Turn a job's sound off
    Mute { id: String },
    /// Turn a job's sound on
    Unmute { id: String },
    /// Send a live command to a running job
    Control {
        id: String,
        command: String,
        /// Arguments: JSON, @FILE, or - for standard input
        #[arg(long)]
        args: Option<String>,
    },
    /// Print a job's output
    Logs {
        id: String,
        /// Go on until the job ends
        #[arg(short, long)]
        follow: bool,
        /// Begin with the newest lines
        #[arg(long)]
        tail: Option<usize>,
    },
    /// Print every status of a job as it comes
    Watch { id: String },
    /// Say why a job is where it is
    Explain { id: String },
    /// Show a job's stream metadata, or set fields (name=value; an empty value removes one)
    Metadata {
        id: String,
        #[arg(long = "set", value_name = "NAME=VALUE")]
        set: Vec<String>,
    },
}

#[derive(Args)]
pub(crate) struct Submit {
    /// Configuration: JSON, @FILE, or - for standard input
    #[arg(long, group = "source")]
    config: Option<String>,
    /// A stored template
    #[arg(long, group = "source")]
    template: Option<String>,
    /// A value for the template, as name=value; JSON values keep their type
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// A stream to record
    #[arg(long, group = "source", requires = "output_path")]
    stream_url: Option<String>,
    /// Where to record it
    #[arg(long)]
    output_path: Option<String>,
    /// How much of it
    #[arg(long)]
    duration_sec: Option<f64>,
    /// A program to run: everything after --
    #[arg(long, group = "source", requires = "program")]
    exec: bool,
    /// One key, one job
    #[arg(long)]
    key: Option<String>,
    /// Refuse a known key whose request was different
    #[arg(long)]
    strict: bool,
    /// Start it again: never, onFailure or always
    #[arg(long)]
    restart: Option<String>,
    /// How often at most
    #[arg(long)]
    max_restarts: Option<u32>,
    /// Higher is placed first
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Not before this time, RFC 3339
    #[arg(long)]
    not_before: Option<String>,
    /// A tag that the agent must carry
    #[arg(long = "require-tag", value_name = "TAG")]
    tags: Vec<String>,
    /// A label that the agent must carry, as name=value
    #[arg(long = "require-label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// The picture that the agent must handle
    #[arg(long)]
    max_resolution: Option<String>,
    /// Only on agents that fence themselves
    #[arg(long)]
    fenced: bool,
    /// The pool
    #[arg(long)]
    job_pool: Option<String>,
    /// Only say where it would go
    #[arg(long)]
    dry_run: bool,
    /// Wait until it has ended, and show how it goes; fails when the job fails
    #[arg(long)]
    wait: bool,
    #[arg(last = true, value_name = "COMMAND")]
    program: Vec<String>,
}

#[derive(Args)]
pub(crate) struct List {
    /// Only jobs with this status
    #[arg(long)]
    status: Option<String>,
    /// Only jobs of this agent
    #[arg(long)]
    agent: Option<String>,
    /// At most so many
    #[arg(long)]
    limit: Option<u32>,
}

fn path(id: &str) -> String {
    format!("/v1/jobs/{}", path_of(id))
}

pub(super) async fn run(command: JobsCommand, global: &Global) -> Outcome {
    let http = Http::of(global)?;
    match command {
        JobsCommand::Submit(submit) => self::submit(&http, &submit, global).await,
        JobsCommand::List(list) => self::list(&http, &list, global).await,
        JobsCommand::Get { id } => show(&http.get(&path(&id)).await?, global),
        JobsCommand::Stop { id, wait } => {
            let mut answer = http.post_empty(&format!("{}/stop", path(&id))).await?;
            if wait {
                return self::wait(&http, &id, global).await.map(drop);
            }
            show(&answer["job"].take(), global)
        }
        JobsCommand::Mute { id } => show(
            &http.post_empty(&format!("{}/mute", path(&id))).await?["job"],
            global,
        ),
        JobsCommand::Unmute { id } => show(
            &http.post_empty(&format!("{}/unmute", path(&id))).await?["job"],
            global,
        ),
        JobsCommand::Control { id, command, args } => {
            let args = args.as_deref().map_or(Ok(json!({})), json_argument)?;
            let answer = http
                .post(
                    &format!("{}/control", path(&id)),
                    &json!({"command": command, "args": args}),
                )
                .await?;
            print(format_args!("{:#}", answer["answer"]));
            Ok(())
        }
        JobsCommand::Logs { id, follow, tail } => logs(&http, &id, follow, tail).await,
        JobsCommand::Watch { id } => watch(&http, &id, global).await,
        JobsCommand::Explain { id } => {
            explain(&http.get(&format!("{}/explain", path(&id))).await?, global)
        }
        JobsCommand::Metadata { id, set } => {
            let path = format!("{}/metadata", path(&id));
            let answer = match set.is_empty() {
                true => http.get(&path).await?,
                false => http.put(&path, &Value::Object(pairs(&set)?)).await?,
            };
            print(format_args!("{:#}", answer["metadata"]));
            Ok(())
        }
    }
}

/// `name=value` pairs; a value that is JSON keeps its type, an empty one is null.
fn pairs(list: &[String]) -> anyhow::Result<Map<String, Value>> {
    list.iter()
        .map(|pair| {
            let wrong = || {
                Failure::new(
                    exit::USAGE,
                    format!("{pair:?} is not of the form name=value"),
                )
            };
            let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
            let value = match value {
                "" => Value::Null,
                text => {
                    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
                }
            };
            Ok((name.to_owned(), value))
        })
        .collect()
}

/// The body of a submission.
fn body(submit: &Submit) -> anyhow::Result<Value> {
    let mut body = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    let config = if let Some(config) = &submit.config {
        Some(json_argument(config)?)
    } else if let Some(url) = &submit.stream_url {
        let mut config = json!({"streamUrl": url, "outputPath": submit.output_path});
        if let Some(seconds) = submit.duration_sec {
            config["durationSec"] = json!(seconds);
        }
        Some(config)
    } else {
        submit.exec.then(|| json!({"command": submit.program}))
    };
    set("inlineConfig", config);
    set("templateId", submit.template.clone().map(Value::String));
    set(
        "params",
        (!submit.params.is_empty())
            .then(|| pairs(&submit.params))
            .transpose()?
            .map(Value::Object),
    );
    set("idempotencyKey", submit.key.clone().map(Value::String));
    set("restartPolicy", submit.restart.clone().map(Value::String));
    set("maxRestarts", submit.max_restarts.map(Value::from));
    set("priority", submit.priority.map(Value::from));
    set("notBefore", submit.not_before.clone().map(Value::String));
    set("pool", submit.job_pool.clone().map(Value::String));
    let mut requirements = Map::new();
    if !submit.tags.is_empty() {
        requirements.insert("tags".to_owned(), json!(submit.tags));
    }
    if !submit.labels.is_empty() {
        let labels = pairs(&submit.labels)?
            .into_iter()
            .map(|(name, value)| (name, Value::String(text(&value))));
        requirements.insert("labels".to_owned(), labels.collect::<Map<_, _>>().into());
    }
    if let Some(resolution) = &submit.max_resolution {
        requirements.insert("maxResolution".to_owned(), json!(resolution));
    }
    if submit.fenced {
        requirements.insert("fenced".to_owned(), json!(true));
    }
    set(
        "requirements",
        (!requirements.is_empty()).then_some(Value::Object(requirements)),
    );
    Ok(Value::Object(body))
}

async fn submit(http: &Http, submit: &Submit, global: &Global) -> Outcome {
    let path = if submit.dry_run {
        "/v1/jobs?dryRun=true"
    } else {
        "/v1/jobs"
    };
    let mut request = http.request(Method::POST, path).json(&body(submit)?);
    if submit.strict {
        request = request.header("idempotency-strict", "true");
    }
    let answer: Value = http
        .send(request)
        .await?
        .json()
        .await
        .context("the answer is not JSON")?;
    if submit.dry_run {
        print(format_args!("{answer:#}"));
        return Ok(());
    }
    let id = answer["id"]
        .as_str()
        .context("the job has no id")?
        .to_owned();
    if !submit.wait {
        return show(&answer, global);
    }
    let job = wait(http, &id, global).await?;
    match job["status"].as_str() {
        Some("STOPPED") => Ok(()),
        status => {
            let error = &job["error"];
            let why = error["message"]
                .as_str()
                .map(|message| format!(": {message}"))
                .unwrap_or_default();
            Err(Failure::new(
                exit::FAILED,
                format!("job {id} ended {}{why}", status.unwrap_or("?")),
            )
            .into())
        }
    }
}

/// Follows a job to its end with a progress display; an interrupt leaves the job running.
async fn wait(http: &Http, id: &str, global: &Global) -> anyhow::Result<Value> {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {elapsed_precise} {prefix:.bold} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(120));
    let mut last: Option<String> = None;
    let followed = async {
        loop {
            let mut events = http
                .events(&format!("{}/events", path(id)), last.as_deref())
                .await?;
            while let Ok(Some(event)) = events.next().await {
                match event.event.as_str() {
                    "job.status" => {
                        last = Some(event.id);
                        bar.set_prefix(text(&event.data["status"]));
                        bar.set_message(format!(
                            "{id} {}",
                            event.data["reason"].as_str().unwrap_or_default()
                        ));
                        if global.output == Output::Table {
                            bar.println(format!(
                                "{}  {}",
                                text(&event.data["at"]),
                                text(&event.data["status"])
                            ));
                        }
                    }
                    "job.event" => {
                        bar.set_message(format!("{id} {}", text(&event.data["message"])))
                    }
                    _ => {}
                }
            }
            let job = http.get(&path(id)).await?;
            if is_final(&job) {
                return anyhow::Ok(job);
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
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

fn is_final(job: &Value) -> bool {
    matches!(
        job["status"].as_str(),
        Some("STOPPED" | "FAILED" | "CANCELED")
    )
}

async fn list(http: &Http, list: &List, global: &Global) -> Outcome {
    let query = [
        ("status", list.status.clone()),
        ("agentId", list.agent.clone()),
        ("limit", list.limit.map(|limit| limit.to_string())),
    ];
    let query: Vec<String> = query
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", path_of(&value?))))
        .collect();
    let jobs = http.get(&format!("/v1/jobs?{}", query.join("&"))).await?;
    if global.output == Output::Json {
        print(format_args!("{jobs:#}"));
        return Ok(());
    }
    rows(jobs.as_array().context("the answer is no list")?);
    Ok(())
}

fn rows(jobs: &[Value]) {
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

fn show(job: &Value, global: &Global) -> Outcome {
    match global.output {
        Output::Json => print(format_args!("{job:#}")),
        Output::Table => rows(std::slice::from_ref(job)),
    }
    Ok(())
}

async fn logs(http: &Http, id: &str, follow: bool, tail: Option<usize>) -> Outcome {
    let tail = tail.map(|tail| format!("&tail={tail}")).unwrap_or_default();
    let request = http.request(
        Method::GET,
        &format!("{}/logs?follow={follow}{tail}", path(id)),
    );
    let mut lines = http.send(request).await?.bytes_stream();
    while let Some(chunk) = lines.next().await {
        print_bytes(&chunk.context("the output broke off")?);
    }
    Ok(())
}

async fn watch(http: &Http, id: &str, global: &Global) -> Outcome {
    let mut events = http.events(&format!("{}/events", path(id)), None).await?;
    while let Some(event) = events.next().await? {
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

fn explain(why: &Value, global: &Global) -> Outcome {
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        submit: Submit,
    }

    fn of(arguments: &[&str]) -> Value {
        let line = Line::parse_from([&["submit"], arguments].concat());
        body(&line.submit).unwrap()
    }

    #[test]
    fn arguments_become_the_body_of_a_submission() {
        assert_eq!(
            of(&["--exec", "--", "echo", "-n", "hi"]),
            json!({"inlineConfig": {"command": ["echo", "-n", "hi"]}})
        );
        assert_eq!(
            of(&[
                "--template",
                "t",
                "--param",
                "n=5",
                "--param",
                "s=x",
                "--key",
                "k",
                "--priority",
                "-3"
            ]),
            json!({"templateId": "t", "params": {"n": 5, "s": "x"}, "idempotencyKey": "k", "priority": -3})
        );
        assert_eq!(
            of(&[
                "--stream-url",
                "u",
                "--output-path",
                "o.mp4",
                "--duration-sec",
                "10",
                "--require-tag",
                "gpu",
                "--require-label",
                "zone=eu",
                "--fenced"
            ]),
            json!({"inlineConfig": {"streamUrl": "u", "outputPath": "o.mp4", "durationSec": 10.0},
                "requirements": {"tags": ["gpu"], "labels": {"zone": "eu"}, "fenced": true}})
        );
        assert_eq!(
            of(&["--config", r#"{"executor":"noop"}"#]),
            json!({"inlineConfig": {"executor": "noop"}})
        );
    }
}
