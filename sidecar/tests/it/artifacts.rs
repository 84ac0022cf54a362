//! What a run leaves behind.

use std::{path::Path, process::Command};

use protocol::event::Event;
use test_support::repo::Repository;

use crate::worker::{Worker, command, with_repo};

/// Applies `patch` to a fresh clone of `repo` and returns where it stands.
fn applied(repo: &Repository, patch: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let done = Command::new("git").current_dir(folder.path()).args(args).output().unwrap();
        assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    git(&["clone", "-q", repo.path().to_str().unwrap(), "."]);
    let file = folder.path().join(".git/the.patch");
    std::fs::write(&file, patch).unwrap();
    git(&["apply", "--binary", file.to_str().unwrap()]);
    folder
}

fn read(folder: &tempfile::TempDir, path: &str) -> Option<Vec<u8>> {
    std::fs::read(folder.path().join(path)).ok()
}

/// Changes of every kind: edited, new, deleted, binary, executable, a link, and (with git) a commit.
const CHANGES: &str = "echo two >> a.txt; mkdir new; printf 'no newline' > new/b.txt; rm gone.txt; \
    head -c 300 /bin/sh > bin.dat; printf '#!/bin/sh\\n' > run.sh; chmod +x run.sh; ln -s a.txt link; \
    echo ignored > x.log";

async fn patch_of(worker: &mut Worker, changes: &str) {
    let repo = Repository::with_files(&[
        ("a.txt", "one\n"),
        ("gone.txt", "gone\n"),
        (".gitignore", "*.log\n"),
    ]);
    let heard = worker.run(with_repo(command(changes), repo.path())).await;
    assert!(heard.exit().unwrap().success, "{heard:?}");
    let files = heard.files();
    let patch = files.get("changes.patch").unwrap_or_else(|| panic!("no patch: {heard:?}"));
    let tree = applied(&repo, patch);
    assert_eq!(read(&tree, "a.txt").unwrap(), b"one\ntwo\n");
    assert_eq!(read(&tree, "new/b.txt").unwrap(), b"no newline");
    assert_eq!(read(&tree, "gone.txt"), None);
    assert_eq!(read(&tree, "x.log"), None);
    assert_eq!(read(&tree, "bin.dat").unwrap(), std::fs::read("/bin/sh").unwrap()[..300]);
    let mode = std::fs::metadata(tree.path().join("run.sh")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o111, 0o111);
    assert_eq!(std::fs::read_link(tree.path().join("link")).unwrap(), Path::new("a.txt"));
}

#[tokio::test]
async fn a_patch_holds_commits_untracked_files_and_binaries() {
    let changes = format!("{CHANGES}; git add -A && git commit -qm x && echo two >> /dev/null");
    patch_of(&mut Worker::start(), &changes).await;
    patch_of(&mut Worker::start(), CHANGES).await;
}

#[cfg(feature = "gix")]
#[tokio::test]
async fn the_built_in_git_makes_the_same_patch() {
    let tools = crate::clone::path_without_git();
    let path = tools.path().to_str().unwrap();
    patch_of(&mut Worker::start_with(&[("PATH", path)]), CHANGES).await;
}

#[tokio::test]
async fn a_hostile_configuration_runs_nothing_and_hides_nothing() {
    let repo = Repository::with_files(&[("a.txt", "one\n")]);
    let evil = "git config core.fsmonitor 'touch ../evil; false'; git config diff.external 'touch ../evil'; \
        git config core.hooksPath ../hooks; git config diff.x.textconv 'touch ../evil; true'; \
        echo '*.txt diff=x' > .gitattributes; echo two >> a.txt";
    let mut worker = Worker::start();
    let heard = worker.run(with_repo(command(evil), repo.path())).await;
    let patch = String::from_utf8(heard.files()["changes.patch"].clone()).unwrap();
    assert!(patch.contains("+two"), "{patch}");
    assert!(!worker.root().join("workspace/evil").exists());
}

#[tokio::test]
async fn nothing_changed_is_no_patch_and_files_come_by_pattern() {
    let repo = Repository::with_files(&[("a.txt", "one\n")]);
    let mut spec = with_repo(command("true"), repo.path());
    let heard = Worker::start().run(spec.clone()).await;
    assert!(heard.files().is_empty());

    spec.harness.command = Some(
        "mkdir -p ../out; head -c 600000 /dev/zero > ../out/big.bin; ln -s /etc/passwd ../out/p.bin; \
         truncate -s 40M ../out/huge.bin"
            .to_owned(),
    );
    spec.artifacts = vec!["out/*.bin".to_owned()];
    let heard = Worker::start().run(spec).await;
    let files = heard.files();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["big.bin"]);
    assert_eq!(files["big.bin"].len(), 600_000);
    let noticed =
        |event: Event| matches!(event, Event::Notice { text } if text.contains("huge.bin"));
    assert!(heard.events().any(noticed));
}

#[tokio::test]
async fn pull_requests_are_found_in_the_output() {
    let repo = Repository::with_files(&[("a.txt", "one\n")]);
    let script = "git checkout -q -b fix/it; echo see https://github.com/acme/shop/pull/7 now";
    let heard = Worker::start().run(with_repo(command(script), repo.path())).await;
    let found: Vec<_> = heard
        .events()
        .filter_map(|event| match event {
            Event::Artifact(artifact) => {
                Some((artifact.artifact_type, artifact.url?, artifact.branch?))
            }
            _ => None,
        })
        .collect();
    let url = "https://github.com/acme/shop/pull/7".to_owned();
    assert_eq!(found, [("PULL_REQUEST".to_owned(), url, "fix/it".to_owned())]);
}

#[tokio::test]
async fn traps_in_the_way_of_the_patch_hold_nothing_and_leave_nothing() {
    let repo = Repository::with_files(&[("a.txt", "one\n")]);
    let name = repo.path().file_name().unwrap().to_str().unwrap();
    let folder = name.strip_suffix(".git").unwrap_or(name);
    // A pipe where the patch might be written, and a filter that leaves a process behind.
    let traps = format!(
        "state=$(dirname \"$OZMA_PROMPT_FILE\"); mkfifo $state/{folder}.patch $state/{folder}.index; \
         printf 'setsid sleep 600 >/dev/null 2>&1 & echo $! >> '$state'/pids; cat' > $state/clean; \
         git config filter.f.clean \"sh $state/clean\"; echo '* filter=f' > .gitattributes; \
         echo two >> a.txt"
    );
    let mut worker = Worker::start();
    let heard = worker.run(with_repo(command(&traps), repo.path())).await;
    assert!(heard.files().contains_key("changes.patch"), "{heard:?}");
    let pids = std::fs::read_to_string(worker.root().join("ozma/state/pids")).unwrap();
    for pid in pids.lines() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
}

#[tokio::test]
async fn a_patch_that_lacks_something_says_so() {
    let repo = Repository::with_files(&[("a.txt", "one\n")]);
    // Its objects are somebody else's now: nothing new can be put there.
    let bare = repo.path().join(".git");
    let changes = format!(
        "rm -rf .git/objects; ln -s {}/nowhere .git/objects; echo two >> a.txt",
        bare.display()
    );
    let heard = Worker::start().run(with_repo(command(&changes), repo.path())).await;
    assert!(heard.exit().unwrap().success, "{heard:?}");
    let said = |event| matches!(event, Event::Notice { text } if text.contains("patch of"));
    assert!(heard.events().any(said), "{heard:?}");
}

/// What a provider prints is kept byte for byte, however it ends.
#[tokio::test]
async fn a_transcript_is_kept_of_good_runs_bad_ones_and_stopped_ones() {
    let success = r#"{"type":"result","subtype":"success","is_error":false,"result":"done"}"#;
    for (line, end, cancelled) in
        [(success, "true", false), ("{", "exit 7", false), ("[]", "sleep 60", true)]
    {
        let tools = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(tools.path(), open).unwrap();
        let program = tools.path().join("claude");
        std::fs::write(&program, format!("#!/bin/sh\ncat >/dev/null\necho '{line}'\n{end}\n"))
            .unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, open).unwrap();
        let path = format!("{}:/usr/bin:/bin", tools.path().display());
        let mut worker = Worker::start_with(&[("PATH", &path)]);
        let mut spec = command("");
        spec.harness.provider = protocol::spec::ProviderKind::Claude;
        spec.env.insert("ANTHROPIC_API_KEY".to_owned(), protocol::secret::Secret::new("a-key"));
        let (mut connection, _) = worker.accept().await;
        connection.assign(spec).await;
        if cancelled {
            connection
                .until(|event| matches!(event, Event::Raw { .. } | Event::Output { .. }))
                .await;
            connection.cancel(std::time::Duration::from_millis(100)).await;
        }
        let heard = worker.finish(connection).await;
        assert_eq!(heard.exit().unwrap().success, end == "true", "{heard:?}");
        let transcript = heard.files().remove("transcript.jsonl").unwrap();
        assert_eq!(String::from_utf8(transcript).unwrap(), format!("{line}\n"));
    }
}
