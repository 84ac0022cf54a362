//! The backend without containers: the same sidecar as a child process in a private folder.

use protocol::{api::artifacts::ArtifactItem, run::RunState};
use serde_json::json;
use test_support::{image::docker, repo::Repository};

use crate::stack::{SIDECAR_IMAGE, Stack};

#[tokio::test]
async fn a_run_without_a_container_leaves_its_patch_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = folder.path().join("ozma-sidecar");
    let holder = docker(&["create", "--label", "ozma.test=1", SIDECAR_IMAGE, "true"], &[]);
    let from = format!("{holder}:/agent/ozma-sidecar");
    docker(&["cp", &from, sidecar.to_str().unwrap()], &[]);
    docker(&["rm", "--volumes", &holder], &[]);

    let repository = Repository::with_files(&[("note.txt", "one\n")]);
    let stack = Stack::start_with(&[
        ("OZ_WORKER_BACKEND", "direct"),
        ("OZ_SIDECAR_BINARY", sidecar.to_str().unwrap()),
    ])
    .await;
    let tenant = stack.tenant("tenant-a");
    let more = json!({"repos": [repository.path()]});
    let environment = tenant.command("none", "echo two >>note.txt; cat note.txt", more).await;
    let run = tenant.submit(&environment, "add a line").await;
    let item = tenant.ended_as(&run, RunState::Succeeded).await;
    assert_eq!(tenant.output(&run).await, "one\ntwo\n");
    let [ArtifactItem::File { data, .. }] = item.artifacts.as_slice() else {
        panic!("not one file: {:?}", item.artifacts)
    };
    let patch = tenant.artifact(data.artifact_uid.as_str()).await;
    assert!(String::from_utf8_lossy(&patch).contains("+two\n"));
    stack.finish().await;
}
