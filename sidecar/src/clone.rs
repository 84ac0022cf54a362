//! Repositories into the workspace: with the image's own git if it has one, else with the one built in.
//! A token is in no argument, no remote's address and no configuration file.

pub(crate) mod askpass;
mod failed;
mod git;
#[cfg(feature = "gix")]
pub(crate) mod gitless;
#[cfg(feature = "gix")]
mod gitless_local;
#[cfg(feature = "gix")]
mod gitless_tree;
mod job;
mod kept;
mod source;

use std::{collections::HashSet, path::PathBuf};

use harness::failure::Failure;
use protocol::event::Event;

use self::{failed::failed, kept::Kept, source::Source};
use crate::context::Context;

/// A repository that stands in the workspace.
#[derive(Debug, Clone)]
pub(crate) struct Cloned {
    pub(crate) folder: String,
    pub(crate) path: PathBuf,
    /// What it stood at; `None` when it had no commit.
    pub(crate) commit: Option<String>,
}

/// Clones every repository of the run, in order, and pushes each to `cloned` when it stands.
pub(crate) async fn all(context: &Context, cloned: &mut Vec<Cloned>) -> Result<(), Failure> {
    let mut folders = HashSet::new();
    let mut sources = Vec::new();
    // All are looked at before the first is cloned: a typo in the last should not cost minutes.
    for repo in &context.spec.repos {
        let source = Source::of(repo, &context.spec.env).map_err(|why| failed(&repo.url, &why))?;
        if !folders.insert(source.folder.clone()) {
            let why = format!("another repository is already cloned into {:?}", source.folder);
            return Err(failed(&source.url, &why));
        }
        sources.push(source);
    }
    let git = context.vars.find_program("git");
    let mut kept = Kept::of(context);
    for source in sources {
        let path = context.places.workspace.join(&source.folder);
        if let Some(commit) = kept.stands(&source, &path).map(|known| known.commit.clone()) {
            let text = format!("{} stands already: the run goes on with it as it is", source.url);
            context.recorder.note(&Event::Notice { text });
            cloned.push(Cloned { folder: source.folder, path, commit });
            continue;
        }
        let told = |error: std::io::Error| failed(&source.url, &error.to_string());
        let execution = context.spec.execution_id.as_str();
        if let Some(aside) = kept.make_way(&path, execution).map_err(told)? {
            let (path, aside) = (path.display(), aside.display());
            let text =
                format!("what stood at {path} is at {aside} now, in the way of a repository");
            context.recorder.note(&Event::Notice { text });
        }
        let (commit, by) = match &git {
            Some(_) => git::clone(context, &source, &path).await?,
            None => git::without(context, &source, &path).await?,
        };
        context.recorder.note(&Event::Cloned {
            url: source.url.clone(),
            path: path.display().to_string(),
            commit: commit.clone().unwrap_or_default(),
            by,
        });
        kept.note(&source, commit.clone()).map_err(told)?;
        cloned.push(Cloned { folder: source.folder, path, commit });
    }
    Ok(())
}
