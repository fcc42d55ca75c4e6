//! `quintet schemas`: the generated documents, printed by name or written into the repository.

use std::path::PathBuf;

use clap::Args;
use quintet_contract::schema::{File, files, pretty};

use crate::exit::{self, Failure, Outcome};

#[derive(Args)]
pub(crate) struct SchemasCommand {
    /// Write them
    #[arg(long)]
    write: bool,
    /// The root of the repository
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

pub(crate) fn run(command: &SchemasCommand) -> Outcome {
    let mut all = files();
    all.push(File {
        path: "schemas/openapi.json".to_owned(),
        content: pretty(&quintet_edge::openapi()),
    });
    for file in all {
        let path = command.root.join(&file.path);
        if !command.write {
            println!("{}", file.path);
            continue;
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if std::fs::read_to_string(&path).ok().as_deref() != Some(&file.content) {
            std::fs::write(&path, &file.content).map_err(|error| {
                Failure::new(
                    exit::FAILED,
                    format!("cannot write {}: {error}", path.display()),
                )
            })?;
            println!("wrote {}", file.path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_interface_is_the_one_that_is_served() {
        let committed = include_str!("../../../schemas/openapi.json");
        assert_eq!(
            committed,
            pretty(&quintet_edge::openapi()),
            "out of date, run `make schemas` and review the change"
        );
    }
}
