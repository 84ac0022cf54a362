//! How a prompt is run by a provider: one adapter each, and the built-in agent.
//! It runs in the unprivileged child inside a task container; it knows no containers, no database, no routes.

mod adapter;
pub mod agent;
mod cli;
mod command;
pub mod credentials;
mod dialect;
mod endpoint;
pub mod failure;
mod feed;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod lines;
pub mod output;
pub mod preview;
pub mod process;
#[doc(hidden)]
pub mod replay;
mod secrets;
pub mod tls;

use protocol::{
    event::{Event, Exit},
    failure::FailureReason,
    sidecar::Launch,
    spec::ProviderKind,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    adapter::Adapter, agent::Agent, cli::Cli, command::CommandLine, failure::Failure, feed::Feed,
};

/// The providers there are. A closed set: an enum says so.
enum Provider {
    Agent(Box<Agent>),
    Cli(Box<Cli>),
    Command(Box<CommandLine>),
}

impl Provider {
    fn of(launch: Launch) -> Result<Self, Failure> {
        match launch.harness.provider {
            ProviderKind::Agent => Ok(Self::Agent(Box::new(Agent::new(launch)?))),
            ProviderKind::Command => Ok(Self::Command(Box::new(CommandLine::new(launch)?))),
            ProviderKind::Claude
            | ProviderKind::Codex
            | ProviderKind::Opencode
            | ProviderKind::Gemini => Ok(Self::Cli(Box::new(Cli::new(launch)?))),
        }
    }
}

/// Runs a prompt. Events go to `events` in order; when the receiver is slow, the provider waits.
/// The answer is the provider's own word, never an exit code alone.
pub async fn run(launch: Launch, events: mpsc::Sender<Event>, cancel: CancellationToken) -> Exit {
    let feed = Feed::new(events);
    let launch = endpoint::redirected(launch);
    let whose = endpoint::whose(&launch);
    let ended = match Provider::of(launch) {
        Ok(Provider::Agent(agent)) => Box::pin(agent.run(feed, cancel.clone())).await,
        Ok(Provider::Cli(cli)) => Box::pin(cli.run(feed, cancel.clone())).await,
        Ok(Provider::Command(command)) => Box::pin(command.run(feed, cancel.clone())).await,
        Err(failure) => Err(failure),
    };
    let exit = match ended {
        // Whatever an interrupted provider says of itself, it was interrupted.
        Ok(exit) if cancel.is_cancelled() && !exit.success => Failure::cancelled().exit(),
        Ok(exit) => exit,
        Err(_) if cancel.is_cancelled() => Failure::cancelled().exit(),
        Err(failure) => failure.exit(),
    };
    match (exit.reason, whose) {
        // Most command lines do not say whom they could not reach.
        (Some(FailureReason::NetworkError), Some(whose)) => {
            Exit { message: format!("{}; {whose}", exit.message), ..exit }
        }
        _ => exit,
    }
}
