//! What a follow-up takes from the last run, field by field, when environment, ceilings or place have changed since.

use protocol::{link::TaskAssignment, spec::ProviderKind};
use secrecy::SecretString;
use serde_json::{Value, json};
use test_support::worker::FakeWorker;

use crate::{
    base::{Db, on_both},
    conversations::{RUNS, complete, edge, spec, worker},
    edge::Edge,
    step::{output, rewrite},
};

on_both!(
    what_is_left_open_of_a_harness_is_the_last_run_s,
    a_ceiling_that_was_lowered_bounds_what_is_inherited,
    models_of_another_provider_are_not_taken,
    a_worker_that_was_asked_for_is_asked_for_again,
    a_hidden_value_goes_nowhere_else,
);

async fn made(edge: &Edge, prompt: &str, config: Value) -> String {
    let body = json!({"prompt": prompt, "config": config});
    edge.post("bob", RUNS, &body).await.ok()["run_id"].as_str().unwrap().to_owned()
}

async fn done(worker: &mut FakeWorker) -> TaskAssignment {
    let task = worker.next_assignment().await;
    complete(worker, &task, &[output("hi")]).await;
    task
}

/// Goes on, and what the worker is given then.
async fn next(
    edge: &Edge,
    first: &str,
    config: Option<Value>,
    worker: &mut FakeWorker,
) -> TaskAssignment {
    match config {
        None => {
            let path = format!("{RUNS}/{first}/followups");
            edge.post("bob", &path, &json!({"message": "go on"})).await.ok();
        }
        Some(config) => {
            let body = json!({"prompt": "go on", "conversation_id": first, "config": config});
            edge.post("bob", RUNS, &body).await.ok();
        }
    }
    done(worker).await
}

async fn what_is_left_open_of_a_harness_is_the_last_run_s(db: Db) {
    let edge = edge(&db).await;
    let mut keeper = worker(&edge, "w-1").await;
    let harness = json!({"type": "codex", "model_id": "m-5", "reasoning_level": "high"});
    let first = made(&edge, "one", json!({"harness": harness, "model_id": "beside"})).await;
    done(&mut keeper).await;
    for (config, model) in [
        (None, "m-5"),
        (Some(json!({"harness": {"type": "codex"}})), "m-5"),
        (Some(json!({"harness": {"type": "", "reasoning_level": "low"}})), "m-5"),
        (Some(json!({"harness": {"model_id": "m-6"}})), "m-6"),
        (Some(json!({"model_id": "m-7", "harness": {"type": "codex"}})), "m-7"),
        (Some(json!({"model_id": "m-8", "harness": {"model_id": "m-9"}})), "m-9"),
    ] {
        let said = format!("{config:?}");
        let task = next(&edge, &first, config, &mut keeper).await;
        let harness = &spec(&task).harness;
        let seen = (harness.provider, harness.model.as_deref());
        assert_eq!(seen, (ProviderKind::Codex, Some(model)), "{said}");
    }
    let last = next(&edge, &first, None, &mut keeper).await.task_id;
    let run = edge.get("bob", &format!("{RUNS}/{last}")).await.ok();
    let shown = json!({"type": "codex", "model_id": "m-9", "reasoning_level": "low"});
    assert_eq!(run["agent_config"]["harness"], shown);
    keeper.close().await;
    edge.stop().await;
}

async fn a_ceiling_that_was_lowered_bounds_what_is_inherited(db: Db) {
    let url = db.url.clone();
    let edge = Edge::start_with(|config| {
        config.database_url = Some(SecretString::from(url));
        config.max_run_secs = 600;
    })
    .await;
    let mut keeper = worker(&edge, "w-1").await;
    let first = made(&edge, "one", json!({"timeout_secs": 599})).await;
    done(&mut keeper).await;
    // As if more had been allowed when it was made.
    let core = edge.plane.core();
    rewrite(core, "update runs set config = replace(config, '599', '6000') where id = $1", &first)
        .await;
    let task = next(&edge, &first, None, &mut keeper).await;
    assert_eq!(spec(&task).timeouts.run_secs, 600);
    let body = json!({"prompt": "x", "conversation_id": first, "config": {"timeout_secs": 601}});
    let (status, _, field) = edge.post("bob", RUNS, &body).await.problem();
    assert_eq!((status, field.as_str()), (422, "config.timeout_secs"));
    keeper.close().await;
    edge.stop().await;
}

async fn models_of_another_provider_are_not_taken(db: Db) {
    let edge = edge(&db).await;
    let mut keeper = worker(&edge, "w-1").await;
    let with = |harness: Value| json!({"name": "e", "docker_image": "x", "harness": harness});
    let claude = json!({"type": "claude", "model_id": "fast", "model_map": {"fast": "m-5"}});
    let environment = edge.environment("bob", &with(claude)).await;
    let first = made(&edge, "one", json!({"environment_id": environment})).await;
    done(&mut keeper).await;
    let path = format!("/api/v1/environments/{environment}");
    for (harness, model) in [
        (json!({"type": "codex", "model_id": "fast", "model_map": {"fast": "g-1"}}), "m-5"),
        (json!({"type": "claude", "model_id": "m-6"}), "m-6"),
        (json!({"type": "gemini", "model_id": "g-2"}), "m-6"),
    ] {
        edge.put("bob", &path, &with(harness)).await.ok();
        let task = next(&edge, &first, None, &mut keeper).await;
        let harness = &spec(&task).harness;
        let seen = (harness.provider, harness.mapped_model());
        assert_eq!(seen, (ProviderKind::Claude, Some(model)));
    }
    keeper.close().await;
    edge.stop().await;
}

async fn a_worker_that_was_asked_for_is_asked_for_again(db: Db) {
    let edge = edge(&db).await;
    let first = made(&edge, "one", json!({"worker_host": "w-1"})).await;
    edge.post("bob", &format!("{RUNS}/{first}/cancel"), &json!({})).await.ok();
    let path = format!("{RUNS}/{first}/followups");
    let made = edge.post("bob", &path, &json!({"message": "two"})).await.ok();
    let mut other = worker(&edge, "w-2").await;
    let why = edge.get("bob", &format!("{RUNS}/{}/why", made["run_id"].as_str().unwrap())).await;
    let why = why.ok();
    assert_eq!(why["message"], "it asks for worker w-1, which is not connected");
    let mut asked = worker(&edge, "w-1").await;
    assert_eq!(done(&mut asked).await.task_id.as_str(), made["run_id"]);
    // Another word wins, as long as nothing is kept anywhere.
    let first = self::made(&edge, "one", json!({"worker_host": "w-3"})).await;
    edge.post("bob", &format!("{RUNS}/{first}/cancel"), &json!({})).await.ok();
    next(&edge, &first, Some(json!({"worker_host": "w-2"})), &mut other).await;
    asked.close().await;
    other.close().await;
    edge.stop().await;
}

async fn a_hidden_value_goes_nowhere_else(db: Db) {
    const HIDDEN: &str = "<redacted>";
    let edge = edge(&db).await;
    let with = |servers: Value| json!({"name": "e", "docker_image": "x", "harness": {"mcp_servers": servers}});
    let own = json!({
        "files": {"command": "serve", "args": ["-v"], "env": {"TOKEN": "hunter2"}},
        "web": {"url": "https://h/mcp", "headers": {"TOKEN": "hunter2"}},
    });
    let environment = edge.environment("bob", &with(own)).await;
    let path = format!("/api/v1/environments/{environment}");
    for elsewhere in [
        json!({"files": {"command": "curl", "args": ["-v"], "env": {"TOKEN": HIDDEN}}}),
        json!({"files": {"command": "serve", "args": ["-v", "-x"], "env": {"TOKEN": HIDDEN}}}),
        json!({"web": {"url": "https://other/mcp", "headers": {"TOKEN": HIDDEN}}}),
        json!({"web": {"command": "https://h/mcp", "env": {"TOKEN": HIDDEN}}}),
    ] {
        let refused = edge.put("bob", &path, &with(elsewhere)).await;
        let (status, _, field) = refused.problem();
        assert_eq!((status, field.as_str()), (422, "harness.mcp_servers"), "{}", refused.text);
        assert!(refused.text.contains("send the value itself"), "{}", refused.text);
    }
    // Beside what is new, what did not change stays.
    let changed = json!({
        "files": {"command": "other", "env": {"TOKEN": "hunter3"}},
        "web": {"url": "https://h/mcp", "headers": {"TOKEN": HIDDEN, "X-New": "1"}},
    });
    edge.put("bob", &path, &with(changed)).await.ok();
    edge.stop().await;
}
