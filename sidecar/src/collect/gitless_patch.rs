//! A patch without a git binary: the start commit's files against those of the work tree, in git's own form.
//! What `.gitignore` names stays out, unless the start commit knows it. Of submodules it says nothing, and files
//! over the bound of an artifact are left out.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{BufWriter, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use gix::{ObjectId, bstr::ByteSlice, index::entry::Mode, objs::Kind};
use protocol::limits::MAX_ARTIFACT_BYTES;

use super::{
    gitless_diff::{Side, write},
    start::Start,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Most files looked at; a larger work tree gets no patch.
const MAX_FILES: usize = 500_000;

/// Writes the patch; an empty file when nothing changed.
pub(super) fn make(repo: &Start, patch: &Path) -> Result<(), String> {
    try_make(repo, patch).map_err(|error| error.to_string())
}

fn try_make(repo: &Start, target: &Path) -> Result<(), Failure> {
    let mut out = BufWriter::new(fs::File::create(target)?);
    let repository = gix::open_opts(&repo.path, gix::open::Options::isolated())?;
    let tree = match &repo.commit {
        Some(commit) => {
            repository.find_commit(ObjectId::from_hex(commit.as_bytes())?)?.tree_id()?.detach()
        }
        None => ObjectId::empty_tree(repository.object_hash()),
    };
    let index = repository.index_from_tree(&tree)?;
    let mut tree = WorkTree { root: &repo.path, plain: HashMap::new() };
    let mut known = HashSet::new();
    for entry in index.entries() {
        let path = entry.path(&index).to_str_lossy().into_owned();
        known.insert(path.clone());
        if entry.mode == Mode::COMMIT {
            continue;
        }
        let now = tree.read(&path, repository.object_hash())?;
        let mode = entry.mode.bits();
        match now {
            Now::TooLarge => {}
            Now::There(now) if now.id == entry.id && now.mode == mode => {}
            now => {
                let content = repository.find_object(entry.id)?.detach().data;
                let before = Side { mode, id: entry.id, content };
                let after = if let Now::There(after) = now { Some(after) } else { None };
                write(&mut out, &path, Some(&before), after.as_ref())?;
            }
        }
    }
    let source = gix::worktree::stack::state::ignore::Source::WorktreeThenIdMappingIfNotSkipped;
    let mut ignored = repository.excludes(&index, None, source)?;
    let mut new = Vec::new();
    let mut open = vec![String::new()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(repo.path.join(&folder)).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let is_folder = entry.file_type()?.is_dir();
            if entry.file_name().as_bytes() == b".git" || known.contains(&path) {
                continue;
            }
            let mode = if is_folder { Mode::DIR } else { Mode::FILE };
            if ignored.at_entry(path.as_str(), Some(mode))?.is_excluded() {
                continue;
            }
            // A repository in the repository is not part of it.
            if !is_folder {
                new.push(path);
            } else if !entry.path().join(".git").exists() {
                open.push(path);
            }
            if new.len() + known.len() > MAX_FILES {
                return Err(format!("more than {MAX_FILES} files").into());
            }
        }
    }
    new.sort();
    for path in new {
        if let Now::There(now) = tree.read(&path, repository.object_hash())? {
            write(&mut out, &path, None, Some(&now))?;
        }
    }
    out.flush()?;
    Ok(())
}

/// The work tree as it is now, links never followed.
struct WorkTree<'a> {
    root: &'a Path,
    /// Whether a folder is a folder and no link, and so are those above it.
    plain: HashMap<PathBuf, bool>,
}

enum Now {
    Gone,
    TooLarge,
    There(Side),
}

impl WorkTree<'_> {
    fn read(&mut self, path: &str, hash: gix::hash::Kind) -> Result<Now, Failure> {
        let relative = Path::new(path);
        if !self.is_plain(relative.parent().unwrap_or(Path::new(""))) {
            return Ok(Now::Gone);
        }
        let full = self.root.join(relative);
        let Ok(about) = fs::symlink_metadata(&full) else { return Ok(Now::Gone) };
        let (mode, content) = if about.is_symlink() {
            (Mode::SYMLINK, fs::read_link(&full)?.as_os_str().as_bytes().to_vec())
        } else if !about.is_file() {
            return Ok(Now::Gone);
        } else if about.len() > MAX_ARTIFACT_BYTES {
            return Ok(Now::TooLarge);
        } else {
            let runs = about.permissions().mode() & 0o100 != 0;
            let mode = if runs { Mode::FILE_EXECUTABLE } else { Mode::FILE };
            let Ok(content) = fs::read(&full) else { return Ok(Now::Gone) };
            (mode, content)
        };
        let id = gix::objs::compute_hash(hash, Kind::Blob, &content)?;
        Ok(Now::There(Side { mode: mode.bits(), id, content }))
    }

    fn is_plain(&mut self, folder: &Path) -> bool {
        if folder.as_os_str().is_empty() {
            return true;
        }
        if let Some(plain) = self.plain.get(folder) {
            return *plain;
        }
        let above = self.is_plain(folder.parent().unwrap_or(Path::new("")));
        let plain =
            above && fs::symlink_metadata(self.root.join(folder)).is_ok_and(|about| about.is_dir());
        self.plain.insert(folder.to_owned(), plain);
        plain
    }
}
