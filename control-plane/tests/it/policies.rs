//! What environments and runs may choose: bounds, retries, tags and priority; each refusal names field and rule, and
//! what holds is shown.

use control_plane::{Config, store::Part};
use futures_util::StreamExt;
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use test_support::{wait::eventually, worker::FakeWorker};

use crate::edge::{ADMIN, Edge};

const RUNS: &str = "/api/v1/agent/runs";
const ENVIRONMENTS: &str = "/api/v1/environments";

fn run_with(field: &str, value: &Value) -> Value {
    json!({"prompt": "x", "config": {field: value}})
}

fn environment_with(field: &str, value: &Value) -> Value {
    json!({"name": "a", "docker_image": "x", field: value})
}

#[tokio::test]
async fn choices_that_cannot_be_are_refused_by_name() {
    let edge = Edge::start_with(|config: &mut Config| {
        config.max_run_secs = 600;
        config.max_queue_secs = 60;
    })
    .await;
    let many: Vec<String> = (0..17).map(|n| format!("t{n}")).collect();
    let both = [
        ("timeout_secs", json!(0), 400, "timeout_secs", "1 to 604800"),
        ("timeout_secs", json!(601), 422, "timeout_secs", "600, this plane's max_run_secs"),
        ("queue_timeout_secs", json!(61), 422, "queue_timeout_secs", "max_queue_secs"),
        ("setup_timeout_secs", json!(604_801), 400, "setup_timeout_secs", "604800"),
        ("image_timeout_secs", json!(0), 400, "image_timeout_secs", "1 to"),
        ("retry", json!({"max_attempts": 0}), 400, "retry.max_attempts", "1 to 10"),
        ("retry", json!({"max_attempts": 11}), 400, "retry.max_attempts", "1 to 10"),
        ("retry", json!({"on": ["luck"]}), 400, "retry.on[0]", "`worker_lost`, `image_pull`"),
        ("retry", json!({"attempts": 3}), 400, "retry.attempts", "unknown field"),
        ("worker_tags", json!(many), 400, "worker_tags", "at most 16"),
        ("worker_tags", json!(["ok", "a b"]), 400, "worker_tags[1]", "1 to 64"),
        ("worker_tags", json!([""]), 400, "worker_tags[0]", "1 to 64"),
        ("worker_tags", json!(["x".repeat(65)]), 400, "worker_tags[0]", "1 to 64"),
    ];
    let check = async |path: &str, body: Value, status: u16, field: &str, rule: &str| {
        let answer = edge.post("alice", path, &body).await;
        let (got, _, named) = answer.problem();
        assert_eq!((got, named.as_str()), (status, field), "{body}: {}", answer.text);
        assert!(answer.json()["detail"].as_str().unwrap().contains(rule), "{}", answer.text);
    };
    for (name, value, status, field, rule) in &both {
        check(RUNS, run_with(name, value), *status, &format!("config.{field}"), rule).await;
        check(ENVIRONMENTS, environment_with(name, value), *status, field, rule).await;
    }
    for priority in [-101, 101] {
        let body = run_with("priority", &json!(priority));
        check(RUNS, body, 400, "config.priority", "-100 to 100").await;
    }
    assert_eq!(edge.count_runs().await, 0);
    edge.stop().await;
}

#[tokio::test]
async fn what_holds_for_a_run_is_its_own_word_then_its_environment_s_then_the_plane_s() {
    let edge = Edge::start_with(|config: &mut Config| {
        config.setup_timeout_secs = 77;
        config.max_image_secs = 500;
        config.max_attempts = 4;
    })
    .await;
    let body = json!({"name": "a", "docker_image": "x", "timeout_secs": 300, "queue_timeout_secs": 30,
        "image_timeout_secs": 400, "worker_tags": ["gpu", "eu", "gpu"], "retry": {"on": ["oom", "oom"]}});
    let made = edge.post("alice", ENVIRONMENTS, &body).await.ok();
    let shown =
        edge.get("alice", &format!("{ENVIRONMENTS}/{}", made["id"].as_str().unwrap())).await.ok();
    assert_eq!(shown["worker_tags"], json!(["eu", "gpu"]));
    assert_eq!(shown["retry"], json!({"on": ["oom"]}));
    assert_eq!((&shown["timeout_secs"], &shown["queue_timeout_secs"]), (&json!(300), &json!(30)));
    assert!(shown.get("setup_timeout_secs").is_none(), "nobody chose it");

    let config = json!({"environment_id": made["id"], "timeout_secs": 200, "priority": -5,
        "retry": {"max_attempts": 2}, "worker_tags": []});
    let run = edge.post("alice", RUNS, &json!({"prompt": "x", "config": config})).await.ok();
    let run = edge.get("alice", &format!("{RUNS}/{}", run["run_id"].as_str().unwrap())).await.ok();
    assert_eq!(run["agent_config"], config, "what was asked for is shown as it came");
    assert_eq!((&run["priority"], &run["max_attempts"]), (&json!(-5), &json!(2)));
    let policy = json!({"timeout_secs": 200, "queue_timeout_secs": 30, "image_timeout_secs": 400,
        "setup_timeout_secs": 77, "retry_on": ["oom"]});
    assert_eq!(run["policy"], policy);

    let bare = edge.run("alice", "x").await;
    let bare = edge.get("alice", &format!("{RUNS}/{bare}")).await.ok();
    assert_eq!((&bare["max_attempts"], &bare["priority"]), (&json!(4), &json!(0)));
    // The plane's own default lies above its ceiling: the ceiling holds.
    assert_eq!(bare["policy"]["image_timeout_secs"], 500);
    // A worker is told the same.
    let mut worker = FakeWorker::connect(&edge.root, ADMIN, "w-1", 2).await;
    for _ in 0..2 {
        let timeouts = worker.next_assignment().await.spec.unwrap().timeouts;
        assert_eq!(timeouts.setup_secs, 77);
        assert!(matches!(timeouts.image_secs, 400 | 500));
    }
    edge.stop().await;
}

#[tokio::test]
async fn metrics_can_ask_for_a_token() {
    let token = "scrape-me-please";
    let edge = Edge::start_with(|config: &mut Config| {
        config.metrics_token = Some(SecretString::from(token.to_owned()));
    })
    .await;
    for (wrong, status) in [("", 401), ("alice", 401)] {
        assert_eq!(edge.get(wrong, "/metrics").await.problem().0, status, "{wrong:?}");
    }
    for right in [token, ADMIN] {
        let page = edge.get(right, "/metrics").await;
        assert_eq!(page.status, 200);
        for name in [
            "ozma_runs{state=\"INPROGRESS\"} 0",
            "# TYPE ozma_executions_failed_total counter",
            "# TYPE ozma_runs_requeued_total counter",
            "ozma_superseded_facts_total 0",
            "ozma_queue_wait_seconds_bucket{le=\"+Inf\"} 0",
            "ozma_run_duration_seconds_count 0",
            "ozma_retention_runs_deleted_total 0",
            "ozma_retention_last_sweep_timestamp_seconds 0",
            "ozma_event_streams 0",
        ] {
            assert!(page.text.contains(name), "{name} is not in\n{}", page.text);
        }
    }
    // It opens nothing else.
    assert_eq!(edge.get(token, "/api/v1/tokens").await.problem().0, 403);
    edge.stop().await;
}

#[tokio::test]
async fn events_that_are_kept_no_longer_are_410_and_the_run_is_not() {
    let edge = Edge::start().await;
    let run = edge.run("alice", "x").await;
    edge.send(edge.request(Method::POST, &format!("{RUNS}/{run}/cancel"), "alice")).await.ok();
    let path = format!("{RUNS}/{run}/events");
    assert_eq!(edge.get("alice", &path).await.ok()["events"].as_array().unwrap().len(), 2);
    let ids = [run.parse().unwrap()];
    let store = &edge.plane.core().store;
    let swept = store.sweep(&ids, Part::Events, i64::MAX, || false).await.unwrap();
    assert_eq!((swept.events, swept.runs), (2, 0));
    for kind in ["application/json", "text/event-stream"] {
        let asked = edge.request(Method::GET, &path, "alice").header("accept", kind);
        let answer = edge.send(asked).await;
        assert_eq!(answer.problem(), (410, "resource_not_found".to_owned(), String::new()));
        assert_eq!(answer.json()["retryable"], false);
    }
    assert_eq!(edge.get("bob", &path).await.status, 404);
    // Who had read to the end may ask again.
    assert_eq!(edge.get("alice", &format!("{path}?after=2")).await.status, 200);
    assert_eq!(edge.get("alice", &format!("{RUNS}/{run}")).await.ok()["state"], "CANCELLED");
    edge.stop().await;
}

#[tokio::test]
async fn one_tenant_follows_so_many_streams_and_no_more() {
    let edge = Edge::start_with(|config: &mut Config| config.max_streams = 2).await;
    let (run, other) = (edge.run("alice", "x").await, edge.run("bob", "x").await);
    let follow = async |token: &str, run: &str| {
        let path = format!("{RUNS}/{run}/events");
        let request = edge.request(Method::GET, &path, token);
        request.header("accept", "text/event-stream").send().await.unwrap()
    };
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = follow("alice", &run).await.bytes_stream();
        stream.next().await.unwrap().unwrap();
        open.push(stream);
    }
    let refused = follow("alice", &run).await;
    assert_eq!(refused.status().as_u16(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    // Others are not touched by it, and pages are no streams.
    assert_eq!(follow("bob", &other).await.status().as_u16(), 200);
    edge.get("alice", &format!("{RUNS}/{run}/events")).await.ok();
    assert!(edge.get("", "/metrics").await.text.contains("ozma_event_streams 2"));
    drop(open);
    eventually("a place is free again", async || {
        (follow("alice", &run).await.status().as_u16() == 200).then_some(())
    })
    .await;
    edge.stop().await;
}
