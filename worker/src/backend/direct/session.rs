//! What a conversation keeps between its runs, under the direct backend: folders below the state folder, at the same
//! place in each of its runs, since providers know their sessions by the folder they worked in.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use protocol::{
    failure::FailureReason,
    ids::{RunId, TenantId},
    spec::{RunSpec, SessionSpec},
};

use tokio::task::spawn_blocking;

use super::Direct;
use crate::{
    backend::answer::{Failure, session_gone},
    home::remove_tree,
    sync::lock,
};

/// Below the state folder; its name is no execution's.
const FOLDER: &str = ".sessions";

/// Whose a conversation is, beside its folders.
const TENANT: &str = "tenant";

/// Most bytes of that file.
const MAX_TENANT_BYTES: u64 = 256;

/// The folders of one conversation.
pub(super) struct Kept {
    path: PathBuf,
}

impl Kept {
    fn at(state_dir: &Path, conversation: &RunId) -> Self {
        Self { path: state_dir.join(FOLDER).join(conversation.as_str()) }
    }

    pub(super) fn workspace(&self) -> PathBuf {
        self.path.join("workspace")
    }

    pub(super) fn session(&self) -> PathBuf {
        self.path.join("session")
    }

    fn is_of(&self, owner: &TenantId) -> bool {
        let path = self.path.join(TENANT);
        let small = fs::metadata(&path).is_ok_and(|about| about.len() <= MAX_TENANT_BYTES);
        let tenant = small.then(|| fs::read_to_string(path).ok()).flatten();
        tenant.as_deref() == Some(owner.as_str())
            && self.workspace().is_dir()
            && self.session().is_dir()
    }

    fn make(&self, owner: &TenantId) -> io::Result<()> {
        self.remove()?;
        let folder = |path: &Path| {
            fs::DirBuilder::new().recursive(true).mode(Direct::home_mode()).create(path)
        };
        folder(&self.path)?;
        folder(&self.workspace())?;
        folder(&self.session())?;
        // Last: without it the rest is nobody's.
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(self.path.join(TENANT))?;
        io::Write::write_all(&mut file, owner.as_str().as_bytes())
    }

    fn remove(&self) -> io::Result<()> {
        // First what makes it somebody's: half of it is not to be taken for the whole.
        let _ = fs::remove_file(self.path.join(TENANT));
        remove_tree(&self.path)
    }
}

impl Direct {
    pub(super) fn kept(&self, spec: &RunSpec) -> Option<Kept> {
        let session = spec.session.as_ref()?;
        Some(Kept::at(&self.state_dir, &session.conversation_id))
    }

    /// Has the folders of the run's conversation: those that are there for one that goes on, new ones for one that
    /// begins.
    pub(in crate::backend) async fn session(
        &self,
        spec: &RunSpec,
        session: &SessionSpec,
    ) -> Result<(), Failure> {
        let kept = Kept::at(&self.state_dir, &session.conversation_id);
        let (owner, resume) = (spec.tenant_id.clone(), session.resume);
        let had = self.in_folders(move || {
            if resume { Ok(kept.is_of(&owner)) } else { kept.make(&owner).map(|()| true) }
        });
        match had.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(session_gone(&self.worker_id, session)),
            Err(error) => {
                let text = format!("could not make the conversation's folders: {error}");
                Err(Failure::new(FailureReason::WorkspaceSetup, text))
            }
        }
    }

    /// Off the runtime's threads, since a folder may be large; one piece of work after the other.
    async fn in_folders<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let folders = self.folders.clone();
        let done = spawn_blocking(move || {
            let _alone = lock(&folders);
            work()
        });
        done.await.unwrap_or_else(|error| Err(error.into()))
    }

    /// Every conversation's folder.
    ///
    /// # Errors
    /// They cannot be listed.
    pub(in crate::backend) async fn sessions(&self) -> anyhow::Result<Vec<(RunId, PathBuf)>> {
        let folder = self.state_dir.join(FOLDER);
        Ok(spawn_blocking(move || listed(&folder)).await??)
    }

    /// Removes what is kept of a conversation.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(in crate::backend) async fn remove_session(
        &self,
        conversation: &RunId,
    ) -> anyhow::Result<()> {
        let kept = Kept::at(&self.state_dir, conversation);
        Ok(self.in_folders(move || kept.remove()).await?)
    }
}

fn listed(folder: &Path) -> io::Result<Vec<(RunId, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let conversation = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let id: RunId = entry.file_name().to_str()?.parse().ok()?;
        Some((id, entry.path()))
    };
    Ok(entries.filter_map(conversation).collect())
}
