//! The shapes the Oz SDKs read, as inline snapshots, and what surrounds every answer.

use expect_test::{Expect, expect};
use reqwest::Method;
use serde_json::{Value, json};

use crate::edge::{ADMIN, Edge};

/// The answer with what differs from run to run replaced.
#[track_caller]
fn check(body: &Value, expected: &Expect) {
    let mut body = body.clone();
    scrub(&mut body);
    expected.assert_eq(&serde_json::to_string_pretty(&body).expect("JSON"));
}

fn scrub(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let varies = key.ends_with("_at")
                    || key == "last_updated"
                    || key == "queue_until"
                    || key == "id"
                    || key == "uid"
                    || key == "trace_id"
                    || key == "request_id"
                    || (key.ends_with("_id") && key != "worker_id")
                    || key == "next_cursor";
                if varies && value.is_string() {
                    *value = json!("…");
                } else {
                    scrub(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(scrub),
        _ => {}
    }
}

#[tokio::test]
async fn both_create_paths_answer_alike() {
    let edge = Edge::start().await;
    for path in ["/api/v1/agent/run", "/api/v1/agent/runs"] {
        let made = edge.post("alice", path, &json!({"prompt": "fix the build"})).await.ok();
        assert_eq!(made["run_id"], made["task_id"]);
        check(
            &made,
            &expect![[r#"
                {
                  "at_capacity": true,
                  "run_id": "…",
                  "state": "QUEUED",
                  "task_id": "…"
                }"#]],
        );
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_run_reads_as_the_sdks_expect() {
    let edge = Edge::start().await;
    let body = json!({
        "prompt": "fix the build\nplease",
        "config": {"name": "nightly", "model_id": "m-1", "worker_host": "warp"},
        "metadata": {"ticket": "V-1"},
    });
    let made = edge.post("alice", "/api/v1/agent/runs", &body).await.ok();
    let id = made["run_id"].as_str().unwrap();
    let run = edge.get("alice", &format!("/api/v1/agent/runs/{id}")).await.ok();
    check(
        &run,
        &expect![[r#"
            {
              "agent_config": {
                "model_id": "…",
                "name": "nightly",
                "worker_host": "warp"
              },
              "artifacts": [],
              "attempt": 0,
              "cancelling": false,
              "conversation_id": "…",
              "created_at": "…",
              "execution_location": "REMOTE",
              "is_run_type_cancellable": true,
              "is_sandbox_running": false,
              "max_attempts": 3,
              "metadata": {
                "ticket": "V-1"
              },
              "phases": {},
              "policy": {
                "image_timeout_secs": 1800,
                "queue_timeout_secs": 604800,
                "retry_on": [
                  "worker_lost",
                  "image_pull",
                  "rejected",
                  "platform"
                ],
                "setup_timeout_secs": 1800,
                "timeout_secs": 14400
              },
              "priority": 0,
              "prompt": "fix the build\nplease",
              "queue_until": "…",
              "run_id": "…",
              "source": "API",
              "state": "QUEUED",
              "task_id": "…",
              "title": "nightly",
              "updated_at": "…"
            }"#]],
    );
    edge.stop().await;
}

#[tokio::test]
async fn a_list_pages_by_cursor_and_filters() {
    let edge = Edge::start().await;
    let mut made = Vec::new();
    for nth in 0..5 {
        made.push(edge.run("alice", &format!("prompt {nth}")).await);
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/agent/runs?limit=2&sort_by=created_at&sort_order=asc".to_owned();
    loop {
        let page = edge.get("alice", &path).await.ok();
        let runs = page["runs"].as_array().unwrap();
        seen.extend(runs.iter().map(|run| run["run_id"].as_str().unwrap().to_owned()));
        let info = &page["page_info"];
        if info["has_next_page"] == false {
            assert!(info.get("next_cursor").is_none());
            break;
        }
        let cursor = info["next_cursor"].as_str().unwrap();
        path =
            format!("/api/v1/agent/runs?limit=2&sort_by=created_at&sort_order=asc&cursor={cursor}");
    }
    assert_eq!(seen, made);

    let queries = [
        ("state=QUEUED&state=FAILED", 5),
        ("state=FAILED", 0),
        ("state=IN_PROGRESS", 0),
        ("q=PROMPT+3", 1),
        ("environment_id=empty-environment", 5),
        ("created_after=2100-01-01T00%3A00%3A00%2B00%3A00", 0),
        ("metadata%5Bticket%5D=V-1", 0),
        ("name=nightly", 0),
    ];
    for (query, count) in queries {
        let page = edge.get("alice", &format!("/api/v1/agent/runs?{query}")).await.ok();
        assert_eq!(page["runs"].as_array().unwrap().len(), count, "{query}");
    }
    let answer = edge.get("alice", "/api/v1/agent/runs?creator=me&limit=1").await;
    assert_eq!(answer.header("x-ozma-ignored"), "creator");
    edge.stop().await;
}

#[tokio::test]
async fn a_cancel_answers_the_bare_id_whatever_the_body_is_said_to_be() {
    let edge = Edge::start().await;
    let id = edge.run("alice", "x").await;
    let path = format!("/api/v1/agent/runs/{id}/cancel");
    // As the Python SDK sends it: JSON is announced, and nothing comes.
    let request =
        edge.request(Method::POST, &path, "alice").header("content-type", "application/json");
    let answer = edge.send(request).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, format!("{id:?}").as_str()));
    assert_eq!(answer.header("content-type"), "application/json");
    let again = edge.send(edge.request(Method::POST, &path, "alice")).await;
    assert_eq!(again.problem(), (400, "invalid_request".to_owned(), String::new()));
    let run = edge.get("alice", &format!("/api/v1/agent/runs/{id}")).await.ok();
    assert_eq!(run["state"], "CANCELLED");
    edge.stop().await;
}

#[tokio::test]
async fn an_idempotency_key_makes_one_run() {
    let edge = Edge::start().await;
    let send = async |prompt: &str| {
        let request = edge.request(Method::POST, "/api/v1/agent/runs", "alice");
        edge.send(request.header("idempotency-key", "k-1").json(&json!({"prompt": prompt}))).await
    };
    let (first, second) = (send("a").await.ok(), send("a").await.ok());
    assert_eq!(first["run_id"], second["run_id"]);
    let other = send("b").await;
    assert_eq!(
        other.problem(),
        (422, "operation_not_supported".to_owned(), "Idempotency-Key".to_owned())
    );
    assert_eq!(edge.count_runs().await, 1);
    edge.stop().await;
}

#[tokio::test]
async fn a_repeated_request_is_answered_although_its_environment_is_gone() {
    let edge = Edge::start().await;
    let id = edge.environment("alice", &json!({"name": "e", "docker_image": "debian"})).await;
    let body = json!({"prompt": "a", "config": {"environment_id": id}});
    let send = async || {
        let request = edge.request(Method::POST, "/api/v1/agent/runs", "alice");
        edge.send(request.header("idempotency-key", "k-1").json(&body)).await
    };
    let first = send().await.ok();
    let deleted = edge.delete("alice", &format!("/api/v1/environments/{id}")).await;
    assert!(deleted.status < 300, "{}", deleted.text);
    assert_eq!(send().await.ok()["run_id"], first["run_id"]);
    edge.stop().await;
}

#[tokio::test]
async fn environments_are_made_read_changed_and_deleted() {
    let edge = Edge::start().await;
    let body = json!({
        "name": " shop ", "docker_image": "debian:bookworm-slim",
        "repos": "acme/shop\n\n https://github.com/acme/tools.git ",
        "setup_commands": ["make deps", " "],
        "env_vars": {"API_KEY": "line 1\nline 2"},
        "instance_shape": {"vcpus": 1.5, "memory_gb": 2},
        "harness": {"type": "command", "command": "make test"},
        "timeout_secs": 600, "network": "none", "artifacts": ["out/**"],
    });
    let made = edge.post("alice", "/api/v1/environments", &body).await.ok();
    check(
        &made,
        &expect![[r#"
            {
              "artifacts": [
                "out/**"
              ],
              "created_at": "…",
              "docker_image": "debian:bookworm-slim",
              "env_vars": {
                "API_KEY": "line 1\nline 2"
              },
              "environment_id": "…",
              "harness": {
                "command": "make test",
                "max_tokens": 2000000,
                "max_turns": 50,
                "type": "command"
              },
              "id": "…",
              "instance_shape": {
                "memory_gb": 2.0,
                "vcpus": 1.5
              },
              "name": "shop",
              "network": "none",
              "repos": [
                "acme/shop",
                "https://github.com/acme/tools.git"
              ],
              "scope": "OWNER",
              "setup_commands": [
                "make deps"
              ],
              "timeout_secs": 600,
              "updated_at": "…"
            }"#]],
    );
    let path = format!("/api/v1/environments/{}", made["id"].as_str().unwrap());
    assert_eq!(edge.get("alice", &path).await.ok(), made);
    assert_eq!(edge.get("alice", "/api/v1/environments").await.ok()["items"], json!([made]));
    check(
        &edge.get("alice", "/api/v1/agent/environments").await.ok(),
        &expect![[r#"
            {
              "environments": [
                {
                  "config": {
                    "docker_image": "debian:bookworm-slim",
                    "github_repos": [
                      {
                        "owner": "acme",
                        "repo": "shop"
                      },
                      {
                        "owner": "acme",
                        "repo": "tools"
                      }
                    ],
                    "name": "shop",
                    "setup_commands": [
                      "make deps"
                    ]
                  },
                  "last_updated": "…",
                  "setup_failed": false,
                  "uid": "…"
                }
              ]
            }"#]],
    );
    let changed = edge.put("alice", &path, &json!({"name": "b", "docker_image": "x"})).await.ok();
    assert_eq!((&changed["name"], &changed["env_vars"]), (&json!("b"), &json!({})));
    assert_eq!(edge.delete("alice", &path).await.status, 204);
    assert_eq!(edge.get("alice", &path).await.problem().0, 404);
    edge.stop().await;
}

#[tokio::test]
async fn what_this_version_lacks_is_answered_with_nothing() {
    let edge = Edge::start().await;
    assert_eq!(edge.get("alice", "/api/v1/agent?repo=a/b").await.ok(), json!({"agents": []}));
    for path in ["/api/v1/agent/sessions/x/redirect", "/api/v1/agent/conversations/y/redirect"] {
        assert_eq!(edge.get("", path).await.ok(), json!({}));
    }
    let workers = edge.get("alice", "/api/v1/agent/connected-self-hosted-workers").await.ok();
    assert_eq!(workers, json!({"workers": []}));
    edge.stop().await;
}

#[tokio::test]
async fn the_plane_says_how_it_is() {
    let edge = Edge::start().await;
    let health =
        edge.send(edge.request(Method::GET, "/health", "").header("x-oz-request-id", "r-1"));
    let health = health.await;
    assert_eq!(health.header("x-request-id"), "r-1");
    assert_eq!(health.header("cache-control"), "no-store");
    let body = health.ok();
    assert_eq!(
        (&body["ok"], &body["db"], &body["request_id"]),
        (&json!(true), &json!("ok"), &json!("r-1"))
    );
    assert_eq!(edge.get("", "/ready").await.ok()["ready"], true);
    let insane = edge.request(Method::GET, "/health", "").header("x-request-id", "a b");
    assert!(edge.send(insane).await.header("x-request-id").starts_with("req_"));

    edge.run("alice", "x").await;
    let metrics = edge.get("", "/metrics").await;
    for line in [
        "ozma_runs{state=\"QUEUED\"} 1",
        "ozma_queue_depth 1",
        "ozma_connected_workers 0",
        "ozma_runs_submitted_total 1",
        "ozma_http_request_duration_seconds_count{method=\"POST\",route=\"/api/v1/agent/runs\",status=\"200\"} 1",
    ] {
        assert!(metrics.text.contains(line), "{line} is not in\n{}", metrics.text);
    }
    let docs = edge.get("", "/docs").await;
    assert!(docs.header("content-security-policy").contains("default-src 'none'"));
    assert!(docs.text.contains("<title>Ozma API</title>"));
    edge.stop().await;
}

#[tokio::test]
async fn a_database_that_is_away_is_503_and_retryable() {
    let database = test_support::postgres::database().await;
    let url = Some(secrecy::SecretString::from(database.url.clone()));
    let edge = Edge::start_with(|config| config.database_url = url).await;
    edge.get("", "/health").await.ok();
    drop(database);
    let health = edge.get("", "/health").await;
    assert_eq!((health.status, &health.json()["db"]), (503, &json!("error")));
    assert_eq!(edge.get("", "/ready").await.status, 503);
    let answer = edge.get("alice", "/api/v1/agent/runs").await;
    assert_eq!(answer.problem(), (503, "resource_unavailable".to_owned(), String::new()));
    assert_eq!(
        (answer.json()["retryable"].clone(), answer.header("retry-after")),
        (json!(true), "2")
    );
    assert!(!answer.text.contains("ozma_test"), "the cause is for the log: {}", answer.text);
    assert!(edge.get("", "/metrics").await.text.contains("ozma_up_database 0"));
    edge.stop().await;
}

#[tokio::test]
async fn cors_is_off_until_origins_are_named() {
    let edge = Edge::start().await;
    let asked = edge.request(Method::GET, "/health", "").header("origin", "https://a.example");
    assert_eq!(edge.send(asked).await.header("access-control-allow-origin"), "");
    edge.stop().await;

    let origins = Some("https://a.example, https://b.example".to_owned());
    let edge = Edge::start_with(|config| config.cors_origin = origins).await;
    for (origin, allowed) in [("https://b.example", "https://b.example"), ("https://c.example", "")]
    {
        let asked = edge.request(Method::OPTIONS, "/api/v1/agent/runs", "");
        let asked = asked.header("origin", origin).header("access-control-request-method", "POST");
        assert_eq!(edge.send(asked).await.header("access-control-allow-origin"), allowed);
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_plane_makes_its_admin_key_when_it_is_given_none() {
    let edge = Edge::start_with(|config| config.admin_key = None).await;
    let path = edge.plane.admin_key_path().expect("it keeps the key");
    assert!(path.starts_with(edge.folder.path()));
    let key = std::fs::read_to_string(path).unwrap();
    edge.get(key.trim(), "/api/v1/tokens").await.ok();
    assert_eq!(edge.get(ADMIN, "/api/v1/tokens").await.problem().0, 403);
    edge.stop().await;
}
