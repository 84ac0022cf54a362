//! Two tenants cannot see each other, by any route: what is another's answers as if it were not there.

use protocol::{api::artifacts::ArtifactItem, run::RunState};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{client::Tenant, images, stack::Stack};

#[tokio::test]
async fn another_tenants_things_are_not_there() {
    let stack = Stack::start().await;
    let (owner, other) = (stack.tenant("tenant-a"), stack.tenant("tenant-b"));
    let environment = owner
        .command(
            images::busybox(),
            "echo private >note.txt",
            json!({"artifacts": ["note.txt", "**/note.txt"]}),
        )
        .await;
    let run = owner.submit(&environment, "a private prompt").await;
    let item = owner.ended_as(&run, RunState::Succeeded).await;
    let Some(ArtifactItem::File { data, .. }) = item.artifacts.first() else {
        panic!("no artifact: {:?}", item.artifacts)
    };
    let uid = data.artifact_uid.as_str();
    assert_eq!(owner.artifact(uid).await, b"private\n");

    let body = json!({"name": "mine now", "docker_image": "x"});
    for (method, path, body) in [
        (Method::GET, format!("/agent/runs/{run}"), None),
        (Method::POST, format!("/agent/runs/{run}/cancel"), None),
        (Method::GET, format!("/agent/runs/{run}/events"), None),
        (Method::GET, format!("/agent/runs/{run}/artifacts"), None),
        (Method::GET, format!("/agent/artifacts/{uid}"), None),
        (Method::GET, format!("/agent/artifacts/{uid}/content"), None),
        (Method::GET, format!("/environments/{environment}"), None),
        (Method::PUT, format!("/environments/{environment}"), Some(&body)),
        (Method::DELETE, format!("/environments/{environment}"), None),
    ] {
        same_as_unknown(&other, method, &path, body, &[&run, uid, &environment]).await;
    }

    for path in ["/agent/runs", "/environments", "/agent/environments"] {
        let text = other.get(path).await.text().await.unwrap();
        for id in [run.as_str(), &environment, "private"] {
            assert!(!text.contains(id), "{path} shows {id}: {text}");
        }
    }
    let stolen = json!({"prompt": "x", "config": {"environment_id": environment}});
    let answer = other.send(Method::POST, "/agent/runs", Some(&stolen)).await;
    assert!(answer.status().is_client_error(), "another's environment ran: {}", answer.status());

    assert_eq!(owner.get(&format!("/environments/{environment}")).await.status(), 200);
    stack.finish().await;
}

/// The answer is 404, and the same one as for an id that nobody has.
async fn same_as_unknown(
    tenant: &Tenant,
    method: Method,
    path: &str,
    body: Option<&Value>,
    ids: &[&str],
) {
    let foreign = answer(tenant, method.clone(), path, body, ids).await;
    let mut unknown_path = path.to_owned();
    for id in ids {
        // As long and of the same form, so that nothing but its being unknown differs.
        unknown_path = unknown_path.replace(id, &unknown(id));
    }
    let unknowns: Vec<String> = ids.iter().map(|id| unknown(id)).collect();
    let unknowns: Vec<&str> = unknowns.iter().map(String::as_str).collect();
    let missing = answer(tenant, method, &unknown_path, body, &unknowns).await;
    assert_eq!(foreign.0, 404, "{path}: {}", foreign.1);
    assert_eq!(foreign, missing, "{path}");
}

fn unknown(id: &str) -> String {
    let last = if id.ends_with('0') { "1" } else { "0" };
    format!("{}{last}", &id[..id.len() - 1])
}

/// Status and body, without what differs between any two requests.
async fn answer(
    tenant: &Tenant,
    method: Method,
    path: &str,
    body: Option<&Value>,
    ids: &[&str],
) -> (u16, Value) {
    let answer = tenant.send(method, path, body).await;
    let status = answer.status().as_u16();
    let mut text = answer.text().await.unwrap();
    for id in ids {
        text = text.replace(id, "<id>");
    }
    let mut value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    if let Some(problem) = value.as_object_mut() {
        problem.retain(|name, _| !matches!(name.as_str(), "trace_id" | "request_id" | "instance"));
    }
    (status, value)
}
