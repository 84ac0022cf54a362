//! Where a provider keeps what it needs to go on with a session, and where its own configuration is made. Sessions go
//! to a folder that outlives the run and holds no secret; configuration, which may hold some, to one that does not.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
};

use protocol::sidecar::{HARNESS_MOUNT, Launch};

/// Where programs are sought when nobody says.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A folder of the harness's own for this provider: emptied before it starts and removed after it ended.
pub(super) fn own(launch: &Launch) -> PathBuf {
    Path::new(&launch.state_directory).join(launch.harness.provider.as_str())
}

/// Where this provider's sessions are kept.
pub(super) fn sessions(launch: &Launch) -> PathBuf {
    let kept = match launch.session_directory.as_str() {
        "" => Path::new(&launch.state_directory).join("session"),
        kept => PathBuf::from(kept),
    };
    kept.join(launch.harness.provider.as_str())
}

/// A variable as the provider would see it: the environment's value, or else what the image says.
pub(super) fn variable(launch: &Launch, name: &str) -> Option<OsString> {
    let own = launch.env.get(name).map(|value| OsString::from(value.expose()));
    own.or_else(|| std::env::var_os(name)).filter(|value| !value.is_empty())
}

/// The home of the user the provider runs as.
pub(super) fn user(launch: &Launch) -> PathBuf {
    variable(launch, "HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// Where its program is sought: as the environment and its image say, and last where the worker mounts what it has.
pub(super) fn search_path(launch: &Launch) -> OsString {
    let mut path = variable(launch, "PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let mounted = Path::new(HARNESS_MOUNT).join(launch.harness.provider.as_str()).join("bin");
    if mounted.is_dir() && std::env::split_paths(&path).all(|folder| folder != mounted) {
        path.push(":");
        path.push(mounted);
    }
    path
}

/// The first file of that name on a search path.
pub(super) fn find(program: &str, path: &OsString) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A configuration file of the user's, if there is one that can be read; at most 1 MiB.
pub(super) fn read(path: &Path) -> Option<String> {
    let about = fs::metadata(path).ok()?;
    if !about.is_file() || about.len() > 1 << 20 {
        return None;
    }
    fs::read_to_string(path).ok()
}

/// Of a user's own configuration folder, what is there of `names`.
pub(super) fn present(folder: &Path, names: &[&'static str]) -> Vec<(&'static str, PathBuf)> {
    let all = names.iter().map(|name| (*name, folder.join(name)));
    all.filter(|(_, path)| path.exists()).collect()
}

/// Makes a folder that only this user may look into.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Makes `link` lead to `target`.
pub(super) fn lead(link: &Path, target: &Path) -> io::Result<()> {
    if let Some(folder) = link.parent() {
        make(folder)?;
    }
    symlink(target, link)
}

/// Removes a folder with all in it; links in it are removed and not followed. One that is not there is no error.
pub(super) fn clear(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(folder),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
