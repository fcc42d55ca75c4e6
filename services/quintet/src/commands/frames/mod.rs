//! `quintet frames`: the active worker of the display, the rate, the settings, and the image.
//!
//! Commands that change something print the new state. [`stats`] prints statistics, [`preview`] draws the display in
//! the terminal.

mod image;
mod preview;
mod stats;

use clap::Subcommand;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::http::{Http, path_of};
use crate::client::input::json_argument;
use crate::client::input::pairs;
use crate::client::output::table::{names, table, text};

#[derive(Subcommand)]
pub(crate) enum FramesCommand {
    /// Show the active worker, or choose one
    Active {
        /// The worker whose frames are to be shown
        id: Option<String>,
        /// Deactivate the active worker
        #[arg(long, conflicts_with = "id")]
        none: bool,
    },
    /// Start a worker, whether it is active or not
    Start { id: String },
    /// Stop a worker
    Stop { id: String },
    /// Show or set the frame rate
    Fps {
        /// Frames per second
        #[arg(allow_negative_numbers = true)]
        fps: Option<f64>,
        /// Reset to the configured rate
        #[arg(long, conflicts_with = "fps")]
        reset: bool,
    },
    /// Show or change the settings of a worker
    Config {
        id: String,
        /// What is changed; a value that is JSON keeps its type
        #[arg(value_name = "KEY=VALUE")]
        pairs: Vec<String>,
        /// What is changed, as a JSON object, @FILE, or - for standard input
        #[arg(long, conflicts_with = "pairs")]
        json: Option<String>,
    },
    /// Show statistics
    Stats {
        /// Keep showing it until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Show what the display shows, live in the terminal
    Preview {
        /// Print one image and end
        #[arg(long)]
        once: bool,
    },
}

pub(super) async fn run(command: FramesCommand, global: &Global) -> Outcome {
    let http = Http::of(global)?;
    match command {
        FramesCommand::Active { id, none } => {
            if let Some(id) = &id {
                let request = http.request(Method::POST, "/active");
                order(&http, id, request.json(&json!({"id": id}))).await?;
            } else if none {
                let request = http.request(Method::POST, "/active");
                http.send(request.json(&json!({"id": null}))).await?;
            }
            show(&http, "/active", active, global).await
        }
        FramesCommand::Start { id } => {
            let request = http.request(Method::POST, &path(&id, "start"));
            order(&http, &id, request).await?;
            show(&http, "/active", active, global).await
        }
        FramesCommand::Stop { id } => {
            let request = http.request(Method::POST, &path(&id, "stop"));
            order(&http, &id, request).await?;
            show(&http, "/active", active, global).await
        }
        FramesCommand::Fps { fps, reset } => {
            if let Some(fps) = fps {
                let request = http.request(Method::POST, "/fps");
                http.send(request.json(&json!({"fps": fps}))).await?;
            } else if reset {
                http.send(http.request(Method::DELETE, "/fps")).await?;
            }
            show(&http, "/fps", rate, global).await
        }
        FramesCommand::Config { id, pairs, json } => {
            if let Some(changes) = changes(&pairs, json.as_deref())? {
                let request = http.request(Method::POST, &path(&id, "config"));
                http.send(request.json(&changes)).await?;
            }
            show(&http, &path(&id, "config"), settings, global).await
        }
        FramesCommand::Stats { watch: true } => stats::watch(&http, global).await,
        FramesCommand::Stats { watch: false } => stats::once(&http, global).await,
        FramesCommand::Preview { once } => preview::preview(&http, once).await,
    }
}

fn path(id: &str, what: &str) -> String {
    format!("/workers/{}/{what}", path_of(id))
}

fn changes(pairs: &[String], json: Option<&str>) -> anyhow::Result<Option<Value>> {
    match json {
        Some(json) => {
            let changes = json_argument(json)?;
            if changes.is_object() {
                return Ok(Some(changes));
            }
            let text = "settings are a JSON object, such as {\"text\": \"HELLO\"}";
            Err(Failure::new(exit::USAGE, text).into())
        }
        None if pairs.is_empty() => Ok(None),
        None => Ok(Some(Value::Object(self::pairs(pairs)?))),
    }
}

/// Sends a command to a worker. When there is no such worker the failure names the existing ones.
async fn order(http: &Http, id: &str, request: RequestBuilder) -> Outcome {
    let Err(error) = http.send(request).await else {
        return Ok(());
    };
    let refused = error.downcast_ref::<Failure>().map(Failure::code) == Some(exit::REFUSED);
    let known = match refused {
        true => http.get("/sources").await.unwrap_or_default()["known"].take(),
        false => Value::Null,
    };
    match known.as_array() {
        Some(known) if !known.iter().any(|one| one == id) => {
            Err(Failure::new(exit::NOT_FOUND, unknown(id, known)).into())
        }
        _ => Err(error),
    }
}

fn unknown(id: &str, known: &[Value]) -> String {
    match known {
        [] => format!(
            "there is no worker {id:?}, nor any other; start one, for example `quintet worker effects`"
        ),
        known => format!("there is no worker {id:?}; there are {}", names(known)),
    }
}

/// Gets something and prints it: whole for machines, in words for people.
async fn show(http: &Http, path: &str, words: fn(&Value) -> String, global: &Global) -> Outcome {
    let answer = http.get(path).await?;
    match global.output {
        Output::Json => print(format_args!("{answer:#}")),
        Output::Table => print(words(&answer)),
    }
    Ok(())
}

fn active(answer: &Value) -> String {
    let active = match answer["active"].as_str() {
        Some(id) => format!("{id} is shown"),
        None => "no worker is active; choose one with `quintet frames active ID`".to_owned(),
    };
    match answer["running"].as_array() {
        Some(running) if !running.is_empty() => format!("{active}\nrunning: {}", names(running)),
        _ => active,
    }
}

fn rate(answer: &Value) -> String {
    let whose = match answer["manual"] == true {
        true => "set by hand; `quintet frames fps --reset` goes back to the display's own",
        false => "the display's own",
    };
    format!("{} frames per second, {whose}", text(&answer["fps"]))
}

fn settings(answer: &Value) -> String {
    match answer.as_object() {
        Some(settings) if !settings.is_empty() => {
            let mut rows = table(&["setting", "value"]);
            for (name, value) in settings {
                // As they are written on the command line: a text that could be something else has its quotes.
                rows.add_row([name.clone(), value.to_string()]);
            }
            rows.to_string()
        }
        _ => "it is set to nothing of its own: every setting has its default".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_printed_in_words() {
        let shown = json!({"active": "text", "running": ["text", "dot"]});
        assert_eq!(active(&shown), "text is shown\nrunning: text, dot");
        let none = active(&json!({"active": null, "running": []}));
        assert!(none.starts_with("no worker is active;"), "{none}");
        let own = rate(&json!({"fps": 30, "manual": false}));
        assert_eq!(own, "30 frames per second, the display's own");
        assert!(
            rate(&json!({"fps": 7.5, "manual": true})).starts_with("7.5 frames per second, set")
        );
        let table = settings(&json!({"text": "5", "pps": 20}));
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let expected = [["SETTING", "VALUE"], ["pps", "20"], ["text", "\"5\""]];
        assert_eq!(rows, expected, "{table}");
    }

    #[test]
    fn an_unknown_worker_is_answered_with_those_that_there_are() {
        let known = [json!("dot"), json!("text")];
        assert_eq!(
            unknown("txt", &known),
            "there is no worker \"txt\"; there are dot, text"
        );
        assert!(unknown("txt", &[]).contains("`quintet worker effects`"));
    }

    #[test]
    fn changes_are_pairs_or_an_object() {
        let pairs = ["text=HI".to_owned(), "pps=20".to_owned()];
        let expected = json!({"text": "HI", "pps": 20});
        assert_eq!(changes(&pairs, None).unwrap(), Some(expected.clone()));
        let text = expected.to_string();
        assert_eq!(changes(&[], Some(&text)).unwrap(), Some(expected));
        assert_eq!(changes(&[], None).unwrap(), None);
        assert!(changes(&[], Some("[]")).is_err());
        assert!(changes(&["text".to_owned()], None).is_err());
    }
}
