//! `ozma runs`: looking at runs, going on with them, and cancelling them.

pub(crate) mod followup;
mod list;
pub(crate) mod show;
mod why;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use protocol::{
    api::{artifacts::ArtifactView, events::EventPage},
    ids::{ArtifactUid, RunId},
};

use crate::{
    client::Client,
    connection::Connection,
    failure::{Failure, code},
    follow::{self, Options},
    interrupts::Interrupts,
    outcome, render,
    surroundings::Surroundings,
    term::Term,
};

/// Events asked for at once.
const PAGE: usize = 1_000;

#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: RunsCommand,
}

#[derive(Debug, Subcommand)]
enum RunsCommand {
    /// The newest runs
    List(list::ListArgs),
    /// One run: state, phases, attempts, artifacts
    Show {
        run: RunId,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// The events of a run
    Logs {
        run: RunId,
        /// Go on until the run ends; then end with its outcome
        #[arg(long, short)]
        follow: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// What a run waits for
    Why {
        run: RunId,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Go on with a run's conversation
    Followup(followup::FollowupArgs),
    /// Stop a run
    Cancel { run: RunId },
    /// The content of an artifact, on standard output or into a file
    Artifact {
        /// Its id, from `ozma runs show RUN`
        uid: ArtifactUid,
        /// The file to write; it must not exist
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

pub(crate) async fn run(
    args: RunsArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    let client = Client::new(&args.connection.target(around)?)?;
    match args.command {
        RunsCommand::List(args) => list::list(&client, args, term).await,
        RunsCommand::Show { run, json } => show::show(&client, &run, json, term).await,
        RunsCommand::Logs { run, follow: true, json } => {
            let mut interrupts = Interrupts::new()?;
            let options = Options { json, cancels: false };
            let state =
                follow::follow(&client, run.as_str(), options, &mut interrupts, term).await?;
            match outcome::exit_code(state) {
                code::SUCCESS => Ok(()),
                exit_code => Err(Failure::quiet(exit_code)),
            }
        }
        RunsCommand::Logs { run, follow: false, json } => logs(&client, &run, json, term).await,
        RunsCommand::Why { run, json } => why::why(&client, &run, json, term).await,
        RunsCommand::Followup(args) => followup::follow_up(&client, args, term).await,
        RunsCommand::Cancel { run } => {
            follow::cancel(&client, run.as_str()).await.map_err(|failure| {
                if failure.status == Some(400) {
                    failure.hint(format!("`ozma runs show {run}` says how it went"))
                } else {
                    failure
                }
            })?;
            Ok(term.line(&format!("cancelling {run}"))?)
        }
        RunsCommand::Artifact { uid, output } => artifact(&client, &uid, output, term).await,
    }
}

async fn logs(client: &Client, run: &RunId, json: bool, term: &mut Term) -> Result<(), Failure> {
    let path = format!("/api/v1/agent/runs/{run}/events");
    let mut after = 0;
    loop {
        let query = [("after", after.to_string()), ("limit", PAGE.to_string())];
        let page: EventPage = client.get(&path, &query).await?;
        for view in &page.events {
            after = after.max(view.seq);
            if json {
                term.json(view)?;
            } else if let Some(event) = view.event() {
                for line in render::lines(term, &event) {
                    term.line(&line)?;
                }
            }
        }
        if !page.page_info.has_next_page || page.events.is_empty() {
            return Ok(());
        }
    }
}

async fn artifact(
    client: &Client,
    uid: &ArtifactUid,
    output: Option<PathBuf>,
    term: &mut Term,
) -> Result<(), Failure> {
    let path = format!("/api/v1/agent/artifacts/{uid}");
    let view: ArtifactView = client.get(&path, &[]).await.map_err(|failure| {
        if failure.status == Some(404) {
            failure.hint("`ozma runs show RUN` lists the artifacts of a run, each with its id")
        } else {
            failure
        }
    })?;
    let content = client.bytes(&format!("{path}/content")).await?;
    let Some(output) = output else { return Ok(term.bytes(&content)?) };
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).open(&output).map_err(
            |error| Failure::usage(format!("cannot write {}: {error}", output.display())),
        )?;
    std::io::Write::write_all(&mut file, &content)?;
    let name = crate::text::printable(&view.data.filename);
    let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
    let size = crate::text::size(bytes);
    Ok(term.line(&format!("{name} ({size}) written to {}", output.display()))?)
}
