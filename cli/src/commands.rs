//! One file a command; this one only hands over.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod env;
pub(crate) mod exec;
pub(crate) mod harness;
pub(crate) mod login;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod serve;
pub(crate) mod tenants;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod worker;

use clap::CommandFactory;

use crate::{
    args::{Cli, Command},
    failure::Failure,
    surroundings::Surroundings,
    term::Term,
};

pub(crate) async fn run(
    command: Command,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up::run(args, around, term).await,
        Command::Run(args) => run::run(args, around, term).await,
        Command::Exec(args) => exec::run(args, around, term).await,
        Command::Runs(args) => runs::run(args, around, term).await,
        Command::Env(args) => env::run(args, around, term).await,
        Command::Demo(args) => demo::run(args, around, term).await,
        Command::Doctor(args) => doctor::run(args, around, term).await,
        Command::Serve(args) => serve::run(args, around, term).await,
        Command::Worker(args) => worker::run(args, around, term).await,
        Command::Harness(args) => harness::run(args, around, term).await,
        Command::Token(args) => token::run(args, around, term).await,
        Command::Tenants(args) => tenants::run(args, around, term).await,
        Command::Login(args) => login::run(args, around, term).await,
        Command::Bench(args) => bench::run(args, around, term).await,
        Command::Completions(args) => completions::run(&args, Cli::command(), term),
    }
}
