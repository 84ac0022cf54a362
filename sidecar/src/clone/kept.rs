//! Repositories that stand in the workspace since an earlier run of the conversation: noted beside the session's files,
//! with the commit that every later patch is made against. The agent owns that folder, so what is read there is its
//! word; it could lie about nothing but its own patch.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::source::Source;
use crate::context::Context;

/// The note's name in the session's folder.
const NOTE: &str = "repositories.json";

/// Largest note, in bytes; a larger one is none of ours.
const MAX_NOTE_BYTES: u64 = 1 << 20;

/// What is known of earlier runs; nothing where nothing is kept.
pub(super) struct Kept {
    /// Where it is noted.
    note: Option<PathBuf>,
    /// Goes on with what an earlier run left.
    resumes: bool,
    /// By folder.
    repositories: BTreeMap<String, Repository>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Repository {
    url: String,
    /// What it stood at when it was cloned.
    pub(super) commit: Option<String>,
}

impl Kept {
    pub(super) fn of(context: &Context) -> Self {
        let session = context.spec.session.as_ref();
        let note = session.map(|_| context.places.session(true).join(NOTE));
        let resumes = session.is_some_and(|session| session.resume);
        let known = note.as_deref().filter(|_| resumes).and_then(|note| read(note).ok());
        Self { note, resumes, repositories: known.unwrap_or_default() }
    }

    /// The repository that stands at `path` already, if it is the one that is asked for.
    pub(super) fn stands(&self, source: &Source, path: &Path) -> Option<&Repository> {
        let known = self.repositories.get(&source.folder)?;
        // A link would lead git, which may be root's, to somewhere else.
        let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|about| about.is_dir());
        let stands = known.url == source.url && is_folder(path) && is_folder(&path.join(".git"));
        stands.then_some(known)
    }

    /// Moves aside what stands in a repository's place and is not that repository: the half of a clone, or the agent's
    /// own. Where it went, if there was any.
    pub(super) fn make_way(&self, path: &Path, execution: &str) -> io::Result<Option<PathBuf>> {
        if !self.resumes || fs::symlink_metadata(path).is_err() {
            return Ok(None);
        }
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".before-{execution}"));
        let aside = PathBuf::from(aside);
        fs::rename(path, &aside)?;
        Ok(Some(aside))
    }

    /// Notes a repository that was cloned just now.
    pub(super) fn note(&mut self, source: &Source, commit: Option<String>) -> io::Result<()> {
        let Some(note) = &self.note else { return Ok(()) };
        let repository = Repository { url: source.url.clone(), commit };
        self.repositories.insert(source.folder.clone(), repository);
        let text = serde_json::to_vec(&self.repositories)?;
        // A new file: the one that is there may be a link of the agent's.
        match fs::remove_file(note) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(note)?;
        file.write_all(&text)
    }
}

fn read(note: &Path) -> io::Result<BTreeMap<String, Repository>> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(note)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("no regular file"));
    }
    let mut text = Vec::new();
    file.take(MAX_NOTE_BYTES).read_to_end(&mut text)?;
    let mut known: BTreeMap<String, Repository> = serde_json::from_slice(&text)?;
    let is_commit = |text: &String| {
        matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    // What is no commit might be an option to git.
    known.retain(|_, repository| repository.commit.as_ref().is_none_or(is_commit));
    Ok(known)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use protocol::spec::Repo;

    use super::*;

    #[test]
    fn what_stands_is_known_again_and_what_does_not_makes_way() {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join(NOTE);
        let source = Source::of(&Repo::new("/srv/shop"), &BTreeMap::new()).unwrap();
        let path = folder.path().join("shop");
        let kept = |repositories| Kept { note: Some(note.clone()), resumes: true, repositories };
        let commit = "a".repeat(40);
        kept(BTreeMap::new()).note(&source, Some(commit.clone())).unwrap();
        let kept_again = || kept(read(&note).unwrap());
        assert_eq!(kept_again().stands(&source, &path), None);
        fs::create_dir_all(path.join(".git")).unwrap();
        assert_eq!(kept_again().stands(&source, &path).unwrap().commit, Some(commit));
        let other = Source::of(&Repo::new("/elsewhere/shop"), &BTreeMap::new()).unwrap();
        assert_eq!(kept_again().stands(&other, &path), None);
        let aside = kept_again().make_way(&path, "e").unwrap().unwrap();
        assert!(aside.ends_with("shop.before-e") && aside.join(".git").is_dir() && !path.exists());
        std::os::unix::fs::symlink(&aside, &path).unwrap();
        assert_eq!(kept_again().stands(&source, &path), None);
    }

    #[test]
    fn a_note_of_the_agents_is_not_believed_further_than_a_commit() {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join(NOTE);
        fs::write(&note, r#"{"shop": {"url": "u", "commit": "--output=/etc/passwd"}}"#).unwrap();
        assert_eq!(read(&note).unwrap(), BTreeMap::new());
        fs::remove_file(&note).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &note).unwrap();
        assert!(read(&note).is_err());
    }
}
