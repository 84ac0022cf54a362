//! Where things are: the workspace, the journal, and the agent's own folders.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
};

use protocol::sidecar::{AGENT_UID, JOURNAL_PATH, SESSION_MOUNT, TRANSCRIPT_FILE, WORKSPACE};

use crate::args::Options;

#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) workspace: PathBuf,
    pub(crate) journal: PathBuf,
    /// The agent's home, writable.
    pub(crate) home: PathBuf,
    /// For the prompt file and what is being collected, the agent's.
    pub(crate) state: PathBuf,
    /// Where the worker puts what is kept of the conversation, if it keeps any; the agent's.
    kept: PathBuf,
    /// Where temporary files go, if not to `/tmp`.
    pub(crate) temporary: Option<PathBuf>,
}

impl Places {
    /// Makes the folders below the root.
    pub(crate) fn prepare(options: &Options) -> io::Result<Self> {
        let (root, unisolated) = (options.root.as_path(), options.unisolated);
        let below = |path: &str| root.join(path.trim_start_matches('/'));
        let journal = below(JOURNAL_PATH);
        let own = journal.parent().unwrap_or(root).to_owned();
        let workspace = options.workspace.clone().unwrap_or_else(|| below(WORKSPACE));
        let kept = options.session.clone().unwrap_or_else(|| below(SESSION_MOUNT));
        let (home, state) = (own.join("home"), own.join("state"));
        // The agent passes through, but cannot look around.
        make(&own, 0o711)?;
        make(&workspace, 0o755)?;
        make(&home, 0o700)?;
        make(&state, 0o700)?;
        let temporary = if unisolated { None } else { temporary(&own)? };
        Ok(Self { workspace, journal, home, state, kept, temporary })
    }

    /// Where a provider's session files are: for the conversation's next run, or for this one alone.
    pub(crate) fn session(&self, is_kept: bool) -> PathBuf {
        if is_kept { self.kept.clone() } else { self.state.join("session") }
    }

    /// What the provider printed, if the harness wrote it down.
    pub(crate) fn transcript(&self) -> Option<PathBuf> {
        let path = self.state.join(TRANSCRIPT_FILE);
        fs::symlink_metadata(&path).is_ok_and(|about| about.is_file()).then_some(path)
    }

    /// Makes the folder of the provider's session files.
    pub(crate) fn make_session(&self, is_kept: bool) -> io::Result<()> {
        make(&self.session(is_kept), 0o700)
    }

    /// Whether the agent's user can reach the workspace at all: in a folder only root may pass, dropping
    /// privileges would only break the run.
    pub(crate) fn reachable(&self) -> bool {
        self.workspace
            .ancestors()
            .skip(1)
            .chain(self.home.ancestors().skip(1))
            .all(|folder| fs::metadata(folder).is_ok_and(|about| about.mode() & 0o001 != 0))
    }

    /// Gives the agent's folders to the agent.
    pub(crate) fn hand_over(&self) -> io::Result<()> {
        // What a kept folder holds of an earlier run's set-up is root's.
        for folder in [&self.workspace, &self.home, &self.state, &self.kept] {
            own_tree(folder)?;
        }
        if let Some(temporary) = &self.temporary {
            own_tree(temporary)?;
        }
        Ok(())
    }
}

/// Makes a folder of ours, or takes one that is there. A link of the image's could lead the journal into the agent's
/// hands.
fn make(folder: &Path, mode: u32) -> io::Result<()> {
    let told = |kind: io::ErrorKind, why: &dyn std::fmt::Display| {
        io::Error::new(kind, format!("{} cannot be had: {why}", folder.display()))
    };
    if fs::symlink_metadata(folder).is_ok_and(|about| !about.is_dir()) {
        let why = "in the image it is a file or a link";
        return Err(told(io::ErrorKind::NotADirectory, &why));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(mode)))
        .map_err(|error| told(error.kind(), &error))
}

/// `/tmp` is made where an image has none; where it cannot be, a folder of our own stands in for it.
fn temporary(own: &Path) -> io::Result<Option<PathBuf>> {
    let usual = Path::new("/tmp");
    if usual.is_dir() || make(usual, 0o1777).is_ok() {
        return Ok(None);
    }
    let stand_in = own.join("tmp");
    make(&stand_in, 0o700)?;
    Ok(Some(stand_in))
}

/// Makes the agent's user the owner of everything below `path`. Links are changed themselves, never followed.
fn own_tree(path: &Path) -> io::Result<()> {
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        // What vanishes meanwhile, a background process's temporary file say, needs no owner.
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        let mut own = || -> io::Result<()> {
            if about.uid() != AGENT_UID || about.gid() != AGENT_UID {
                lchown(&path, Some(AGENT_UID), Some(AGENT_UID))?;
            }
            if about.is_dir() {
                for entry in fs::read_dir(&path)? {
                    open.push(entry?.path());
                }
            }
            Ok(())
        };
        match own() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}
