//! The binary `ozma`: hands its arguments and surroundings to the library and returns its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os(), &cli::Surroundings::of_this_process())
}
