//! Who may call what: every operation of the document is called without a token and with every wrong kind of one.

use control_plane::{Config, Plane, Tenancy};
use expect_test::expect;
use reqwest::Method;
use serde_json::{Value, json};
use service::{clock::Clock, lifecycle::Lifecycle};
use test_support::worker::{FakeWorker, refusal};

use crate::edge::{ADMIN, Edge};

/// Every operation: method, path with ids filled in, and whether the document asks for a token.
async fn operations(edge: &Edge) -> Vec<(Method, String, bool)> {
    let document = edge.get("", "/api/v1/openapi.json").await.ok();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let filled: Vec<&str> =
            path.split('/').map(|part| if part.starts_with('{') { "none" } else { part }).collect();
        for (method, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            all.push((method, filled.join("/"), operation["security"].is_array()));
        }
    }
    assert!(all.len() > 20, "the document has lost its operations");
    all
}

/// What each operation answers to this token, one line each.
async fn walk(edge: &Edge, token: &str, expected: impl Fn(&str, bool) -> &'static [u16]) {
    for (method, path, guarded) in operations(edge).await {
        let answer = edge.send(edge.request(method.clone(), &path, token).json(&json!({}))).await;
        let expected = expected(&path, guarded);
        assert!(
            expected.is_empty() || expected.contains(&answer.status),
            "{method} {path}: {} instead of {expected:?}: {}",
            answer.status,
            answer.text
        );
        if answer.status >= 400 && guarded {
            answer.problem();
        }
    }
}

fn for_admins(path: &str) -> bool {
    path.starts_with("/api/v1/tokens") || path == "/api/v1/workers"
}

const WORKER_SOCKET: &str = "/api/v1/selfhosted/worker/ws";

#[tokio::test]
async fn open_routes_are_these_and_no_others() {
    let edge = Edge::start().await;
    let open: Vec<String> = operations(&edge)
        .await
        .into_iter()
        .filter(|(_, _, guarded)| !guarded)
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    expect![[r"
        GET /api/v1/agent/conversations/none/redirect
        GET /api/v1/agent/sessions/none/redirect
        GET /api/v1/openapi.json
        GET /docs
        GET /health
        GET /metrics
        GET /ready"]]
    .assert_eq(&open.join("\n"));
    // The document tells the truth: what is guarded refuses who brings nothing, what is open does not.
    walk(&edge, "", |_, guarded| if guarded { &[401] } else { &[200] }).await;
    edge.stop().await;
}

#[tokio::test]
async fn a_tenant_is_no_admin_and_no_worker() {
    let edge = Edge::start().await;
    walk(&edge, "alice", |path, _| {
        if for_admins(path) || path == WORKER_SOCKET { &[403] } else { &[200, 204, 400, 404] }
    })
    .await;
    edge.stop().await;
}

#[tokio::test]
async fn a_worker_is_no_tenant_and_no_admin() {
    let edge = Edge::start().await;
    let token = edge.issue("worker").await;
    assert!(token.starts_with("wrk_"));
    walk(&edge, &token, |path, guarded| match guarded {
        false => &[],
        true if path == WORKER_SOCKET => &[400, 426],
        true => &[403],
    })
    .await;
    edge.stop().await;
}

#[tokio::test]
async fn registered_tenancy_knows_whom_an_admin_let_in() {
    let edge = Edge::start_with(|config| config.tenancy = Tenancy::Registered).await;
    walk(&edge, "alice", |_, guarded| if guarded { &[401] } else { &[] }).await;
    let token = edge.issue("tenant").await;
    edge.run(&token, "x").await;
    walk(&edge, &token, |path, _| if for_admins(path) { &[403] } else { &[] }).await;
    edge.stop().await;
}

#[tokio::test]
async fn a_token_is_shown_once_and_worth_nothing_once_revoked() {
    let edge = Edge::start().await;
    let made = edge.post(ADMIN, "/api/v1/tokens", &json!({"kind": "tenant", "label": "ci"})).await;
    let made = made.ok();
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    edge.run(token, "x").await;
    let list = edge.get(ADMIN, "/api/v1/tokens").await;
    assert_eq!(list.ok()["tokens"][0]["id"], made["id"]);
    assert!(!list.text.contains(token));

    // A second token of the same tenant sees the same runs.
    let body = json!({"kind": "tenant", "label": "new", "tenant_id": made["tenant_id"]});
    let second = edge.post(ADMIN, "/api/v1/tokens", &body).await.ok();
    let runs = edge.get(second["token"].as_str().unwrap(), "/api/v1/agent/runs").await.ok();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1);

    assert_eq!(edge.delete(ADMIN, &format!("/api/v1/tokens/{id}")).await.status, 204);
    assert_eq!(edge.delete(ADMIN, &format!("/api/v1/tokens/{id}")).await.status, 404);
    // Also with open tenancy: a text with our prefix that we do not know is nobody.
    assert_eq!(edge.get(token, "/api/v1/agent/runs").await.status, 401);
    for bad in [
        json!({"kind": "root", "label": "x"}),
        json!({"kind": "tenant", "label": ""}),
        json!({"kind": "worker", "label": "x", "tenant_id": "a"}),
        json!({"kind": "tenant", "label": "x", "admin": true}),
    ] {
        assert_eq!(edge.post(ADMIN, "/api/v1/tokens", &bad).await.problem().0, 400, "{bad}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn malformed_credentials_are_no_credentials() {
    let edge = Edge::start().await;
    let long = format!("Bearer {}", "x".repeat(600));
    for header in ["", "Bearer", "Bearer ", "Basic YTpi", "alice", "Bearer \u{e9}", long.as_str()] {
        let request = edge.request(Method::GET, "/api/v1/agent/runs", "");
        let answer = edge.send(request.header("authorization", header.as_bytes())).await;
        let expected = (401, "authentication_required".to_owned(), String::new());
        assert_eq!(answer.problem(), expected, "{header:?}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    let request = edge.request(Method::GET, "/api/v1/agent/runs", "");
    edge.send(request.header("authorization", "bearer alice")).await.ok();
    edge.stop().await;
}

#[tokio::test]
async fn workers_enter_by_the_same_rules() {
    let edge = Edge::start().await;
    let token = edge.issue("worker").await;
    for (token, status) in [(None, 401), (Some("alice"), 403), (Some("wrk_made_up"), 401)] {
        let error = FakeWorker::try_connect(&edge.root, token, "w-1").await.unwrap_err();
        assert_eq!(refusal(&error), Some(status), "{token:?}");
    }
    for (token, id) in [(token.as_str(), "w-1"), (ADMIN, "w-2")] {
        FakeWorker::connect(&edge.root, token, id, 1).await.close().await;
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_configuration_that_gives_containers_away_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        listen: ([0, 0, 0, 0], 0).into(),
        data_dir: folder.path().join("data"),
        ..Config::default()
    };
    let error = Plane::start(config, Clock::system(), Lifecycle::new()).await.unwrap_err();
    assert!(format!("{error:#}").contains("OZ_ALLOW_OPEN_TENANCY=1"), "{error:#}");
    assert!(!folder.path().join("data").exists(), "nothing was made");
}

#[tokio::test]
async fn another_encryption_key_is_noticed_at_the_start() {
    let key = |byte: &str| Some(secrecy::SecretString::from(byte.repeat(32)));
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let edge = Edge::start_with(|config| {
        config.encryption_key = key("ab");
        config.data_dir = data.clone();
    })
    .await;
    let url = format!("sqlite:{}/ozma.db", data.display());
    let data_dir = folder.path().join("other");
    let config_of = |key: Option<secrecy::SecretString>| Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: data_dir.clone(),
        database_url: Some(secrecy::SecretString::from(url.clone())),
        encryption_key: key,
        ..Config::default()
    };
    // While the first one runs, no other plane takes its database, with whichever key.
    let second = Plane::start(config_of(key("ab")), Clock::system(), Lifecycle::new()).await;
    let error = format!("{:#}", second.unwrap_err());
    assert!(error.contains("another plane runs on this SQLite database"), "{error}");
    edge.stop().await;
    let life = Lifecycle::new();
    let error = Plane::start(config_of(key("cd")), Clock::system(), life).await.unwrap_err();
    assert!(format!("{error:#}").contains("encryption key"), "{error:#}");
}

#[tokio::test]
async fn values_are_for_the_owner_and_the_admin() {
    let edge = Edge::start().await;
    let secret = json!({"name": "a", "docker_image": "x", "env_vars": {"KEY": "hunter2"}});
    let id = edge.environment("alice", &secret).await;
    for token in ["alice", ADMIN] {
        let one = edge.get(token, &format!("/api/v1/environments/{id}")).await.ok();
        assert_eq!(one["env_vars"]["KEY"], "hunter2");
    }
    assert_eq!(edge.get("bob", &format!("/api/v1/environments/{id}")).await.status, 404);

    // A tenant's wish for a global one is ignored; an admin's is granted, and everyone reads it.
    let global = json!({"name": "g", "docker_image": "x", "scope": "GLOBAL"});
    let own = edge.post("alice", "/api/v1/environments", &global).await.ok();
    assert_eq!(own["scope"], "OWNER");
    let shared = edge.environment(ADMIN, &global).await;
    let path = format!("/api/v1/environments/{shared}");
    assert_eq!(edge.get("bob", &path).await.ok()["scope"], "GLOBAL");
    assert_eq!(edge.put("bob", &path, &global).await.problem().0, 403);
    assert_eq!(edge.delete("bob", &path).await.problem().0, 403);
    let run: Value = json!({"prompt": "x", "config": {"environment_id": shared}});
    edge.post("bob", "/api/v1/agent/runs", &run).await.ok();
    edge.stop().await;
}
