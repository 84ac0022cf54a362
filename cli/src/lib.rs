//! The binary `ozma`: starts the plane and the worker, and talks to a plane. It composes and holds no logic of
//! its own: rules are in `protocol`, runs in `control-plane`, containers in `worker`.

mod args;
mod attend;
mod client;
mod commands;
mod connection;
mod context;
mod environments;
mod evidence;
mod failure;
mod files;
mod follow;
mod interrupts;
mod mcp;
mod outcome;
mod policies;
mod prompt;
mod render;
mod stack;
mod surroundings;
mod table;
mod term;
mod text;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

pub use surroundings::Surroundings;

/// Runs one command line.
pub fn main(args: impl IntoIterator<Item = OsString>, around: &Surroundings) -> ExitCode {
    let cli = match args::Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe under `--help` is the reader's choice.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::code::USAGE));
        }
    };
    let mut term = term::Term::new(around);
    match run(cli, around, &mut term) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            term.end_status();
            let text = failure.to_string();
            if !text.is_empty() {
                term.note(text.trim_end());
            }
            ExitCode::from(failure.exit_code)
        }
    }
}

fn run(
    cli: args::Cli,
    around: &Surroundings,
    term: &mut term::Term,
) -> Result<(), failure::Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failure::Failure::platform(format!("cannot start: {error}")))?;
    runtime.block_on(commands::run(cli.command, around, term))
}
