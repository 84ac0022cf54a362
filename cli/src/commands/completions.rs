//! `ozma completions`: a script for the shell, on standard output.

use clap::{Args, Command, ValueEnum};
use clap_complete::{Shell as Known, generate};

use crate::{failure::Failure, term::Term};

const AFTER_HELP: &str = "\
Load it with, for example, `source <(ozma completions bash)`.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct CompletionsArgs {
    pub shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(
    args: &CompletionsArgs,
    mut command_line: Command,
    term: &mut Term,
) -> Result<(), Failure> {
    let shell = match args.shell {
        Shell::Bash => Known::Bash,
        Shell::Zsh => Known::Zsh,
        Shell::Fish => Known::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut command_line, "ozma", &mut script);
    Ok(term.bytes(&script)?)
}
