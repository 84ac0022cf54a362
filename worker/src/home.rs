//! The folder of one execution: what a restarted worker needs to take it up again. It holds the sidecar's key
//! and how the sidecar ended, never the assignment's prompt or values.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use protocol::{
    event::Exit,
    ids::{ExecutionId, RunId, TenantId},
    secret::Secret,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::boot::Moment;

/// Bytes of a sidecar's key, before hex.
const KEY_BYTES: usize = 32;

/// Largest file read back from the folder, in bytes; a larger one is not ours.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// All that stands in such a folder. One with anything else in it is somebody else's, and is left alone: an
/// operator may have named a folder that is in use.
const ENTRIES: [&str; 8] = [
    "sock",
    "key",
    "execution.json",
    "exit.json",
    "said.jsonl",
    "process.json",
    "root",
    "sidecar.log",
];

/// What an execution is, for the worker's next life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) run_id: RunId,
    pub(crate) execution_id: ExecutionId,
    pub(crate) tenant_id: TenantId,
    /// The run's time, in seconds from `started_ms`.
    pub(crate) run_secs: u64,
    /// When its sidecar was about to start; before that, when the execution was taken.
    /// For people.
    pub(crate) started_ms: i64,
    /// The same, for time-outs; absent in what an older worker wrote.
    #[serde(default)]
    pub(crate) started: Option<Moment>,
    /// Limit of memory, in bytes.
    pub(crate) memory_bytes: Option<u64>,
    /// Its sidecar is reached through the engine, whatever the settings say by now.
    #[serde(default)]
    pub(crate) stdio: bool,
    /// The conversation whose kept files it uses.
    #[serde(default)]
    pub(crate) conversation: Option<RunId>,
}

impl Record {
    /// The run's time begins now.
    pub(crate) fn starts(&mut self, now_ms: i64) {
        self.started_ms = now_ms;
        self.started = Some(Moment::now());
    }

    /// How long its sidecar has run, over restarts of the worker and whatever the time of day was set to. Nothing
    /// survives a restart of the machine: then its time counts anew, for want of anything to stop.
    pub(crate) fn passed(&self) -> Duration {
        self.started.as_ref().and_then(Moment::elapsed).unwrap_or_default()
    }

    /// When it was begun, by the clock as it is set now.
    pub(crate) fn begun_ms(&self, now_ms: i64) -> i64 {
        let passed = i64::try_from(self.passed().as_millis()).unwrap_or(i64::MAX);
        now_ms.saturating_sub(passed)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Home {
    path: PathBuf,
}

impl Home {
    pub(crate) fn at(state_dir: &Path, execution_id: &ExecutionId) -> Self {
        Self { path: state_dir.join(execution_id.as_str()) }
    }

    /// Makes the folder with a new key. `mode` is the folder's own; everything in it is for us alone.
    pub(crate) fn create(&self, record: &Record, mode: u32) -> anyhow::Result<()> {
        folder(&self.path, mode).context("make the execution's folder")?;
        folder(&self.sock(), 0o700).context("make the socket's folder")?;
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(|error| anyhow::anyhow!("make a key: {error}"))?;
        self.write("key", hex::encode(key).as_bytes())?;
        self.save(record)
    }

    pub(crate) fn save(&self, record: &Record) -> anyhow::Result<()> {
        self.write_json("execution.json", record)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that a container sees at `/run/ozma`.
    pub(crate) fn sock(&self) -> PathBuf {
        self.path.join("sock")
    }

    pub(crate) fn record(&self) -> anyhow::Result<Record> {
        self.read_json("execution.json")?.context("execution.json is missing")
    }

    /// Where the worker's own events are noted.
    pub(crate) fn said(&self) -> PathBuf {
        self.path.join("said.jsonl")
    }

    pub(crate) fn key(&self) -> anyhow::Result<Secret> {
        let text = self.read("key")?.context("the key is missing")?;
        anyhow::ensure!(text.len() == 2 * KEY_BYTES, "the key is cut short");
        Ok(Secret::new(text))
    }

    /// How the sidecar ended, once it has said so: its journal forgets it when it is acknowledged.
    pub(crate) fn exit(&self) -> anyhow::Result<Option<Exit>> {
        self.read_json("exit.json")
    }

    pub(crate) fn save_exit(&self, exit: &Exit) -> anyhow::Result<()> {
        self.write_json("exit.json", exit)
    }

    pub(crate) fn read_json<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let Some(text) = self.read(name)? else { return Ok(None) };
        serde_json::from_str(&text).with_context(|| format!("understand {name}")).map(Some)
    }

    pub(crate) fn write_json<T: Serialize>(&self, name: &str, value: &T) -> anyhow::Result<()> {
        self.write(name, &serde_json::to_vec(value)?)
    }

    fn read(&self, name: &str) -> anyhow::Result<Option<String>> {
        use io::Read;
        let file = match fs::File::open(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.with_context(|| format!("open {name}"))?,
        };
        let mut text = String::new();
        file.take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .with_context(|| format!("read {name}"))?;
        Ok(Some(text))
    }

    /// Whole or not at all, whenever this process dies.
    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        use io::Write;
        let fresh = self.path.join(format!("{name}.new"));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .with_context(|| format!("write {name}"))?;
        file.write_all(bytes).with_context(|| format!("write {name}"))?;
        fs::rename(&fresh, self.path.join(name)).with_context(|| format!("write {name}"))
    }

    /// Removes the folder; one that is gone already is removed.
    pub(crate) async fn remove(&self) -> io::Result<()> {
        let path = self.path.clone();
        // Under the direct backend it is as large as the run made it.
        let removed = tokio::task::spawn_blocking(move || remove_tree(&path));
        removed.await.unwrap_or_else(|error| Err(error.into()))
    }

    /// Every execution that left a folder here, with its record where that can be read.
    pub(crate) fn all(state_dir: &Path) -> io::Result<Vec<(Self, Option<Record>)>> {
        let with_record = |(home, id): (Self, ExecutionId)| {
            let record = home.record().ok().filter(|record| record.execution_id == id);
            (home, record)
        };
        Ok(Self::ids(state_dir)?.into_iter().map(with_record).collect())
    }

    /// Every folder that has an execution's name and nothing in it that is not ours.
    pub(crate) fn ids(state_dir: &Path) -> io::Result<Vec<(Self, ExecutionId)>> {
        let mut homes = Vec::new();
        for entry in fs::read_dir(state_dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.parse::<ExecutionId>().ok());
            // One that is gone by now is nobody's.
            let is_ours = entry.file_type().is_ok_and(|kind| kind.is_dir())
                && only_ours(&entry.path()).unwrap_or(false);
            if let (Some(id), true) = (id, is_ours) {
                homes.push((Self::at(state_dir, &id), id));
            }
        }
        Ok(homes)
    }
}

fn only_ours(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_str().map(|name| name.strip_suffix(".new").unwrap_or(name));
        if !name.is_some_and(|name| ENTRIES.contains(&name)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a folder of its own; one that exists keeps its content and mode.
pub(crate) fn folder(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        done => done,
    }
}

/// Removes a folder and everything in it; one that is gone already is removed. A run may have taken the right to
/// write from its folders, which keeps anybody but root from removing what is in them.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match fs::remove_dir_all(path) {
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied
                && !rustix::process::geteuid().is_root() =>
        {
            let mut folders = vec![path.to_owned()];
            while let Some(folder) = folders.pop() {
                // What stays as it is fails below.
                let _ = fs::set_permissions(&folder, fs::Permissions::from_mode(0o700));
                let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
                let inner =
                    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                folders.extend(inner.map(|entry| entry.path()));
            }
            fs::remove_dir_all(path)
        }
        done => done,
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Makes the state folder and keeps it for this process alone, as long as the answer lives.
pub(crate) fn lock_state_dir(state_dir: &Path) -> anyhow::Result<fs::File> {
    // Passed through by an agent's own user under the direct backend; what is in it has modes of its own.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(state_dir)
        .with_context(|| format!("make {}", state_dir.display()))?;
    let lock = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(state_dir.join("lock"))
        .with_context(|| format!("write into {}", state_dir.display()))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("{} is in use by another worker", state_dir.display()))?;
    Ok(lock)
}

#[cfg(test)]
impl Record {
    /// One of any execution, for tests.
    pub(crate) fn example() -> Self {
        Self {
            run_id: "run".parse().unwrap(),
            execution_id: "exe".parse().unwrap(),
            tenant_id: "t".parse().unwrap(),
            run_secs: 1,
            started_ms: 2,
            started: None,
            memory_bytes: None,
            stdio: false,
            conversation: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_execution_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record::example();
        let home = Home::at(folder.path(), &record.execution_id);
        home.create(&record, 0o700).unwrap();
        fs::create_dir(folder.path().join("empty")).unwrap();
        fs::write(folder.path().join("lock"), "").unwrap();
        fs::create_dir(folder.path().join("somebodys")).unwrap();
        fs::write(folder.path().join("somebodys/thesis.tex"), "").unwrap();

        let mut found = Home::all(folder.path()).unwrap();
        found.sort_by_key(|(home, _)| home.path.clone());
        let records: Vec<_> = found.into_iter().map(|(_, record)| record).collect();
        assert_eq!(records, [None, Some(record)]);
        assert_eq!(home.key().unwrap().expose().len(), 64);
        assert_eq!(home.exit().unwrap(), None);
        home.remove().await.unwrap();
        home.remove().await.unwrap();
    }

    #[test]
    fn a_tree_without_the_right_to_write_goes_and_a_link_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let deep = folder.path().join("kept/closed/deep");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), deep.join("link")).unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(outside.path(), 0o555);
        mode(&deep, 0o555);
        mode(deep.parent().unwrap(), 0);
        remove_tree(&folder.path().join("kept")).unwrap();
        assert!(!folder.path().join("kept").exists());
        assert_eq!(fs::metadata(outside.path()).unwrap().permissions().mode() & 0o777, 0o555);
        remove_tree(&folder.path().join("kept")).unwrap();
    }
}
