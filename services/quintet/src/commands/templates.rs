//! `quintet templates`.

use anyhow::Context;
use clap::Subcommand;
use serde_json::Value;

use crate::cli::exit::Outcome;
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::http::{Http, path_of};
use crate::client::input::json_argument;
use crate::client::output::table::{table, text};

#[derive(Subcommand)]
pub(crate) enum TemplatesCommand {
    /// List all templates
    List,
    /// Show one template
    Get { id: String },
    /// Store a template: JSON, @FILE, or - for standard input
    Put { id: String, template: String },
    /// Delete a template
    Delete { id: String },
}

pub(super) async fn run(command: TemplatesCommand, global: &Global) -> Outcome {
    let http = Http::of(global)?;
    let path = |id: &str| format!("/v1/templates/{}", path_of(id));
    let shown: Value = match command {
        TemplatesCommand::List => {
            let list = http.get("/v1/templates").await?;
            if global.output == Output::Table {
                show(list.as_array().context("the answer is no list")?);
                return Ok(());
            }
            list
        }
        TemplatesCommand::Get { id } => http.get(&path(&id)).await?,
        TemplatesCommand::Put { id, template } => {
            http.put(&path(&id), &json_argument(&template)?).await?
        }
        TemplatesCommand::Delete { id } => {
            http.delete(&path(&id)).await?;
            return Ok(());
        }
    };
    print(format_args!("{shown:#}"));
    Ok(())
}

fn show(templates: &[Value]) {
    if templates.is_empty() {
        return print("no templates; store one with `quintet templates put`");
    }
    let mut rows = table(&["template", "executor", "name", "updated"]);
    for template in templates {
        rows.add_row(["id", "executor", "name", "updatedAt"].map(|field| text(&template[field])));
    }
    print(rows);
}
