//! The command line: one enum of commands, each with its options in its own file.

use clap::{Parser, Subcommand};

use crate::commands::{
    bench::BenchArgs, completions::CompletionsArgs, demo::DemoArgs, doctor::DoctorArgs,
    env::EnvArgs, exec::ExecArgs, harness::HarnessArgs, login::LoginArgs, run::RunArgs,
    runs::RunsArgs, serve::ServeArgs, tenants::TenantsArgs, token::TokenArgs, up::UpArgs,
    worker::WorkerArgs,
};

const ABOUT: &str =
    "Ozma runs coding agents in containers, for many tenants, on your own machines.";

const AFTER_HELP: &str = "\
A client command finds its plane by --url and --token, then OZMA_URL and OZMA_TOKEN, then the context
file that `ozma up` and `ozma login` write (~/.config/ozma/context.toml).

Exit codes: 0 done, the run succeeded; 1 the run failed, a check failed; 2 wrong usage;
3 Ozma, its plane or the machine failed; 130 the run was cancelled, or Ctrl-C.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "ozma", version, about = ABOUT, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a plane and a worker on this machine, in one process
    Up(UpArgs),
    /// Run a prompt and watch it
    Run(RunArgs),
    /// Run a prompt here and now, without a plane and without a container
    Exec(ExecArgs),
    /// Look at runs, and cancel them
    Runs(RunsArgs),
    /// Environments: the image, repositories and values a run starts from
    Env(EnvArgs),
    /// See a whole run, end to end, on a repository made for it
    Demo(DemoArgs),
    /// Check what Ozma needs, each with its fix
    Doctor(DoctorArgs),
    /// Start a control plane
    Serve(ServeArgs),
    /// Start a worker, which runs containers for a plane; drain one
    Worker(WorkerArgs),
    /// Images of the providers' command lines, for workers
    Harness(HarnessArgs),
    /// Tokens for tenants and workers (needs the admin key)
    Token(TokenArgs),
    /// What each tenant has, and may have (needs the admin key)
    Tenants(TenantsArgs),
    /// Remember a plane and a token for it
    Login(LoginArgs),
    /// Measure this machine: dispatch, throughput, loss, fairness, containers, memory
    Bench(BenchArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_secret_shows_in_help() {
        for command in Cli::command().get_subcommands() {
            for arg in command.get_arguments().filter(|arg| arg.get_env().is_some()) {
                let name = arg.get_id().as_str();
                let secret =
                    ["token", "key", "database_url"].iter().any(|part| name.contains(part));
                assert!(!secret || arg.is_hide_env_values_set(), "{}: {name}", command.get_name());
            }
        }
    }
}
