//! Marked values planted everywhere a secret goes in, and looked for everywhere something comes out.

use std::{fs, path::Path};

use protocol::run::RunState;
use serde_json::json;
use test_support::image::docker;

use crate::{
    images,
    stack::{ADMIN_KEY, Stack},
};

const TENANT: &str = "planted-tenant-token-5d1c";
const VALUE: &str = "planted-environment-value-93fe";
const GIT_TOKEN: &str = "planted-git-token-a07b";
const MODEL_KEY: &str = "planted-model-key-61c2";
const PROMPT: &str = "planted-prompt-e4d8";

/// What may stand nowhere but in the process that needs it.
const SECRETS: [&str; 5] = [TENANT, VALUE, GIT_TOKEN, MODEL_KEY, ADMIN_KEY];

#[tokio::test]
async fn planted_secrets_are_found_nowhere() {
    let stack = Stack::start_with(&[("OZ_PROVIDER_API_KEY", MODEL_KEY)]).await;
    let tenant = stack.tenant(TENANT);
    let values = json!({"SERVICE_PASSWORD": VALUE, "GIT_TOKEN": GIT_TOKEN});
    // It has the value, and shows nothing of it but its length.
    let command = "echo length ${#SERVICE_PASSWORD}; sleep 600";
    let environment = tenant.command(images::busybox(), command, json!({"env_vars": values})).await;
    let run = tenant.submit(&environment, PROMPT).await;
    tenant.until_printed(&run, &format!("length {}", VALUE.len())).await;

    let containers = Stack::containers(&run);
    assert_eq!(containers.len(), 1);
    let described = docker(&["inspect", &containers[0]], &[]);
    clean("docker inspect", &described);
    assert!(!described.contains(PROMPT), "the prompt stands in docker inspect");
    let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &containers[0]], &[]);
    for file in ["environ", "cmdline"] {
        let text = fs::read(format!("/proc/{pid}/{file}")).unwrap();
        clean(&format!("/proc/1/{file}"), &String::from_utf8_lossy(&text));
    }
    clean("docker logs", &docker(&["logs", &containers[0]], &[]));
    clean_folder(stack.folder(), &SECRETS);
    tenant.cancel(&run).await;
    tenant.ended_as(&run, RunState::Cancelled).await;

    // Errors quote what failed; here that is a clone that carries a token.
    let repository = format!("https://{}:9/private.git", images::host());
    let more = json!({
        "env_vars": values,
        "repos": [{"url": repository, "token_env": "GIT_TOKEN"}],
    });
    let environment = tenant.command(images::busybox(), "true", more).await;
    let failing = tenant.submit(&environment, PROMPT).await;
    tenant.ended_as(&failing, RunState::Failed).await;

    for run in [&run, &failing] {
        for path in [format!("/agent/runs/{run}"), format!("/agent/runs/{run}/events?limit=1000")] {
            clean(&path, &tenant.get(&path).await.text().await.unwrap());
        }
    }
    let others = stack.tenant("somebody-else").get("/environments").await.text().await.unwrap();
    clean("another tenant's environments", &others);
    let logs = stack.logs();
    clean("the logs", &logs);
    assert!(!logs.contains(PROMPT), "the prompt stands in the logs");
    clean_folder(stack.folder(), &SECRETS);
    stack.finish().await;
}

fn clean(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} shows {secret}: {text}");
    }
}

/// Every file below: the database holds values encrypted and tokens hashed, the worker's state neither.
pub(crate) fn clean_folder(folder: &Path, secrets: &[&str]) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            clean_folder(&path, secrets);
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            for secret in secrets {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{} holds {secret}", path.display());
            }
        }
    }
}
