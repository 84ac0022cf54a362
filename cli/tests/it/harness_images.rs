//! `ozma harness build` against the real engine, with an `npm` that brings a package of ours.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;
use test_support::image::{self, LABEL, docker};

/// An image that goes with the test.
struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        image::remove(&self.0);
    }
}

/// A folder with an `npm` of ours, and nothing that it would need the network for.
struct Rig(TempDir);

impl Rig {
    /// `npm` packs what is below `package`, or fails where there is none.
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let npm = bin.join("npm");
        let script = format!(
            "#!/bin/sh\necho \"$@\" >>{0}/asked\n[ -d {0}/package ] || {{ echo 'E404 not found' >&2; exit 1; }}\n\
             tar -czf made.tgz -C {0} package && echo '[{{\"integrity\":\"sha512-x\"}}]'\n",
            folder.path().display()
        );
        fs::write(&npm, script).unwrap();
        fs::set_permissions(&npm, fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn build(&self, path: &str, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ozma"));
        command.args(["harness", "build", "--beside", "--json"]).args(args).env_clear();
        command.env("HOME", self.path()).env("PATH", path).stdin(Stdio::null());
        if let Some(host) = std::env::var_os("DOCKER_HOST") {
            command.env("DOCKER_HOST", host);
        }
        let done = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
    }

    fn with_npm(&self) -> String {
        format!("{}:/usr/bin:/bin", self.path().join("bin").display())
    }
}

#[test]
fn a_package_becomes_an_image_that_fills_a_volume_and_is_made_once() {
    let rig = Rig::new(&[("package/claude", "#!/bin/sh\necho made of a package\n")]);
    let version = format!("0.0.{}", std::process::id());
    let image = Image(format!("ozma-harness-claude:{version}"));
    let args = ["claude", "--version", version.as_str()];
    let (code, out, err) = rig.build(&rig.with_npm(), &args);
    assert_eq!(code, 0, "{out}{err}");
    let made: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&made["image"], &made["present"]), (&image.0.as_str().into(), &false.into()));
    let asked = fs::read_to_string(rig.path().join("asked")).unwrap();
    assert!(asked.contains("--ignore-scripts"), "{asked}");
    assert!(asked.trim_end().ends_with(&format!("@{version}")), "{asked}");

    // The way a worker does it: the engine copies the image's folder into an empty volume.
    let volume = format!("ozma-test-harness-{}", std::process::id());
    let mount = format!("{volume}:/harness/claude");
    let create = ["create", "--label", LABEL, "--volume", &mount, &image.0, "/none"];
    let filler = docker(&create, &[]);
    docker(&["rm", filler.trim()], &[]);
    let mount = format!("{volume}:/harness/claude:ro");
    let run = ["run", "--rm", "--label", LABEL, "--user", "10001", "--volume", &mount];
    let run = [&run[..], &[image::busybox(), "/harness/claude/bin/claude"]].concat();
    let said = docker(&run, &[]);
    docker(&["volume", "rm", &volume], &[]);
    assert_eq!(said.trim(), "made of a package");

    // Again: nobody asks npm.
    fs::remove_file(rig.path().join("bin/npm")).unwrap();
    let (code, out, err) = rig.build(&rig.with_npm(), &args);
    assert_eq!(code, 0, "{out}{err}");
    let again: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&again["id"], &again["present"]), (&made["id"], &true.into()));
}

#[test]
fn what_cannot_be_fetched_makes_no_image_and_says_why() {
    let version = format!("0.1.{}", std::process::id());
    let codex = ["codex", "--version", version.as_str()];
    let absent = Rig::new(&[]);
    let (code, out, err) = absent.build(&absent.with_npm(), &codex);
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("E404 not found"), "{err}");

    let (code, _, err) = absent.build("/nowhere", &codex);
    assert_eq!(code, 3);
    assert!(err.contains("npm is not on the PATH"), "{err}");

    let other = Rig::new(&[("package/something-else", "x")]);
    let (code, _, err) = other.build(&other.with_npm(), &codex);
    assert_eq!(code, 3);
    assert!(err.contains("hold no bin/codex"), "{err}");
    assert!(!image::exists(&format!("ozma-harness-codex:{version}")), "half an image is there");

    for args in
        [&["claude", "codex", "--version", "1.0.0"][..], &["agent"], &["--version", "1.0.0"]]
    {
        let (code, _, err) = other.build(&other.with_npm(), args);
        assert_eq!(code, 2, "{args:?}: {err}");
    }
    let (code, _, err) = other.build(&other.with_npm(), &["codex", "--version", "file:../x"]);
    assert_eq!(code, 3);
    assert!(err.contains("no exact version"), "{err}");
}
