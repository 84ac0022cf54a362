//! Two tenants cannot see each other's runs, environments, events or artifacts by any route: a foreign id answers
//! exactly as an unknown one. The routes are taken from the document, so that a new one is tried as well.

use control_plane::Config;
use protocol::event::{Artifact, Event, EventSource};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use test_support::worker::{FakeWorker, numbered};

use crate::edge::{ADMIN, Edge};

/// What Bob has.
struct Belongings {
    run: String,
    environment: String,
    artifact: String,
}

const UNKNOWN: &str = "0198c5f0-0000-7000-8000-00000000dead";
const MARK: &str = "bobs-secret-mark";

async fn belongings(edge: &Edge) -> Belongings {
    let body = json!({"name": MARK, "docker_image": "x", "env_vars": {"KEY": MARK}});
    let environment = edge.environment("bob", &body).await;
    let body = json!({"prompt": MARK, "config": {"environment_id": environment}});
    let made = edge.post("bob", "/api/v1/agent/runs", &body).await.ok();
    let run = made["run_id"].as_str().unwrap().to_owned();

    let mut worker = FakeWorker::connect(&edge.root, ADMIN, "w-1", 1).await;
    let task = worker.next_assignment().await;
    worker.claim(&task).await;
    let artifact = format!("{}-artifact", &run[..8]);
    let file = Artifact {
        artifact_uid: artifact.parse().unwrap(),
        artifact_type: "FILE".to_owned(),
        filename: Some(format!("../{MARK}\".txt")),
        filepath: Some("a.txt".to_owned()),
        mime_type: Some("text/plain".to_owned()),
        description: None,
        size_bytes: Some(MARK.len() as u64),
        sha256: Some(hex::encode(Sha256::digest(MARK))),
        url: None,
        branch: None,
    };
    let part = Event::ArtifactPart {
        artifact_uid: file.artifact_uid.clone(),
        index: 0,
        base64: base64_of(MARK),
    };
    let events = numbered(1, &[part, Event::Artifact(file)]);
    worker.send_events(&task.execution_id, EventSource::Sidecar, events).await;
    worker.complete(&task).await;
    worker.report_acked(&task.execution_id).await;
    worker.close().await;
    Belongings { run, environment, artifact }
}

fn base64_of(text: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(text)
}

/// Every operation with an id in its path, and the path with the given ids filled in.
fn with_ids(document: &Value, ids: &Belongings) -> Vec<(Method, String)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let filled = path
            .replace("{run_id}", &ids.run)
            .replace("{environment_id}", &ids.environment)
            .replace("{artifact_uid}", &ids.artifact)
            .replace("{token_id}", UNKNOWN)
            .replace("{worker_id}", "w-1")
            .replace("{tenant_id}", "bob")
            .replace("{session_id}", &ids.run)
            .replace("{conversation_id}", &ids.run);
        assert!(!filled.contains('{'), "{path} has an id this test does not know");
        for method in item.as_object().unwrap().keys().filter(|_| filled != *path) {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            found.push((method, filled.clone()));
        }
    }
    assert!(found.len() >= 9, "the document has lost its operations");
    found
}

async fn isolation(change: impl FnOnce(&mut Config)) {
    let edge = Edge::start_with(change).await;
    let bobs = belongings(&edge).await;
    let nobodys = Belongings {
        run: UNKNOWN.to_owned(),
        environment: "env_dead".to_owned(),
        artifact: UNKNOWN.to_owned(),
    };
    let document = edge.get("", "/api/v1/openapi.json").await.ok();
    let foreign = with_ids(&document, &bobs);
    let unknown = with_ids(&document, &nobodys);
    let body = json!({"name": "a", "docker_image": "x"});
    for ((method, path), (_, nowhere)) in foreign.iter().zip(&unknown) {
        let ask = async |path: &str| {
            let request = edge.request(method.clone(), path, "alice").json(&body);
            edge.send(request.header("x-request-id", "same")).await
        };
        let (theirs, none) = (ask(path).await, ask(nowhere).await);
        let blank = |text: &str, path: &str| text.replace(path, "PATH");
        assert_eq!(theirs.status, none.status, "{method} {path}");
        assert_eq!(blank(&theirs.text, path), blank(&none.text, nowhere), "{method} {path}");
        let names = |answer: &crate::edge::Answer| {
            let mut names: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(names(&theirs), names(&none), "{method} {path}");
    }
    lists_and_references(&edge, &bobs).await;
    bob_still_has_it(&edge, &bobs).await;
    edge.stop().await;
}

/// By lists, filters and bodies neither.
async fn lists_and_references(edge: &Edge, bobs: &Belongings) {
    let run = &bobs.run;
    for path in [
        "/api/v1/agent/runs".to_owned(),
        format!("/api/v1/agent/runs?q={MARK}"),
        format!("/api/v1/agent/runs?environment_id={}", bobs.environment),
        format!("/api/v1/agent/runs?ancestor_run_id={run}"),
        "/api/v1/agent/runs?artifact_type=FILE".to_owned(),
        "/api/v1/environments".to_owned(),
        "/api/v1/agent/environments".to_owned(),
        "/metrics".to_owned(),
    ] {
        let answer = edge.get("alice", &path).await;
        assert_eq!(answer.status, 200, "{path}");
        for mark in [MARK, run, &bobs.environment, &bobs.artifact] {
            assert!(!answer.text.contains(mark), "{path} shows {mark}");
        }
    }
    for (body, status) in [
        (json!({"prompt": "x", "config": {"environment_id": bobs.environment}}), 404),
        (json!({"prompt": "x", "parent_run_id": run}), 400),
    ] {
        assert_eq!(edge.post("alice", "/api/v1/agent/runs", &body).await.problem().0, status);
    }
}

/// Nothing Alice tried changed anything, and the owner and the admin do see it.
async fn bob_still_has_it(edge: &Edge, bobs: &Belongings) {
    for token in ["bob", ADMIN] {
        let run = edge.get(token, &format!("/api/v1/agent/runs/{}", bobs.run)).await.ok();
        assert_eq!(run["state"], "SUCCEEDED", "{run}");
        assert_eq!(run["artifacts"][0]["data"]["artifact_uid"], bobs.artifact.as_str());
        let environment =
            edge.get(token, &format!("/api/v1/environments/{}", bobs.environment)).await;
        assert_eq!(environment.ok()["env_vars"]["KEY"], MARK);
    }
    let path = format!("/api/v1/agent/artifacts/{}", bobs.artifact);
    let view = edge.get("bob", &path).await.ok();
    let address = format!("{}{path}/content", edge.root);
    assert_eq!(view["data"]["download_url"], address.as_str());
    let content = edge.get("bob", &format!("{path}/content")).await;
    assert_eq!(content.text, MARK);
    let disposition = content.header("content-disposition");
    assert!(
        disposition.starts_with("attachment; filename=\"bobs-secret-mark_.txt\""),
        "{disposition}"
    );
    assert_eq!(content.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn tenants_cannot_see_each_other_on_sqlite() {
    isolation(|_| {}).await;
}

#[tokio::test]
async fn tenants_cannot_see_each_other_on_postgres() {
    let database = test_support::postgres::database().await;
    let url = database.url.clone();
    isolation(move |config| config.database_url = Some(SecretString::from(url))).await;
}
