//! The published Python SDKs against a real plane: the newest one, and the last that calls the old create path.
//! They come from their registry by name and version, once for each target folder.

use std::{path::PathBuf, process::Stdio, time::Duration};

use serde_json::json;
use tokio::process::Command;

use crate::edge::Edge;

/// Installing and running; both are killed at the bound.
const WITHIN: Duration = Duration::from_mins(4);

async fn must(program: impl Into<PathBuf>, args: &[&str]) -> String {
    let program = program.into();
    let child = Command::new(&program).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(WITHIN, child)
        .await
        .expect("it ends in time")
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} {args:?}\n{out}\n{err}", program.display());
    out.into_owned()
}

/// A Python with this version of the SDK.
async fn python_with(version: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("oz-agent-sdk-{version}"));
    let (python, ready) = (folder.join("bin/python"), folder.join("ready"));
    if !ready.exists() {
        must("python3", &["-m", "venv", "--clear", &folder.to_string_lossy()]).await;
        let package = format!("oz-agent-sdk=={version}");
        must(&python, &["-m", "pip", "install", "--quiet", &package]).await;
        std::fs::write(&ready, "").unwrap();
    }
    python
}

/// Creates, lists over two pages, reads, cancels, and meets each kind of refusal, as a program of a user would.
async fn a_user_of(version: &str) {
    let python = python_with(version).await;
    let edge = Edge::start().await;
    let body = json!({"name": "shop", "docker_image": "debian", "repos": ["acme/shop"]});
    let environment = edge.environment("alice", &body).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/user.py");
    let said = must(python, &[script, &edge.root, "alice", &environment]).await;
    assert_eq!(said.trim(), "all good");
    assert_eq!(edge.count_runs().await, 3);
    edge.stop().await;
}

#[tokio::test]
async fn the_newest_python_sdk_works() {
    a_user_of("0.15.0").await;
}

#[tokio::test]
async fn the_sdk_of_the_old_create_path_works() {
    a_user_of("0.10.1").await;
}
