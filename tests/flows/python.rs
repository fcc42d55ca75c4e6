//! Programs of the tests' own Python environment.

use std::process::Command;

use quintet_tests::repository;

/// A program of the environment, or a message with the remedy.
pub(crate) fn tool(name: &str) -> Command {
    let path = repository().join(".tools/venv/bin").join(name);
    assert!(
        path.exists(),
        "{} is missing; `make setup` makes it",
        path.display()
    );
    Command::new(path)
}
