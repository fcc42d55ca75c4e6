//! The reaper as a program of its own, for agents that are not part of `quintet`, and for tests.

fn main() {
    quintet_worker::process::reaper::main();
}
