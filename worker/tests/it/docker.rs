//! What `ozma doctor` asks of an engine, and what a worker tidies up in one.

use test_support::{
    image::{self, docker},
    wait::eventually,
};
use worker::probe;

use crate::rig::{Rig, SIDECAR_IMAGE};

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

#[tokio::test]
async fn volumes_of_earlier_sidecars_go_unless_they_are_used() {
    let mut rig = Rig::new().await;
    let id = rig.config.worker_id.clone();
    let name = |what: &str| format!("ozma-sidecar-{what}-{id}");
    let (old, used, others) = (name("old"), name("used"), name("others"));
    let ours = format!("ozma.sidecar={SIDECAR_IMAGE}");
    for (volume, label) in [(&old, ours.as_str()), (&others, "ozma.sidecar=another:1")] {
        docker(&["volume", "create", "--label", image::LABEL, "--label", label, volume], &[]);
    }
    let mount = format!(
        "type=volume,source={used},target=/agent,volume-label={ours},volume-label={}",
        image::LABEL
    );
    let container = docker(
        &["create", "--label", image::LABEL, "--mount", &mount, image::busybox(), "true"],
        &[],
    );
    rig.start().await;
    let volumes = || docker(&["volume", "ls", "--quiet"], &[]);
    eventually("the old volume to go", || async {
        (!volumes().lines().any(|volume| volume == old)).then_some(())
    })
    .await;
    let left = volumes();
    let is_left = |volume: &str| left.lines().any(|left| left == volume);
    let (used_is_left, others_is_left) = (is_left(&used), is_left(&others));
    docker(&["rm", "--force", &container], &[]);
    docker(&["volume", "rm", "--force", &used, &others], &[]);
    assert!(used_is_left, "a volume was taken from its container");
    assert!(others_is_left, "another worker's volume was removed");
    rig.finish().await;
}
