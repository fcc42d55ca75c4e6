//! `quintet keys`: the API keys of the interface. A new key is printed once; what is stored is its digest.

use clap::Subcommand;
use quintet_bus::now;
use quintet_contract::access::Permissions;
use serde_json::{Value, json};

use crate::cli::exit::Outcome;
use crate::cli::global::{Global, Output};
use crate::cli::stdout::print;
use crate::client::http::{Http, path_of};
use crate::client::output::table::{age, names, table, text};

#[derive(Subcommand)]
pub(crate) enum KeysCommand {
    /// Create a key and print it, this once
    Create {
        /// Whose key it is; what is done with it is recorded under this name
        name: String,
        /// What it allows: viewer, operator, or some of read, write, admin, inference and models:read, separated by commas
        #[arg(long, short, default_value = "viewer")]
        permissions: Permissions,
    },
    /// List all keys, without the keys themselves
    List,
    /// Revoke a key, with the tickets and sessions that were made of it
    Revoke {
        /// Its name
        name: String,
    },
}

pub(super) async fn run(command: KeysCommand, global: &Global) -> Outcome {
    let http = Http::of(global)?;
    match command {
        KeysCommand::Create { name, permissions } => {
            let new = json!({"name": name, "permissions": permissions});
            let created = http.post("/v1/keys", &new).await?;
            match global.output {
                Output::Json => print(format_args!("{created:#}")),
                // Alone, so that a script can take it; the explanation goes to standard error.
                Output::Table => {
                    print(text(&created["key"]));
                    eprintln!("keep it: it is not stored and cannot be shown again");
                }
            }
        }
        KeysCommand::List => {
            let keys = http.get("/v1/keys").await?;
            match global.output {
                Output::Json => print(format_args!("{keys:#}")),
                Output::Table => show(keys.as_array().map_or(&[], Vec::as_slice)),
            }
        }
        KeysCommand::Revoke { name } => {
            http.delete(&format!("/v1/keys/{}", path_of(&name))).await?;
            if global.output == Output::Table {
                print(format_args!("revoked {name}"));
            }
        }
    }
    Ok(())
}

fn show(keys: &[Value]) {
    if keys.is_empty() {
        return print(
            "no keys: this machine alone is served; create one with `quintet keys create NAME --permissions operator`",
        );
    }
    let mut rows = table(&["key", "permissions", "source", "age", "created by"]);
    for key in keys {
        rows.add_row([
            text(&key["name"]),
            names(key["permissions"].as_array().map_or(&[], Vec::as_slice)),
            text(&key["source"]),
            age(&key["createdAt"], now()),
            text(&key["createdBy"]),
        ]);
    }
    print(rows);
}
