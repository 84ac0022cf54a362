//! Repositories into the workspace: with the image's own git if it has one, else with the one built in.
//! A token is in no argument, no remote's address and no configuration file.

pub(crate) mod askpass;
mod git;
#[cfg(feature = "gix")]
pub(crate) mod gitless;
#[cfg(feature = "gix")]
mod gitless_local;
mod source;

use std::{collections::HashSet, path::PathBuf};

use harness::failure::Failure;
use protocol::{event::Event, failure::FailureReason};
use serde::{Deserialize, Serialize};

use crate::{execution::Execution, exit::stopped, process::Broken};
pub(crate) use source::Source;

/// A repository that stands in the workspace.
#[derive(Debug, Clone)]
pub(crate) struct Cloned {
    pub(crate) folder: String,
    pub(crate) path: PathBuf,
    /// What it stood at; `None` when it had no commit.
    pub(crate) commit: Option<String>,
}

/// What a child that clones without git is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) source: Source,
    pub(crate) path: PathBuf,
    /// A file of further certificate authorities.
    pub(crate) extra_ca: Option<PathBuf>,
}

/// Clones every repository of the run, in order, and pushes each to `cloned` when it stands.
pub(crate) async fn all(execution: &Execution, cloned: &mut Vec<Cloned>) -> Result<(), Failure> {
    let mut folders = HashSet::new();
    let mut sources = Vec::new();
    // All are looked at before the first is cloned: a typo in the last should not cost minutes.
    for repo in &execution.spec.repos {
        let source =
            Source::of(repo, &execution.spec.env).map_err(|why| failed(&repo.url, &why))?;
        if !folders.insert(source.folder.clone()) {
            let why = format!("another repository is already cloned into {:?}", source.folder);
            return Err(failed(&source.url, &why));
        }
        sources.push(source);
    }
    let git = execution.vars.find_program("git");
    for source in sources {
        let path = execution.places.workspace.join(&source.folder);
        let (commit, by) = match &git {
            Some(_) => git::clone(execution, &source, &path).await?,
            None => git::without(execution, &source, &path).await?,
        };
        execution.recorder.note(&Event::Cloned {
            url: source.url.clone(),
            path: path.display().to_string(),
            commit: commit.clone().unwrap_or_default(),
            by,
        });
        cloned.push(Cloned { folder: source.folder, path, commit });
    }
    Ok(())
}

fn failed(url: &str, why: &str) -> Failure {
    let url = source::without_credentials(url);
    Failure::new(FailureReason::Clone, format!("could not clone {url}: {why}"))
}

fn broken(url: &str, broken: Broken) -> Failure {
    match broken {
        Broken::Stopped(order) => stopped(&order),
        Broken::NotStarted(error) => failed(url, &error.to_string()),
    }
}
