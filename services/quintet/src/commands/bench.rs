//! `quintet bench`: runs the benchmark, a program of its own beside this one.

use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;

use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::global::{Global, Output};

/// The benchmark's file name.
const PROGRAM: &str = "quintet-bench";

#[derive(Args)]
pub(crate) struct BenchCommand {
    /// Arguments of quintet-bench; `quintet bench -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Becomes the benchmark.
pub(super) async fn run(command: BenchCommand, global: &Global) -> Outcome {
    let program = std::env::current_exe()?.with_file_name(PROGRAM);
    let mut bench = Command::new(&program);
    if global.output == Output::Json {
        bench.args(["--output", "json"]);
    }
    let error = bench.args(&command.arguments).exec();
    let text = format!(
        "cannot start {}: {error}; `make bench` builds it, as does `cargo build --release -p {PROGRAM}`",
        program.display()
    );
    Err(Failure::new(exit::FAILED, text).into())
}
