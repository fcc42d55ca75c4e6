//! `quintet jobs submit`.

use anyhow::Context;
use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::show::show;
use super::watch::wait;
use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::global::Global;
use crate::cli::stdout::print;
use crate::client::http::Http;
use crate::client::input::{fields, json_argument};
use crate::client::output::table::text;

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
    /// The image that the agent must handle
    #[arg(long)]
    max_resolution: Option<String>,
    /// Only on agents that fence themselves
    #[arg(long)]
    fenced: bool,
    /// The pool
    #[arg(long)]
    job_pool: Option<String>,
    /// Only show where it would go
    #[arg(long)]
    dry_run: bool,
    /// Wait until it has ended, and show how it goes; fails when the job fails
    #[arg(long)]
    wait: bool,
    #[arg(last = true, value_name = "COMMAND")]
    program: Vec<String>,
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
            .then(|| fields(&submit.params))
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
        let labels = fields(&submit.labels)?
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

pub(super) async fn submit(http: &Http, submit: &Submit, global: &Global) -> Outcome {
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
