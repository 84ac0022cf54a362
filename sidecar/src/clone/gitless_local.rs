//! Cloning a repository of this machine without a git binary: its objects are copied, its refs read.
//! The depth does not count, as with git itself on a plain path.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    gitless_tree::{chain, check_out, full_name},
    source::{Reference, Source},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(super) fn clone(from: &Path, source: &Source, to: &Path) -> Result<String, String> {
    copy(from, source, to).map_err(|error| chain(&*error))
}

fn copy(from: &Path, source: &Source, to: &Path) -> Result<String, Failure> {
    let origin = gix::open_opts(from, gix::open::Options::isolated())?;
    let objects = origin.common_dir().join("objects");
    if objects.join("info/alternates").exists() {
        return Err(
            "it borrows objects of another repository; that needs a git in the image".into()
        );
    }
    gix::create::into(to, gix::create::Kind::WithWorktree, gix::create::Options::default())?;
    let git = to.join(".git");
    copy_tree(&objects, &git.join("objects"))?;
    let shallow = origin.common_dir().join("shallow");
    if shallow.is_file() {
        fs::copy(shallow, git.join("shallow"))?;
    }
    fs::write(git.join("packed-refs"), refs(&origin)?)?;
    let mut config = fs::read_to_string(git.join("config"))?;
    write!(
        config,
        "[remote \"origin\"]\n\turl = \"{}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
        source.url.replace('\\', "\\\\").replace('"', "\\\"")
    )?;
    fs::write(git.join("config"), config)?;
    let Some(commit) = head(&origin, source, &git)? else { return Ok(String::new()) };
    let repository = gix::open_opts(to, gix::open::Options::isolated())?;
    check_out(&repository, commit)?;
    Ok(commit.to_string())
}

/// The origin's branches as its remote branches, and its tags, in the form of `packed-refs`.
fn refs(origin: &gix::Repository) -> Result<String, Failure> {
    let mut lines = Vec::new();
    for reference in origin.references()?.all()? {
        let reference = reference?;
        let name = reference.name().as_bstr().to_string();
        let name = match name.strip_prefix("refs/heads/") {
            Some(branch) => format!("refs/remotes/origin/{branch}"),
            None if name.starts_with("refs/tags/") => name,
            None => continue,
        };
        // A ref to another ref is for its own repository.
        if let Some(id) = reference.target().try_id() {
            lines.push(format!("{id} {name}\n"));
        }
    }
    lines.sort_by(|a, b| a.split_once(' ').map(|l| l.1).cmp(&b.split_once(' ').map(|l| l.1)));
    Ok(format!("# pack-refs with:\n{}", lines.concat()))
}

/// Sets `HEAD` to the branch, tag or commit asked for; `None` for a repository without a commit.
fn head(
    origin: &gix::Repository,
    source: &Source,
    git: &Path,
) -> Result<Option<gix::ObjectId>, Failure> {
    let branch = |name: &str| -> Option<gix::ObjectId> {
        let mut reference = origin.find_reference(&format!("refs/heads/{name}")).ok()?;
        Some(reference.peel_to_id().ok()?.detach())
    };
    let name = match &source.reference {
        Some(Reference::Commit(commit)) => {
            let commit = origin.find_commit(gix::ObjectId::from_hex(commit.as_bytes())?)?.id;
            return detached(git, commit).map(Some);
        }
        Some(Reference::Name(name)) if branch(name).is_some() => name.clone(),
        Some(Reference::Name(name)) => {
            let tag = origin.find_reference(&format!("refs/tags/{name}"));
            let mut tag = tag.map_err(|_| format!("it has no branch or tag {name:?}"))?;
            return detached(git, tag.peel_to_commit()?.id).map(Some);
        }
        None => match origin.head_name()? {
            Some(name) => name.shorten().to_string(),
            None => return detached(git, origin.head_id()?.detach()).map(Some),
        },
    };
    let full = full_name("refs/heads/", &name)?;
    fs::write(git.join("HEAD"), format!("ref: {}\n", full.as_bstr()))?;
    let Some(commit) = branch(&name) else { return Ok(None) };
    let file = git.join("refs/heads").join(&name);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, format!("{commit}\n"))?;
    Ok(Some(commit))
}

fn detached(git: &Path, commit: gix::ObjectId) -> Result<gix::ObjectId, Failure> {
    fs::write(git.join("HEAD"), format!("{commit}\n"))?;
    Ok(commit)
}

/// Folders and regular files; an object database has nothing else.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let mut open: Vec<(PathBuf, PathBuf)> = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = open.pop() {
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let target = to.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push((entry.path(), target));
            } else if kind.is_file() {
                fs::copy(entry.path(), target)?;
            }
        }
    }
    Ok(())
}
