//! The worker's own endpoint, with headers of its own and a key that goes out as a bearer: every real command line
//! asks it so.

use std::fs;

use protocol::run::RunState;
use serde_json::json;
use test_support::model::Model;

use crate::{images, stack::Stack};

const TOKEN: &str = "token-of-the-worker-5f21";
const TEAM: &str = "team-of-the-worker, the second";

#[tokio::test]
async fn every_command_line_sends_the_endpoints_headers_and_a_bearer() {
    ask(&["claude", "codex", "gemini", "opencode"], "").await;
}

#[tokio::test]
async fn opencode_does_so_to_anthropic() {
    ask(&["opencode"], "anthropic").await;
}

#[tokio::test]
async fn opencode_does_so_to_gemini() {
    ask(&["opencode"], "gemini").await;
}

/// `dialect` where it is not the provider's usual one.
async fn ask(providers: &[&str], dialect: &str) {
    let mut asked = Vec::new();
    let mut config = "capacity = 2\n".to_owned();
    for provider in providers {
        let model = Model::start_on(&format!("{}:0", images::host())).await;
        config += &table(&model, provider, dialect);
        asked.push((*provider, model));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("worker.toml");
    fs::write(&file, config).unwrap();
    let stack = Stack::start_with(&[("OZ_WORKER_CONFIG", file.to_str().unwrap())]).await;
    let tenant = stack.tenant("tenant-a");
    let mut runs = Vec::new();
    for (provider, model) in asked {
        let environment = tenant
            .environment(&json!({
                "name": provider,
                "docker_image": images::workshop(),
                "harness": {"type": provider},
            }))
            .await;
        runs.push((tenant.submit(&environment, "do as the model says").await, provider, model));
    }
    for (run, provider, model) in runs {
        tenant.ended_as(&run, RunState::Succeeded).await;
        let mut requests = model.requests();
        // Some look first whether somebody is there.
        requests.retain(|request| request.method == "POST");
        assert!(!requests.is_empty(), "{provider} asked nobody");
        for request in requests {
            let header = |name: &str| request.headers.get(name).map(String::as_str);
            assert_eq!(header("x-team"), Some(TEAM), "{provider} {dialect}");
            let bearer = format!("Bearer {TOKEN}");
            assert_eq!(header("authorization"), Some(bearer.as_str()), "{provider} {dialect}");
        }
    }
    stack.finish().await;
}

fn table(model: &Model, provider: &str, dialect: &str) -> String {
    let base_url = match (provider, dialect) {
        ("claude" | "gemini", _) | (_, "anthropic" | "gemini") => model.root("text"),
        _ => model.base_url("text"),
    };
    let dialect = match dialect {
        "" => String::new(),
        named => format!("dialect = \"{named}\"\n"),
    };
    format!(
        "[providers.{provider}]\nbase_url = \"{base_url}\"\nmodel = \"test-model\"\napi_key = \"{TOKEN}\"\n\
         auth = \"bearer\"\n{dialect}headers = {{ \"x-team\" = \"{TEAM}\" }}\n"
    )
}
