//! What the collecting child is told, and what it does about it.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use protocol::sidecar::TRANSCRIPT_FILE;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    files, git_patch,
    links::Links,
    send::{Name, Say, Sender},
    start::Start,
};
use crate::{clone::Cloned, context::Context};

/// Largest `HEAD` of a repository that is looked at, in bytes.
const MAX_HEAD_BYTES: u64 = 512;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    workspace: PathBuf,
    state: PathBuf,
    /// Whether the image has a git to make patches with.
    git: bool,
    repos: Vec<Start>,
    patterns: Vec<String>,
    links: Vec<String>,
    #[serde(default)]
    transcript: Option<PathBuf>,
}

impl Job {
    pub(super) fn new(context: &Context, cloned: &[Cloned], links: Links) -> Self {
        let repos = cloned.iter().map(|repo| Start {
            folder: repo.folder.clone(),
            path: repo.path.clone(),
            commit: repo.commit.clone(),
        });
        Self {
            workspace: context.places.workspace.clone(),
            state: context.places.state.clone(),
            git: context.vars.find_program("git").is_some(),
            repos: repos.collect(),
            patterns: context.spec.artifacts.clone(),
            links: links.into_vec(),
            transcript: context.places.transcript(),
        }
    }
}

/// Does the job. What cannot be kept is said and passed over.
pub(crate) fn run(job: &Job, say: &mut Say<'_>) -> io::Result<()> {
    let mut sender = Sender::new(say);
    // New, because the agent may have left anything in its own folder, a pipe that nobody reads say.
    let scratch = job.state.join(format!("collect-{}", Uuid::now_v7()));
    fs::DirBuilder::new().mode(0o700).create(&scratch)?;
    // First what cannot take long.
    for url in &job.links {
        sender.pull_request(url.clone(), branch(job, url))?;
    }
    for repo in &job.repos {
        let filename = match job.repos.len() {
            1 => "changes.patch".to_owned(),
            _ => format!("{}.patch", repo.folder),
        };
        let patch = scratch.join("patch");
        let made = make_patch(job, repo, &scratch, &patch);
        if let Ok(Some(why)) = &made {
            sender.notice(format!("not everything is in the patch of {}: {why}", repo.folder))?;
        }
        match made {
            Ok(_) if fs::metadata(&patch)?.len() == 0 => {}
            Ok(_) => {
                let name = Name {
                    filename: &filename,
                    filepath: &filename,
                    mime_type: "text/x-diff",
                    description: "Everything that changed in the repository since the run began",
                };
                sender.file(&patch, &name)?;
            }
            Err(why) => sender.notice(format!("no patch of {}: {why}", repo.folder))?,
        }
        let _ = fs::remove_file(&patch);
    }
    if !job.patterns.is_empty() {
        files::keep(&job.workspace, &job.patterns, &mut sender)?;
    }
    // Last: what was asked for has the room first.
    if let Some(path) = &job.transcript {
        let name = Name {
            filename: TRANSCRIPT_FILE,
            filepath: TRANSCRIPT_FILE,
            mime_type: "application/x-ndjson",
            description: "What the provider printed",
        };
        sender.file(path, &name)?;
    }
    let _ = fs::remove_dir_all(scratch);
    Ok(())
}

/// Makes the patch; why not everything is in it, if so.
fn make_patch(
    job: &Job,
    repo: &Start,
    scratch: &Path,
    patch: &Path,
) -> Result<Option<String>, String> {
    if job.git {
        return git_patch::make(repo, scratch, patch);
    }
    #[cfg(feature = "gix")]
    return super::gitless_patch::make(repo, patch).map(|()| None);
    #[cfg(not(feature = "gix"))]
    Err("the image has no git, and this sidecar has none built in".to_owned())
}

/// The branch the pull request's repository stands on now, if it is one of ours.
fn branch(job: &Job, url: &str) -> String {
    let named = job.repos.iter().find(|repo| url.contains(&format!("/{}/", repo.folder)));
    let only = if let [only] = &job.repos[..] { Some(only) } else { None };
    let head = named.or(only).and_then(|repo| {
        let head = repo.path.join(".git/HEAD");
        let about = fs::symlink_metadata(&head).ok()?;
        // Anything else may have no end.
        if !about.is_file() || about.len() > MAX_HEAD_BYTES {
            return None;
        }
        let head = fs::read_to_string(head).ok()?;
        Some(head.trim().strip_prefix("ref: refs/heads/")?.to_owned())
    });
    head.filter(|branch| branch.len() <= 300).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use protocol::event::Event;

    use super::*;

    #[test]
    fn what_was_asked_for_comes_before_what_the_provider_printed() {
        let folder = tempfile::tempdir().unwrap();
        let (workspace, state) = (folder.path().join("workspace"), folder.path().join("state"));
        let transcript = state.join(TRANSCRIPT_FILE);
        for folder in [&workspace, &state] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(workspace.join("a.txt"), "asked for").unwrap();
        fs::write(&transcript, "{}").unwrap();
        let job = Job {
            workspace,
            state,
            git: false,
            repos: Vec::new(),
            patterns: vec!["*.txt".to_owned()],
            links: Vec::new(),
            transcript: Some(transcript),
        };
        let mut names = Vec::new();
        run(&job, &mut |event| {
            if let Event::Artifact(artifact) = event {
                names.extend(artifact.filename);
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(names, ["a.txt", TRANSCRIPT_FILE]);
    }
}
