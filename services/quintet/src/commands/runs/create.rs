//! `quintet runs create`.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::request::{id_of, path_query, show_answer};
use super::watch;
use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::global::Global;
use crate::client::http::Http;
use crate::client::input::json_argument;
use crate::client::input::{file, pairs};

#[derive(Args)]
pub(crate) struct Create {
    /// The plan, as JSON in a file, or - for standard input; without one an outside program does the run
    plan: Option<String>,
    /// An input of the run, as key=value; a value that is JSON keeps its type
    #[arg(long = "input", value_name = "KEY=VALUE")]
    input: Vec<String>,
    /// Inputs of the run, as a JSON object in a file; --input goes before it
    #[arg(long, value_name = "FILE")]
    inputs: Option<String>,
    /// Its display name
    #[arg(long)]
    name: Option<String>,
    /// Whatever is to be found again with it: a JSON object, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Who creates it
    #[arg(long)]
    owner: Option<String>,
    /// The executor of its work
    #[arg(long, value_enum, default_value_t = Mode::Queue)]
    mode: Mode,
    /// Follow it until it ends; fails unless it completes
    #[arg(long)]
    watch: bool,
}

/// The executor of the work of a run.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Run workers that take tasks from queues.
    Queue,
    /// Kubernetes: each command is a Job there.
    K8s,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::K8s => "k8s",
        }
    }
}

pub(super) async fn create(http: &Http, create: &Create, global: &Global) -> Outcome {
    let query = [
        ("mode", Some(create.mode.name().to_owned())),
        ("owner", create.owner.clone()),
    ];
    let path = path_query("/v1/runs", query);
    let answer = http.post(&path, &body(create)?).await?;
    let id = id_of(&answer)?;
    if create.watch {
        return watch::watch(http, &id, global).await;
    }
    show_answer(&answer, &id, global)
}

/// The body of the request.
fn body(create: &Create) -> anyhow::Result<Value> {
    let mut body = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    set("plan", create.plan.as_deref().map(file).transpose()?);
    let mut inputs = match &create.inputs {
        Some(name) => object(file(name)?, "--inputs")?,
        None => Map::new(),
    };
    inputs.extend(pairs(&create.input)?);
    set(
        "inputs",
        (!inputs.is_empty()).then_some(Value::Object(inputs)),
    );
    set("name", create.name.clone().map(Value::String));
    let metadata = create.metadata.as_deref().map(json_argument).transpose()?;
    let metadata = metadata.map(|value| object(value, "--metadata"));
    set("metadata", metadata.transpose()?.map(Value::Object));
    Ok(Value::Object(body))
}

fn object(value: Value, what: &str) -> anyhow::Result<Map<String, Value>> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(Failure::new(exit::USAGE, format!("{what} must be a JSON object")).into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn of(arguments: &[&str]) -> anyhow::Result<Value> {
        let line = Line::parse_from([&["create"], arguments].concat());
        body(&line.create)
    }

    #[test]
    fn arguments_become_the_body_of_a_new_run() {
        let folder = tempfile::tempdir().unwrap();
        let plan = folder.path().join("plan.json");
        std::fs::write(&plan, r#"{"nodes": []}"#).unwrap();
        let inputs = folder.path().join("inputs.json");
        std::fs::write(&inputs, r#"{"n": 1, "kept": [2]}"#).unwrap();
        let arguments = [
            plan.to_str().unwrap(),
            "--inputs",
            inputs.to_str().unwrap(),
            "--input",
            "n=5",
            "--input",
            "text=a=b",
            "--name",
            "x",
            "--metadata",
            r#"{"for": "me"}"#,
        ];
        assert_eq!(
            of(&arguments).unwrap(),
            json!({"plan": {"nodes": []}, "inputs": {"n": 5, "kept": [2], "text": "a=b"}, "name": "x",
                "metadata": {"for": "me"}})
        );
        assert_eq!(of(&[]).unwrap(), json!({}));
    }

    #[test]
    fn what_cannot_be_sent_is_a_wrong_command_line() {
        for arguments in [
            ["--input", "no-value"],
            ["--metadata", "[1]"],
            ["--metadata", "{"],
        ] {
            let error = of(&arguments).unwrap_err();
            let failure = error.downcast_ref::<Failure>();
            assert_eq!(failure.map(Failure::code), Some(exit::USAGE), "{error}");
        }
        assert!(of(&["/nowhere/plan.json"]).is_err());
    }
}
