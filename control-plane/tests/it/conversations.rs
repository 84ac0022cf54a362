//! Conversations: a run goes on with what an earlier one left, on the worker that keeps it, one at a time; and the
//! MCP servers a run takes along, whose values nobody sees again.

use std::{sync::Arc, time::Duration};

use control_plane::{
    core::Core,
    runs::{self, NewRun, SubmitError},
    store::Db as Database,
};
use protocol::{
    event::{Event, EventSource, Exit},
    failure::FailureReason,
    ids::RunId,
    link::TaskAssignment,
    retry::{FailureClass, RetryPolicy},
    run::RunState,
    spec::{McpServer, ProviderKind, RunSpec},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use test_support::worker::{FakeWorker, numbered};

use crate::{
    base::{Db, on_both, prompt, submit, tenant},
    edge::{ADMIN, Edge},
    step::{claim, claimed, failed, ingest, output, report, succeeded},
};

on_both!(
    a_conversation_goes_on_where_it_was,
    a_worker_that_is_away_is_named,
    what_was_never_kept_is_begun_anew_or_refused,
    a_conversation_is_its_owners,
    of_many_that_go_on_at_once_one_does,
    a_later_run_names_a_conversation_whose_first_is_gone,
    a_vendor_that_asks_for_time_gets_it,
    a_name_for_a_conversation_is_believed_within_limits,
    a_plane_may_keep_nothing_and_chooses_who_answers,
);

pub(crate) const RUNS: &str = "/api/v1/agent/runs";
const SESSION: &str = "7b1c1e46-6f0e-4a46-8a3c-1a8f0c6f3a10";
const SECRETS: [&str; 4] = ["hunter-env", "hunter-mcp", "hunter-header", "hunter-run"];

pub(crate) async fn edge(db: &Db) -> Edge {
    let url = db.url.clone();
    Edge::start_with(|config| config.database_url = Some(SecretString::from(url))).await
}

/// An environment with a value and two servers.
async fn shop(edge: &Edge) -> String {
    let body = json!({
        "name": "shop", "docker_image": "shop:1", "env_vars": {"KEY": SECRETS[0]},
        "worker_tags": ["gpu"],
        "harness": {
            "model_map": {"fast": "m-5"}, "idle_timeout_minutes": 5,
            "mcp_servers": {
                "files": {"command": "serve", "args": ["-v"], "env": {"TOKEN": SECRETS[1]}},
                "web": {"url": "https://h/mcp", "headers": {"Authorization": SECRETS[2]}},
            },
        },
    });
    edge.environment("bob", &body).await
}

pub(crate) async fn worker(edge: &Edge, id: &str) -> FakeWorker {
    let hello =
        protocol::link::Hello { tags: vec!["gpu".to_owned()], ..test_support::worker::hello(1) };
    FakeWorker::connect_with(&edge.root, ADMIN, id, hello).await
}

fn session() -> Event {
    Event::Session { provider: "claude".to_owned(), session_id: SESSION.to_owned() }
}

pub(crate) async fn complete(worker: &mut FakeWorker, task: &TaskAssignment, events: &[Event]) {
    worker.claim(task).await;
    worker.send_events(&task.execution_id, EventSource::Sidecar, numbered(1, events)).await;
    worker.acked(&task.execution_id, EventSource::Sidecar, events.len() as u64).await;
    worker.complete(task).await;
    worker.report_acked(&task.execution_id).await;
}

pub(crate) fn spec(task: &TaskAssignment) -> &RunSpec {
    task.spec.as_ref().unwrap()
}

async fn a_conversation_goes_on_where_it_was(db: Db) {
    let edge = edge(&db).await;
    let environment = shop(&edge).await;
    let config = json!({
        "environment_id": environment, "model_id": "fast", "idle_timeout_minutes": 7,
        "mcp_servers": {"files": {"command": "other", "env": {"TOKEN": SECRETS[3]}}},
    });
    let made = edge.post("bob", RUNS, &json!({"prompt": "one", "config": config})).await.ok();
    let first = made["run_id"].as_str().unwrap().to_owned();
    let mut keeper = worker(&edge, "w-1").await;
    let task = keeper.next_assignment().await;
    let harness = &spec(&task).harness;
    assert_eq!(harness.provider, ProviderKind::Claude, "the plane's default");
    assert_eq!((harness.mapped_model(), harness.idle_secs), (Some("m-5"), Some(420)));
    let McpServer::Stdio { command, env, .. } = &harness.mcp_servers["files"] else { panic!() };
    assert_eq!((command.as_str(), env["TOKEN"].expose()), ("other", SECRETS[3]));
    assert!(matches!(&harness.mcp_servers["web"],
        McpServer::Http { headers, .. } if headers["Authorization"].expose() == SECRETS[2]));
    let kept = spec(&task).session.as_ref().unwrap();
    assert_eq!((kept.conversation_id.as_str(), kept.resume), (first.as_str(), false));

    let path = format!("{RUNS}/{first}/followups");
    let early = edge.post("bob", &path, &json!({"message": "two"})).await;
    assert_eq!(early.problem(), (409, "conversation_busy".to_owned(), String::new()));
    complete(&mut keeper, &task, &[session(), output("hi")]).await;
    let run = edge.get("bob", &format!("{RUNS}/{first}")).await.ok();
    assert_eq!(run["conversation_id"], first.as_str());
    assert_eq!(run["session_id"], SESSION);
    let shown = &run["agent_config"]["mcp_servers"]["files"];
    assert_eq!(*shown, json!({"command": "other", "env": {"TOKEN": "<redacted>"}}));

    // Another worker is free, and would take anything else.
    let mut other = worker(&edge, "w-2").await;
    let request =
        edge.request(reqwest::Method::POST, &path, "bob").json(&json!({"message": "two"}));
    let request = request.header("idempotency-key", "k");
    let again = request.try_clone().unwrap();
    let made = edge.send(request).await.ok();
    assert_eq!((&made["conversation_id"], &made["state"]), (&json!(first), &json!("QUEUED")));
    assert_eq!(edge.send(again).await.ok()["run_id"], made["run_id"], "asked once");
    let task = keeper.next_assignment().await;
    assert_eq!(task.task_id.as_str(), made["run_id"]);
    assert_eq!(spec(&task).prompt, "two");
    let kept = spec(&task).session.as_ref().unwrap();
    assert_eq!((kept.conversation_id.as_str(), kept.resume), (first.as_str(), true));
    let harness = &spec(&task).harness;
    assert_eq!(harness.resume.as_deref(), Some(SESSION));
    assert_eq!((harness.mapped_model(), harness.idle_secs), (Some("m-5"), Some(420)));
    let McpServer::Stdio { command, env, .. } = &harness.mcp_servers["files"] else { panic!() };
    assert_eq!((command.as_str(), env["TOKEN"].expose()), ("other", SECRETS[3]));
    let config = &edge.get("bob", &format!("{RUNS}/{}", task.task_id)).await.ok()["agent_config"];
    assert_eq!(config["mcp_servers"]["files"]["env"]["TOKEN"], "<redacted>");
    complete(&mut keeper, &task, &[output("hi")]).await;

    // By its id, with choices of its own; and what cannot change.
    let go_on = |config: Value| json!({"prompt": "x", "conversation_id": first, "config": config});
    for (config, field) in [
        (json!({"harness": {"type": "codex"}}), "config.harness.type"),
        (json!({"worker_host": "w-2"}), "config.worker_host"),
    ] {
        let (status, _, named) = edge.post("bob", RUNS, &go_on(config)).await.problem();
        assert_eq!((status, named.as_str()), (422, field));
    }
    let body = go_on(json!({"model_id": "m-6", "harness": {"type": "claude"}, "mcp_servers": {}}));
    edge.post("bob", RUNS, &body).await.ok();
    let task = keeper.next_assignment().await;
    let harness = &spec(&task).harness;
    assert_eq!((harness.model.as_deref(), harness.resume.as_deref()), (Some("m-6"), Some(SESSION)));
    let McpServer::Stdio { command, .. } = &harness.mcp_servers["files"] else { panic!() };
    assert_eq!(command, "serve", "its own servers are gone, the environment's are there");
    complete(&mut keeper, &task, &[output("hi")]).await;
    assert!(other.hears_nothing_for(Duration::from_millis(50)).await);

    let list = format!("{RUNS}?conversation_id={first}&sort_by=created_at&sort_order=asc");
    let runs = edge.get("bob", &list).await.ok()["runs"].as_array().unwrap().clone();
    let prompts: Vec<_> = runs.iter().map(|run| run["prompt"].as_str().unwrap()).collect();
    assert_eq!(prompts, ["one", "two", "x"]);
    assert_eq!(edge.get("alice", &list).await.ok()["runs"], json!([]));

    keeper.close().await;
    other.close().await;
    shown_nowhere(&edge, &environment).await;
    stored_nowhere(&edge).await;
    edge.stop().await;
}

/// What is secret of MCP servers comes back hidden, and may be sent back so.
async fn shown_nowhere(edge: &Edge, environment: &str) {
    let path = format!("/api/v1/environments/{environment}");
    let view = edge.get("bob", &path).await;
    for secret in &SECRETS[1..] {
        assert!(!view.text.contains(secret), "{}", view.text);
    }
    let view = view.ok();
    let harness = &view["harness"];
    assert_eq!(harness["mcp_servers"]["files"]["env"]["TOKEN"], "<redacted>");
    assert!(harness.get("type").is_none(), "{harness}");
    let mut body = json!({"name": "shop", "docker_image": "shop:2", "harness": harness});
    edge.put("bob", &path, &body).await.ok();
    edge.post("bob", RUNS, &json!({"prompt": "x", "config": {"environment_id": environment}}))
        .await
        .ok();
    let mut taker = worker(edge, "w-3").await;
    let task = taker.next_assignment().await;
    let McpServer::Stdio { env, .. } = &spec(&task).harness.mcp_servers["files"] else { panic!() };
    assert_eq!(env["TOKEN"].expose(), SECRETS[1], "what was hidden stayed");
    complete(&mut taker, &task, &[]).await;
    taker.close().await;
    body["harness"]["mcp_servers"]["files"]["env"] = json!({"NEW": "<redacted>"});
    let (status, _, field) = edge.put("bob", &path, &body).await.problem();
    assert_eq!((status, field.as_str()), (400, "harness.mcp_servers"));
    body["global"] = json!(true);
    body["harness"]["mcp_servers"] = json!({"files": {"command": "x", "env": {"NEW": "x"}}});
    let (status, _, field) = edge.post(ADMIN, "/api/v1/environments", &body).await.problem();
    assert_eq!((status, field.as_str()), (400, "env_vars"));
}

/// No text of the database holds them.
async fn stored_nowhere(edge: &Edge) {
    let core = edge.plane.core();
    for sql in [
        "select config || snapshot || prompt || title from runs",
        "select spec || name from environments",
        "select data from run_events",
    ] {
        let texts: Vec<String> = match core.store.db() {
            Database::Sqlite { read, .. } => sqlx::query_scalar(sql).fetch_all(read).await.unwrap(),
            Database::Postgres(pool) => sqlx::query_scalar(sql).fetch_all(pool).await.unwrap(),
        };
        assert!(!texts.is_empty(), "{sql}");
        for secret in SECRETS {
            assert!(texts.iter().all(|text| !text.contains(secret)), "{secret}: {sql}");
        }
    }
}

async fn a_worker_that_is_away_is_named(db: Db) {
    let edge = edge(&db).await;
    let first = edge.run("bob", "one").await;
    let mut keeper = worker(&edge, "w-1").await;
    let task = keeper.next_assignment().await;
    complete(&mut keeper, &task, &[output("hi")]).await;
    let path = format!("{RUNS}/{first}/followups");
    // It goes away with the follow-up waiting: that one says what it waits for.
    let blocker = edge.run("bob", "in the way").await;
    let held = keeper.next_assignment().await;
    keeper.claim(&held).await;
    assert_eq!(held.task_id.as_str(), blocker);
    let waiting = edge.post("bob", &path, &json!({"message": "two"})).await.ok();
    let why = async || {
        let id = waiting["run_id"].as_str().unwrap();
        edge.get("bob", &format!("{RUNS}/{id}/why")).await.ok()
    };
    let message = why().await["message"].as_str().unwrap().to_owned();
    assert!(message.contains("waits for worker w-1, which keeps its conversation"), "{message}");
    keeper.close().await;
    test_support::wait::eventually("the worker is gone", async || {
        let why = why().await;
        let message = why["message"].as_str().unwrap();
        let whole = message.contains("or cancel this run and begin a new one");
        (message.contains("kept on worker w-1, which is not connected") && whole).then_some(())
    })
    .await;
    let cancel = format!("{RUNS}/{}/cancel", waiting["run_id"].as_str().unwrap());
    edge.post("bob", &cancel, &json!({})).await.ok();
    let away = edge.post("bob", &path, &json!({"message": "two"})).await;
    assert_eq!(away.problem(), (409, "session_worker_away".to_owned(), String::new()));
    assert!(away.text.contains("worker w-1"), "{}", away.text);
    edge.stop().await;
}

async fn what_was_never_kept_is_begun_anew_or_refused(db: Db) {
    let edge = edge(&db).await;
    let first = edge.run("bob", "one").await;
    let mut w1 = worker(&edge, "w-1").await;
    let task = w1.next_assignment().await;
    w1.claim(&task).await;
    w1.fail(&task, FailureReason::Clone, "no such branch").await;
    w1.report_acked(&task.execution_id).await;
    w1.close().await;
    // It never had a workspace: any worker may begin one.
    let path = format!("{RUNS}/{first}/followups");
    edge.post("bob", &path, &json!({"message": "two"})).await.ok();
    let mut w2 = worker(&edge, "w-2").await;
    let task = w2.next_assignment().await;
    let kept = spec(&task).session.as_ref().unwrap();
    assert_eq!((kept.conversation_id.as_str(), kept.resume), (first.as_str(), false));
    assert_eq!(spec(&task).harness.resume, None);
    complete(&mut w2, &task, &[output("hi")]).await;

    for (name, body) in [
        ("command", json!({"harness": {"type": "command", "command": "true"}})),
        ("unkept", json!({"keep_sessions": false})),
    ] {
        let mut environment = json!({"name": name, "docker_image": "x"});
        environment.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let environment = edge.environment("bob", &environment).await;
        let body = json!({"prompt": "x", "config": {"environment_id": environment}});
        let made = edge.post("bob", RUNS, &body).await.ok();
        let task = w2.next_assignment().await;
        assert_eq!(spec(&task).session, None, "{name}");
        complete(&mut w2, &task, &[output("hi")]).await;
        let path = format!("{RUNS}/{}/followups", made["run_id"].as_str().unwrap());
        let refused = edge.post("bob", &path, &json!({"message": "x"})).await;
        let (status, _, field) = refused.problem();
        assert_eq!((status, field.as_str()), (422, "conversation_id"), "{}", refused.text);
    }
    for (body, status, field) in [
        (json!({}), 400, "message"),
        (json!({"message": " "}), 400, "message"),
        (json!({"message": "x", "mode": "plan"}), 422, "mode"),
    ] {
        let (got, _, named) = edge.post("bob", &path, &body).await.problem();
        assert_eq!((got, named.as_str()), (status, field));
    }
    w2.close().await;
    edge.stop().await;
}

async fn a_conversation_is_its_owners(db: Db) {
    let edge = edge(&db).await;
    let first = edge.run("bob", "one").await;
    let path = format!("{RUNS}/{first}/followups");
    edge.post("bob", &format!("{RUNS}/{first}/cancel"), &json!({})).await.ok();
    let body = json!({"prompt": "x", "conversation_id": first});
    assert_eq!(edge.post("alice", RUNS, &body).await.problem().0, 404);
    assert_eq!(edge.post("alice", &path, &json!({"message": "x"})).await.problem().0, 404);
    assert_eq!(edge.post(ADMIN, &path, &json!({"message": "x"})).await.problem().0, 403);
    edge.post("bob", RUNS, &body).await.ok();
    edge.stop().await;
}

fn going_on(conversation: &RunId) -> NewRun {
    NewRun { conversation_id: Some(conversation.clone()), ..prompt("next") }
}

/// A conversation whose only run is over and left nothing.
async fn over(core: &Core) -> RunId {
    let id = submit(core, &tenant('a'), "first").await;
    runs::cancel(core, &tenant('a'), &id).await.unwrap();
    id
}

async fn of_many_that_go_on_at_once_one_does(db: Db) {
    let (core, second) = (db.core().await, db.core().await);
    let conversation = over(&core).await;
    let all = (0..16).map(|n| {
        let core = if n % 2 == 0 { &core } else { &second };
        let new = going_on(&conversation);
        async move { runs::submit(core, &tenant('a'), new).await }
    });
    let all = futures_util::future::join_all(all).await;
    let taken: Vec<_> = all.iter().filter_map(|one| one.as_ref().ok()).collect();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].conversation_id, conversation);
    for refused in all.iter().filter_map(|one| one.as_ref().err()) {
        assert!(matches!(refused, SubmitError::ConversationBusy(_)), "{refused:?}");
    }
    // When it is over, the next one may.
    runs::cancel(&core, &tenant('a'), &taken[0].run_id).await.unwrap();
    runs::submit(&second, &tenant('a'), going_on(&conversation)).await.unwrap();
}

async fn a_later_run_names_a_conversation_whose_first_is_gone(db: Db) {
    let core = db.core().await;
    let first = over(&core).await;
    let later = runs::submit(&core, &tenant('a'), going_on(&first)).await.unwrap().run_id;
    runs::cancel(&core, &tenant('a'), &later).await.unwrap();
    let sql = "delete from runs where id = $1";
    match core.store.db() {
        Database::Sqlite { write, .. } => {
            for sql in ["delete from run_events where run_id = $1", sql] {
                sqlx::query(sql).bind(first.as_str()).execute(write).await.unwrap();
            }
        }
        Database::Postgres(pool) => {
            for sql in ["delete from run_events where run_id = $1", sql] {
                sqlx::query(sql).bind(first.as_str()).execute(pool).await.unwrap();
            }
        }
    }
    for name in [&later, &first] {
        let made = runs::submit(&core, &tenant('a'), going_on(name)).await.unwrap();
        assert_eq!(made.conversation_id, first);
        runs::cancel(&core, &tenant('a'), &made.run_id).await.unwrap();
    }
    let unknown = going_on(&"0198c5f0-0000-7000-8000-000000000000".parse().unwrap());
    let refused = runs::submit(&core, &tenant('a'), unknown).await.unwrap_err();
    assert!(matches!(refused, SubmitError::UnknownConversation), "{refused:?}");
}

async fn a_vendor_that_asks_for_time_gets_it(db: Db) {
    let core: Arc<Core> = db.core().await;
    let retry = RetryPolicy { max_attempts: None, on: Some(vec![FailureClass::Provider]) };
    for (asked, reason, waits) in [
        (Some(600_000), FailureReason::RateLimit, 600_000),
        (Some(u64::MAX), FailureReason::RateLimit, 900_000),
        (None, FailureReason::RateLimit, 0),
        (Some(600_000), FailureReason::NetworkError, 0),
    ] {
        let new = NewRun { retry: retry.clone(), ..prompt("x") };
        let id = runs::submit(&core, &tenant('a'), new).await.unwrap().run_id;
        let run = claim(&core).await;
        report(&core, &run, claimed(&core)).await;
        let exit = Exit {
            reason: Some(reason),
            message: "no".to_owned(),
            retry_after_ms: asked,
            ..Exit::default()
        };
        ingest(&core, &run, EventSource::Sidecar, &numbered(1, &[Event::Exit(exit)])).await;
        report(&core, &run, failed(reason)).await;
        let seen = runs::get(&core, &tenant('a'), &id).await.unwrap();
        assert_eq!(seen.state, RunState::Queued);
        assert_eq!(seen.next_attempt_at, Some(core.now() + waits), "{asked:?} {reason}");
        core.clock.advance(Duration::from_millis(waits.try_into().unwrap()));
        let run = claim(&core).await;
        assert_eq!((&run.run_id, run.attempt), (&id, 2));
        report(&core, &run, claimed(&core)).await;
        report(&core, &run, succeeded()).await;
    }
}

async fn a_name_for_a_conversation_is_believed_within_limits(db: Db) {
    let core = db.core().await;
    let id = submit(&core, &tenant('a'), "x").await;
    let seen = async || runs::get(&core, &tenant('a'), &id).await.unwrap().session_id;
    let run = claim(&core).await;
    let named = |name: &str| Event::Session {
        provider: "opencode".to_owned(),
        session_id: name.to_owned(),
    };
    let long = "x".repeat(129);
    let tried = ["ses_1aB-2", "--dangerous", "", "a b", "a.b", "a:b", "a\u{0}", "$(x)", &long];
    let events: Vec<_> = tried.iter().map(|name| named(name)).collect();
    ingest(&core, &run, EventSource::Sidecar, &numbered(1, &events)).await;
    assert_eq!(seen().await.as_deref(), Some("ses_1aB-2"));
    ingest(&core, &run, EventSource::Sidecar, &numbered(10, &[named("newer")])).await;
    ingest(&core, &run, EventSource::Sidecar, &numbered(11, &[output("hi")])).await;
    assert_eq!(seen().await.as_deref(), Some("newer"));
    // What the next attempt has is not what this one had.
    report(&core, &run, failed(FailureReason::SidecarLost)).await;
    assert_eq!(seen().await.as_deref(), Some("newer"));
    claim(&core).await;
    assert_eq!(seen().await, None);
}

async fn a_plane_may_keep_nothing_and_chooses_who_answers(db: Db) {
    let url = db.url.clone();
    let edge = Edge::start_with(|config| {
        config.database_url = Some(SecretString::from(url));
        config
            .apply_env([
                ("OZ_DEFAULT_HARNESS".to_owned(), "gemini".to_owned()),
                ("OZ_KEEP_SESSIONS".to_owned(), "no".to_owned()),
            ])
            .unwrap();
    })
    .await;
    let mut w1 = worker(&edge, "w-1").await;
    let mut answers = async |config: Value, provider: ProviderKind| {
        edge.post("bob", RUNS, &json!({"prompt": "x", "config": config})).await.ok();
        let task = w1.next_assignment().await;
        assert_eq!((spec(&task).harness.provider, &spec(&task).session), (provider, &None));
        complete(&mut w1, &task, &[]).await;
    };
    let body = json!({"name": "e", "docker_image": "x", "keep_sessions": true});
    let open = edge.environment("bob", &body).await;
    let body = json!({"name": "e", "docker_image": "x", "harness": {"type": "codex"}});
    let chosen = edge.environment("bob", &body).await;
    answers(json!({}), ProviderKind::Gemini).await;
    answers(json!({"environment_id": open}), ProviderKind::Gemini).await;
    answers(json!({"environment_id": chosen}), ProviderKind::Codex).await;
    let oz = json!({"environment_id": chosen, "harness": {"type": "oz"}});
    answers(oz, ProviderKind::Codex).await;
    for provider in ["claude", "codex", "opencode", "gemini", "agent"] {
        let config = json!({"environment_id": chosen, "harness": {"type": provider}});
        let expected = serde_json::from_value(json!(provider)).unwrap();
        answers(config, expected).await;
    }
    w1.close().await;
    edge.stop().await;
}
