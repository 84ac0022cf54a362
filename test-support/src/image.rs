//! Container images for tests, made from this machine's own files: no registry is needed.
//! Everything made here carries the label `ozma.test=1`.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The smallest image that is still useful: busybox with its applets, a root user, `/tmp`.
pub const BUSYBOX: &str = "ozma-test:busybox";

/// The label on everything tests make.
pub const LABEL: &str = "ozma.test=1";

/// Makes [`BUSYBOX`] unless it is there, and gives its name.
///
/// # Panics
/// There is no static `/bin/busybox`, no `docker` or no engine.
pub fn busybox() -> &'static str {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        if !exists(BUSYBOX) {
            let root = tempfile::tempdir().expect("a temporary folder can be made");
            busybox_root(root.path());
            import(root.path(), BUSYBOX);
        }
    });
    BUSYBOX
}

/// Whether the engine has an image of this name.
pub fn exists(image: &str) -> bool {
    let mut command = Command::new("docker");
    command.args(["image", "inspect", "--format", "{{.Id}}", image]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// An image that is `base` with the files below `folder` put at `/`.
///
/// # Panics
/// The engine refuses.
pub fn with_files(base: &str, folder: &Path, name: &str) {
    let id = docker(&["create", "--label", LABEL, base, "/bin/true"], &[]);
    docker(&["cp", "-", &format!("{id}:/")], &tar(folder));
    docker(&["commit", "--change", "LABEL ozma.test=1", &id, name], &[]);
    docker(&["rm", "--force", "--volumes", &id], &[]);
}

/// Makes an image of the files below `folder`.
///
/// # Panics
/// The engine refuses.
pub fn import(folder: &Path, name: &str) {
    docker(&["import", "--change", "LABEL ozma.test=1", "-", name], &tar(folder));
}

/// Removes an image, if it is there.
pub fn remove(image: &str) {
    let mut command = Command::new("docker");
    command.args(["image", "rm", "--force", image]).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = command.status();
}

fn busybox_root(root: &Path) {
    for folder in ["bin", "dev", "etc", "proc", "root", "run", "srv", "sys", "tmp", "usr", "var"] {
        fs::create_dir(root.join(folder)).expect("a folder can be made");
    }
    symlink("../bin", root.join("usr/bin")).expect("a link can be made");
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("its mode");
    fs::copy("/bin/busybox", root.join("bin/busybox"))
        .expect("a static /bin/busybox (on Debian: apt-get install busybox-static)");
    let applets = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs");
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|name| *name != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet)).expect("a link can be made");
    }
    let files = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/hostname", "test\n"),
    ];
    for (path, content) in files {
        fs::write(root.join(path), content).expect("a file can be written");
    }
}

/// The files below `folder` as an archive, owned by root.
fn tar(folder: &Path) -> Vec<u8> {
    let output = Command::new("tar")
        .args(["--create", "--owner=0", "--group=0", "--numeric-owner", "--directory"])
        .arg(folder)
        .arg(".")
        .output()
        .expect("tar is installed");
    assert!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Runs the `docker` command with `input` on its standard input. Gives its output.
///
/// # Panics
/// It fails; the text says what it said.
pub fn docker(arguments: &[&str], input: &[u8]) -> String {
    let mut child = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the docker command is installed");
    // Written on a thread: an archive is larger than a pipe, and so may the answer be.
    let mut pipe = child.stdin.take().expect("it was asked for");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || pipe.write_all(&input));
    let output = child.wait_with_output().expect("docker ends");
    // It may refuse without reading its input; its own words below say more than a broken pipe.
    let _ = writer.join();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busybox_runs_a_shell() {
        let image = busybox();
        let said = docker(
            &["run", "--rm", "--label", LABEL, "--network", "none", image, "sh", "-c", "id -un"],
            &[],
        );
        assert_eq!(said, "root");
    }
}
