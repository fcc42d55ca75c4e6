//! The reaper as a program of its own, for run workers that are not part of `quintet`, and for tests.

fn main() {
    quintet_worker::process::reaper::main();
}
