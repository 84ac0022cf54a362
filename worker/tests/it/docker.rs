//! What `ozma doctor` asks of an engine.

use worker::probe;

use crate::rig::SIDECAR_IMAGE;

#[tokio::test]
async fn an_engine_is_described() {
    let engine = probe::engine(None).await.unwrap();
    assert!(!engine.version.is_empty() && engine.cpus > 0, "{engine:?}");
    assert!(engine.runtimes.iter().any(|runtime| runtime == "runc"), "{engine:?}");
    assert!(probe::image(None, SIDECAR_IMAGE).await.unwrap().is_some());
    assert_eq!(probe::image(None, "ozma-test:never-made").await.unwrap(), None);
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_named() {
    let error = probe::engine(Some("unix:///nowhere/docker.sock")).await.unwrap_err();
    assert!(format!("{error:#}").contains("/nowhere/docker.sock"), "{error:#}");
}
