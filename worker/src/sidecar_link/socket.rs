//! The socket file: made so that no symbolic link in its folder can turn anything of ours elsewhere.

use std::{io, path::Path};

use anyhow::Context;
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use tokio::net::UnixListener;

/// The name in the folder, as `protocol::sidecar::SOCKET_PATH` has it.
pub(super) const NAME: &str = "worker.sock";

/// Connections the kernel keeps for us.
const BACKLOG: i32 = 16;

/// Listens on [`NAME`] in `folder`, in place of a socket that an earlier life left there.
pub(super) fn listen(folder: &Path) -> anyhow::Result<UnixListener> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(folder, flags, Mode::empty())
        .with_context(|| format!("open {}", folder.display()))?;
    match rustix::fs::unlinkat(&opened, NAME, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error).context("remove the old socket"),
    }
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .context("make a socket")?;
    // Before the bind, so that the file never has another mode; chmod by path would follow a link.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).context("close the socket to others")?;
    let address = SocketAddrUnix::new(folder.join(NAME)).context("name the socket")?;
    rustix::net::bind(&socket, &address)
        .with_context(|| format!("bind {}", folder.join(NAME).display()))?;
    rustix::net::listen(&socket, BACKLOG).context("listen")?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    let listener: io::Result<_> = UnixListener::from_std(listener);
    listener.context("watch the socket")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn the_socket_is_for_us_alone_and_replaces_whatever_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        std::fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join(NAME)).unwrap();
        let first = listen(folder.path()).unwrap();
        drop(first);
        let _second = listen(folder.path()).unwrap();
        let mode = std::fs::symlink_metadata(folder.path().join(NAME)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(target).unwrap(), "kept");
    }
}
