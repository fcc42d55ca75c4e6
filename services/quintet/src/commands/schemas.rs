//! `quintet schemas`: the generated documents, printed by name or written into the repository.

use std::path::PathBuf;

use clap::Args;
use quintet_contract::schema::{File, files, pretty};

use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::stdout::emit;

#[derive(Args)]
pub(crate) struct SchemasCommand {
    /// Write them
    #[arg(long)]
    write: bool,
    /// Fail when one of them is not as it would be written
    #[arg(long, conflicts_with = "write")]
    check: bool,
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
    let current = |file: &File| {
        let committed = std::fs::read_to_string(command.root.join(&file.path));
        committed.ok().as_deref() == Some(&file.content)
    };
    if command.check {
        all.retain(|file| !current(file));
    }
    for file in &all {
        let path = command.root.join(&file.path);
        if !command.write {
            emit(&file.path);
            continue;
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if !current(file) {
            std::fs::write(&path, &file.content).map_err(|error| {
                Failure::new(
                    exit::FAILED,
                    format!("cannot write {}: {error}", path.display()),
                )
            })?;
            emit(format_args!("wrote {}", file.path));
        }
    }
    if command.check && !all.is_empty() {
        let text = format!("{} files are out of date; run `make schemas`", all.len());
        return Err(Failure::new(exit::FAILED, text).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_interface_is_the_one_that_is_served() {
        let committed = include_str!("../../../../schemas/openapi.json");
        assert_eq!(
            committed,
            pretty(&quintet_edge::openapi()),
            "out of date, run `make schemas` and review the change"
        );
    }
}
