//! Limits and drains over HTTP, as an admin uses them.

use reqwest::Method;
use serde_json::json;
use test_support::worker::FakeWorker;

use crate::edge::{ADMIN, Edge};

#[tokio::test]
async fn an_admin_limits_a_tenant() {
    let edge = Edge::start_with(|config| config.max_queued_runs = 2).await;
    for _ in 0..2 {
        edge.run("alice", "x").await;
    }
    let third = edge.post("alice", "/api/v1/agent/runs", &json!({"prompt": "x"})).await;
    assert_eq!(third.problem(), (429, "resource_unavailable".to_owned(), String::new()));
    assert_eq!(third.header("retry-after"), "2");

    let list = edge.get(ADMIN, "/api/v1/tenants").await.ok();
    let alice = list["tenants"][0]["tenant_id"].as_str().unwrap().to_owned();
    let expected = json!({"tenants": [{
        "tenant_id": alice, "queued": 2, "running": 0, "max_queued_runs": 2, "max_running_runs": 0,
        "own_limits": {},
    }]});
    assert_eq!(list, expected);

    let path = format!("/api/v1/tenants/{alice}/limits");
    let set = edge.put(ADMIN, &path, &json!({"max_queued_runs": 3, "max_running_runs": 1})).await;
    assert_eq!(set.ok(), edge.get(ADMIN, &path).await.ok());
    assert_eq!(set.json()["own_limits"], json!({"max_queued_runs": 3, "max_running_runs": 1}));
    edge.run("alice", "x").await;
    let mut worker = FakeWorker::connect(&edge.root, ADMIN, "w1", 5).await;
    let first = worker.next_assignment().await;
    let run = edge.run("alice", "waits").await;
    let why = edge.get("alice", &format!("/api/v1/agent/runs/{run}/why")).await.ok();
    assert_eq!(
        (&why["code"], &why["running"], &why["max_running"]),
        (&"tenant_limit".into(), &1.into(), &1.into())
    );
    worker.claim(&first).await;
    worker.complete(&first).await;
    worker.next_assignment().await;

    assert_eq!(edge.delete(ADMIN, &path).await.status, 204);
    assert_eq!(edge.get(ADMIN, &path).await.ok()["own_limits"], json!({}));
    // Without the limit the rest is handed over at once.
    worker.next_assignment().await;
    worker.next_assignment().await;

    for (body, field) in
        [(json!({"max_queued_runs": -1}), "max_queued_runs"), (json!({"max": 1}), "max")]
    {
        let refused = edge.put(ADMIN, &path, &body).await.problem();
        assert_eq!((refused.0, refused.2.as_str()), (400, field));
    }
    let nobody = edge.get(ADMIN, "/api/v1/tenants/a%20b/limits").await.problem();
    assert_eq!(nobody.0, 404);
    let foreign = edge.get("bob", &format!("/api/v1/agent/runs/{run}/why")).await;
    assert_eq!(foreign.problem().0, 404);
    worker.close().await;
    edge.stop().await;
}

#[tokio::test]
async fn an_admin_drains_a_worker_and_sees_it() {
    let edge = Edge::start().await;
    let mut worker = FakeWorker::connect(&edge.root, ADMIN, "rack 1", 3).await;
    edge.run("alice", "x").await;
    let task = worker.next_assignment().await;
    worker.claim(&task).await;
    let path = "/api/v1/workers/rack%201/drain";
    let drained = edge.post(ADMIN, path, &json!({})).await.ok();
    assert_eq!((&drained["worker_id"], &drained["running"]), (&"rack 1".into(), &1.into()));
    let list = edge.get(ADMIN, "/api/v1/workers").await.ok();
    assert_eq!(list["drained"], json!([drained]));
    let view = &list["workers"][0];
    assert_eq!((&view["draining"], &view["free"]), (&true.into(), &0.into()));
    assert_eq!(view["drained_since"], drained["since"]);

    assert_eq!(edge.send(edge.request(Method::DELETE, path, ADMIN)).await.status, 204);
    let list = edge.get(ADMIN, "/api/v1/workers").await.ok();
    let view = &list["workers"][0];
    assert_eq!(
        (&view["draining"], &view["running"], &view["free"]),
        (&false.into(), &1.into(), &2.into())
    );
    worker.close().await;
    edge.stop().await;
}
