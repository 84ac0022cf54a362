//! What a plane, a worker and a sidecar take when nothing happens: real processes, resident memory as the kernel
//! counts it. The sidecar's is measured in `container`, where there is one.

use std::{process::Stdio, time::Duration};

use serde::Serialize;

use super::{
    database::Database,
    plane::{Ground, Plane},
    process::{Running, resident},
};
use crate::failure::Failure;

/// How long they idle before they are measured.
const IDLE: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) plane_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) worker_bytes: Option<u64>,
}

pub(crate) async fn measure(ground: &Ground<'_>) -> Result<Memory, Failure> {
    let plane = Plane::start(ground, &Database::Sqlite)?;
    let folder = tempfile::Builder::new().prefix("worker-").tempdir_in(ground.folder)?;
    let token = folder.path().join("token");
    crate::context::write_private(&token, plane.key.expose())?;
    let url = format!("http://{}", plane.addr);
    let (state, token) = (folder.path().join("state"), token.to_string_lossy().into_owned());
    let state = state.to_string_lossy().into_owned();
    let name = format!("ozma-bench-{}", std::process::id());
    let args = ["worker", "--plane-url", &url, "--token-file", &token];
    let args = [&args[..], &["--state-dir", &state, "--worker-id", &name]].concat();
    let null = Stdio::null();
    let mut worker =
        Running::ozma(&ground.program, &args, folder.path(), ground.around, &[], null)?;
    // Idling is what is measured.
    tokio::time::sleep(IDLE).await;
    let worker_bytes = if worker.lives() { resident(worker.pid()) } else { None };
    let plane_bytes = resident(plane.pid())
        .ok_or_else(|| Failure::platform("the kernel does not say what the plane takes"))?;
    drop(worker);
    plane.stop().await;
    Ok(Memory { plane_bytes, worker_bytes })
}
