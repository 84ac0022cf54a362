//! The binary `ozma-sidecar`: everything is in the library beside it.

use std::process::ExitCode;

// musl's own allocator is many times slower, and every event passes through it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sidecar::main(std::env::args_os().skip(1), std::env::vars_os())
}
