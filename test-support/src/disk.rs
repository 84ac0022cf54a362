//! A disk that is soon full: a file system in memory that only the processes of one test can see.
//!
//! It is mounted in a namespace of its own, held by a process that ends with the test process whatever way that
//! ends; nothing is left to unmount.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// What holds it. `$1` is where it is mounted, `$2` its size in bytes.
const HOLDER: &str =
    r#"mount -t tmpfs -o size="$2" ozma-test "$1" && echo up && exec cat >/dev/null"#;

/// Where a process [`within`](SmallDisk::within) sees it: a folder every Linux has. Whatever is in it is hidden there
/// alone.
pub const MOUNTED: &str = "/mnt";

/// A small file system; gone when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    path: PathBuf,
    filler: PathBuf,
}

impl SmallDisk {
    /// # Panics
    /// It cannot be mounted: this needs root.
    pub fn with_bytes(bytes: u64) -> Self {
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", HOLDER, "holder", MOUNTED, &bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is installed");
        let mut line = String::new();
        let output = holder.stdout.take().expect("it was asked for");
        BufReader::new(output).read_line(&mut line).expect("the holder speaks");
        assert_eq!(line, "up\n", "a small disk can be mounted by root only");
        // Through the holder its mounts are seen from everywhere.
        let path = PathBuf::from(format!("/proc/{}/root{MOUNTED}", holder.id()));
        let filler = path.join("filler");
        Self { holder, path, filler }
    }

    /// The command, to be started where the disk is seen, below [`MOUNTED`]: with the program, the arguments and the
    /// variables of `command`, and nothing else of it.
    pub fn within(&self, command: &Command) -> Command {
        let mut within = Command::new("nsenter");
        within.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("--");
        within.arg(command.get_program()).args(command.get_args()).env_clear();
        let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        within.envs(set);
        within
    }

    /// Its root folder, as it is seen from outside. A program that resolves symbolic links by itself does not get
    /// there: see [`within`](Self::within).
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Takes all the room there is.
    ///
    /// # Panics
    /// The file cannot be made.
    pub fn fill(&self) {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.filler)
            .expect("a file can be made");
        for size in [1 << 16, 1 << 9, 1] {
            while std::io::Write::write_all(&mut file, &vec![b'x'; size]).is_ok() {}
        }
    }

    /// Gives the room back.
    ///
    /// # Panics
    /// It was not filled.
    pub fn make_room(&self) {
        fs::remove_file(&self.filler).expect("the disk was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_and_has_room_again() {
        let disk = SmallDisk::with_bytes(1 << 20);
        let file = disk.path().join("mine");
        disk.fill();
        let full = fs::write(&file, b"x").unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        disk.make_room();
        fs::write(&file, b"x").unwrap();
        let mut cat = Command::new("cat");
        cat.arg("/mnt/mine").env("PATH", "/bin:/usr/bin");
        assert_eq!(disk.within(&cat).output().unwrap().stdout, b"x");
        assert!(!fs::exists("/mnt/mine").unwrap());
    }
}
