//! `ozma runs followup`: a conversation goes on, on the worker that keeps what its last run left.

use std::path::PathBuf;

use clap::Args;
use protocol::{
    api::runs::{Followup, FollowupCreated},
    ids::RunId,
};

use crate::{
    attend::{Attend, Made},
    client::Client,
    commands::run::{hinted, once},
    failure::Failure,
    interrupts::Interrupts,
    prompt::prompt,
    term::Term,
};

const AFTER_HELP: &str = "\
The message comes from --file or the argument, else standard input. It is run as `ozma run` does, in the
workspace as the last run left it, by the same provider, which remembers the conversation. The first
Ctrl-C cancels the new run, the second leaves it. Ends as `ozma run`.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct FollowupArgs {
    /// Any run of the conversation
    run: RunId,
    /// What the agent is to do next; `-` reads standard input
    message: Option<String>,
    /// Read the message from a file; `-` is standard input
    #[arg(long, short, value_name = "FILE", conflicts_with = "message")]
    file: Option<PathBuf>,
    #[command(flatten)]
    attend: Attend,
}

pub(super) async fn follow_up(
    client: &Client,
    args: FollowupArgs,
    term: &mut Term,
) -> Result<(), Failure> {
    let message = prompt(args.file.as_deref(), args.message.as_deref())?;
    let mut interrupts = Interrupts::new()?;
    let body = Followup { message: Some(message), ..Followup::default() };
    let path = format!("/api/v1/agent/runs/{}/followups", args.run);
    let created: FollowupCreated = once(client, &path, &body).await.map_err(hinted)?;
    let made = Made { run_id: &created.run_id, at_capacity: created.at_capacity };
    args.attend.watch(client, made, &created, &mut interrupts, term).await
}
