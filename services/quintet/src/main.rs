//! The program.

use std::process::ExitCode;

/// Messages are small and short-lived; the system's allocator took a fifth of the processor under load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    quintet::main()
}
