//! Cloning: with the image's git and with the one built in, from folders and over HTTP, with and without a token.

use std::path::Path;

use protocol::{
    event::Event, failure::FailureReason, secret::Secret, spec::Repo as RepoSpec, spec::RunSpec,
};
use test_support::repo::Repository;

use crate::{
    http_git::{Server, TOKEN},
    worker::{Heard, Worker, command, with_repo},
};

/// A search path with the usual tools and no git.
pub(crate) fn path_without_git() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    for place in ["/usr/bin", "/bin"] {
        for entry in std::fs::read_dir(place).unwrap().flatten() {
            if !entry.file_name().to_string_lossy().starts_with("git") {
                let _ =
                    std::os::unix::fs::symlink(entry.path(), folder.path().join(entry.file_name()));
            }
        }
    }
    folder
}

/// Runs `spec` with the image's git, or with none in the image.
async fn run(spec: RunSpec, built_in: bool) -> (Worker, Heard) {
    let tools = path_without_git();
    let path = [("PATH", tools.path().to_str().unwrap())];
    let mut worker = if built_in { Worker::start_with(&path) } else { Worker::start() };
    let heard = worker.run(spec).await;
    (worker, heard)
}

fn ways() -> impl Iterator<Item = bool> {
    [false, cfg!(feature = "gix")].into_iter().filter(|built_in| !built_in || cfg!(feature = "gix"))
}

fn cloned(heard: &Heard) -> (String, String, String) {
    let mut found = heard.events().filter_map(|event| match event {
        Event::Cloned { url, commit, by, .. } => Some((url, commit, by)),
        _ => None,
    });
    found.next().unwrap_or_else(|| panic!("nothing was cloned: {}", heard.everything()))
}

/// Three commits, a branch, a tag.
fn history() -> (Repository, [String; 3]) {
    let repo = Repository::with_files(&[("f", "1\n")]);
    let one = repo.git(&["rev-parse", "HEAD"]);
    repo.git(&["branch", "side/one"]);
    let two = repo.commit(&[("f", "2\n")], "second");
    repo.git(&["tag", "-a", "v2", "-m", "v2"]);
    let three = repo.commit(&[("f", "3\n"), ("deep/x.sh", "#!/bin/sh\n")], "third");
    (repo, [one, two, three])
}

fn asked(url: impl AsRef<Path>, reference: Option<&str>, depth: Option<u32>) -> RunSpec {
    let mut spec = with_repo(command("cat f; pwd"), url);
    spec.repos[0].reference = reference.map(str::to_owned);
    spec.repos[0].depth = depth;
    spec
}

#[tokio::test]
async fn branch_tag_commit_and_default_give_what_they_name() {
    let (repo, [one, two, three]) = history();
    for built_in in ways() {
        for (reference, commit, content) in [
            (None, &three, "3"),
            (Some("side/one"), &one, "1"),
            (Some("v2"), &two, "2"),
            (Some(two.as_str()), &two, "2"),
        ] {
            let (worker, heard) = run(asked(repo.path(), reference, None), built_in).await;
            let (url, at, by) = cloned(&heard);
            assert_eq!((&at, url), (commit, format!("file://{}", repo.path().display())));
            assert_eq!(by.starts_with("built-in git"), built_in, "{by}");
            let folder = worker.root().join("workspace").join(repo.path().file_name().unwrap());
            // With only one repository the provider starts inside it.
            assert_eq!(
                heard.stdout(),
                [content, folder.to_str().unwrap()],
                "{reference:?} {built_in}"
            );
        }
    }
}

#[tokio::test]
async fn over_http_depth_and_token_are_kept_to() {
    let (repo, [_, two, three]) = history();
    let server = Server::start(&repo).await;
    for built_in in ways() {
        for (reference, depth, commit, commits) in [
            (None, None, &three, "1"),
            (None, Some(0), &three, "3"),
            (Some(two.as_str()), None, &two, "1"),
        ] {
            let mut spec = asked(server.url("open/repo.git"), reference, depth);
            spec.harness.command = Some("git rev-list --count HEAD 2>&1 || true".to_owned());
            let (worker, heard) = run(spec, built_in).await;
            assert_eq!(&cloned(&heard).1, commit);
            let folder = worker.root().join("workspace/repo");
            // Asked of this machine's git: the image may have had none.
            let count = std::process::Command::new("git")
                .args(["-c", "safe.directory=*", "rev-list", "--count", "HEAD"])
                .current_dir(folder)
                .output()
                .unwrap();
            assert_eq!(
                String::from_utf8_lossy(&count.stdout).trim(),
                commits,
                "{built_in} {depth:?}"
            );
        }

        let mut spec = asked(server.url("closed/repo.git"), None, None);
        spec.env.insert("MY_TOKEN".to_owned(), Secret::new(TOKEN));
        let (_, heard) = run(spec.clone(), built_in).await;
        let exit = heard.exit().unwrap();
        assert_eq!(exit.reason, Some(FailureReason::Clone), "{exit:?}");
        spec.repos[0].token_env = Some("MY_TOKEN".to_owned());
        spec.harness.command = Some("cat .git/config; env | grep -v MY_TOKEN".to_owned());
        let (_, heard) = run(spec, built_in).await;
        assert_eq!(&cloned(&heard).1, &three, "{built_in}");
        // Nowhere in what is said, the remote's address and the configuration included.
        assert!(!heard.everything().contains(TOKEN));
    }
}

#[tokio::test]
async fn a_token_in_the_address_is_used_and_kept_out_of_everything() {
    let (repo, [.., three]) = history();
    let server = Server::start(&repo).await;
    for built_in in ways() {
        let url = server.url("closed/repo.git").replace("http://", &format!("http://me:{TOKEN}@"));
        let mut spec = asked(url, None, None);
        spec.harness.command = Some("cat .git/config".to_owned());
        let (worker, heard) = run(spec, built_in).await;
        assert_eq!(&cloned(&heard).1, &three);
        assert!(!heard.everything().contains(TOKEN));
        let config =
            std::fs::read_to_string(worker.root().join("workspace/repo/.git/config")).unwrap();
        assert!(config.contains("http://127") && !config.contains(TOKEN), "{config}");
    }
}

#[tokio::test]
async fn what_cannot_be_cloned_says_why() {
    let (repo, _) = history();
    for built_in in ways() {
        for spec in [
            asked("/nowhere/at/all", None, None),
            asked(repo.path(), Some("no-such-branch"), None),
            asked(repo.path(), Some(&"a".repeat(40)), None),
            asked("ftp://host/repo", None, None),
        ] {
            let url = spec.repos[0].url.clone();
            let exit = run(spec, built_in).await.1.exit().unwrap();
            assert_eq!(exit.reason, Some(FailureReason::Clone));
            assert!(exit.message.contains("could not clone"), "{url}: {}", exit.message);
        }
    }
    let mut spec = asked(repo.path(), None, None);
    spec.repos.push(RepoSpec::new(format!("file://{}", repo.path().display())));
    let (_, heard) = run(spec, false).await;
    assert!(heard.exit().unwrap().message.contains("another repository is already cloned"));
}

#[tokio::test]
async fn two_repositories_stand_beside_each_other_and_an_empty_one_is_no_failure() {
    let (repo, _) = history();
    let empty = Repository::new();
    for built_in in ways() {
        let mut spec =
            with_repo(with_repo(command("ls -A; echo new > */new"), repo.path()), empty.path());
        let name = empty.path().file_name().unwrap().to_str().unwrap();
        spec.harness.command = Some(format!("pwd; echo new > {name}/new"));
        let (worker, heard) = run(spec, built_in).await;
        let exit = heard.exit().unwrap();
        assert!(exit.success, "{exit:?}");
        assert_eq!(heard.stdout(), [worker.root().join("workspace").to_str().unwrap()]);
        let files = heard.files();
        let patch =
            files.get(&format!("{name}.patch")).unwrap_or_else(|| panic!("{}", heard.everything()));
        assert!(String::from_utf8_lossy(patch).contains("+new"));
        assert_eq!(files.len(), 1);
    }
}

#[tokio::test]
async fn submodules_come_on_request_and_need_git() {
    let (inner, _) = history();
    let outer = Repository::with_files(&[("a", "a\n")]);
    let add = ["-c", "protocol.file.allow=always", "submodule", "add", "-q"];
    outer.git(&[&add[..], &[inner.path().to_str().unwrap(), "inner"]].concat());
    outer.git(&["commit", "-qm", "submodule"]);
    let mut spec = with_repo(command("cat inner/f"), outer.path());
    spec.repos[0].submodules = true;
    let (_, heard) = run(spec.clone(), false).await;
    assert_eq!(heard.stdout(), ["3"], "{}", heard.everything());
    if cfg!(feature = "gix") {
        let exit = run(spec, true).await.1.exit().unwrap();
        assert!(exit.message.contains("submodules need a git"), "{}", exit.message);
    }
}
