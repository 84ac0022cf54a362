//! Evidence over HTTP: every event as a line and one page about the run, before its end and after, and no longer than
//! its events are kept.

use control_plane::store::{Part, Place};
use protocol::{
    event::{Event, EventSource, Exit},
    evidence::Summary,
    failure::FailureReason,
};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use test_support::{
    wait::eventually,
    worker::{FakeWorker, numbered},
};

use crate::{
    base::{Db, on_both},
    edge::{ADMIN, Edge},
    step::rewrite,
};

on_both!(
    a_run_leaves_evidence,
    of_a_retried_run_the_last_attempt_counts,
    evidence_goes_with_its_events,
    each_class_of_failure_is_named_and_counted,
    a_summary_counts_as_a_stream_and_misses_no_gap
);

const RUNS: &str = "/api/v1/agent/runs";

async fn edge(db: &Db) -> Edge {
    let url = db.url.clone();
    Edge::start_with(|config| {
        config.database_url = Some(SecretString::from(url));
        config.max_streams = 1;
    })
    .await
}

async fn summary(edge: &Edge, run: &str) -> Summary {
    let path = format!("{RUNS}/{run}/evidence/summary.json");
    serde_json::from_value(edge.get("bob", &path).await.ok()).unwrap()
}

async fn lines(edge: &Edge, run: &str) -> Vec<Value> {
    let answer = edge.get("bob", &format!("{RUNS}/{run}/evidence/events.jsonl")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    assert!(answer.text.ends_with('\n'));
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn event(kind: &str, data: &Value) -> Event {
    serde_json::from_value(json!({"kind": kind, "data": data})).unwrap()
}

fn work() -> Vec<Event> {
    vec![
        event("model", &json!({"dialect": "anthropic", "model": "m-5"})),
        event("session", &json!({"provider": "claude", "session_id": "s-1"})),
        event("tool_call", &json!({"id": "1", "name": "Bash", "input": {}})),
        event(
            "tool_result",
            &json!({"id": "1", "name": "Bash", "ok": true, "output": "", "duration_ms": 1}),
        ),
        event("usage", &json!({"input_tokens": 10, "output_tokens": 2, "turns": 1})),
        event("text", &json!({"text": "two\r\nlines"})),
    ]
}

async fn a_run_leaves_evidence(db: Db) {
    let edge = edge(&db).await;
    let run = edge.run("bob", "do it").await;
    let before = summary(&edge, &run).await;
    assert_eq!((before.complete, before.attempt, before.exit), (false, 0, None));
    let hash = hex::encode(Sha256::digest("do it"));
    assert_eq!((before.prompt_sha256, before.provider), (hash, "claude".to_owned()));

    let mut worker = FakeWorker::connect(&edge.root, ADMIN, "w-1", 1).await;
    let task = worker.next_assignment().await;
    worker.claim(&task).await;
    let mut events = work();
    // More than one page of them.
    events.extend((0..1_500).map(|n| event("notice", &json!({"text": n.to_string()}))));
    let sent = events.len() as u64;
    for (nth, part) in events.chunks(500).enumerate() {
        let part = numbered(500 * nth as u64 + 1, part);
        worker.send_events(&task.execution_id, EventSource::Sidecar, part).await;
    }
    worker.acked(&task.execution_id, EventSource::Sidecar, sent).await;
    let during = summary(&edge, &run).await;
    assert_eq!((during.complete, during.exit), (false, None));
    assert_eq!(during.execution_id.as_ref(), Some(&task.execution_id));
    assert_eq!(during.tools["Bash"].ok, 1);

    let exit =
        Exit { success: true, exit_code: Some(0), message: "done".to_owned(), ..Exit::default() };
    let last = numbered(sent + 1, &[Event::Exit(exit)]);
    worker.send_events(&task.execution_id, EventSource::Sidecar, last).await;
    worker.acked(&task.execution_id, EventSource::Sidecar, sent + 1).await;
    worker.complete(&task).await;
    worker.report_acked(&task.execution_id).await;
    let after = summary(&edge, &run).await;
    assert!(after.complete && !after.truncated);
    let exit = after.exit.unwrap();
    assert_eq!((exit.success, exit.code, exit.reason), (true, Some(0), None));
    assert_eq!((after.model.as_deref(), after.session_id.as_deref()), (Some("m-5"), Some("s-1")));
    assert_eq!((after.tokens.input, after.tokens.output, after.turns), (10, 2, 1));

    let all = lines(&edge, &run).await;
    let seqs: Vec<_> = all.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=all.len() as u64).collect::<Vec<_>>());
    assert!(all.len() as u64 > sent);
    assert_eq!(all.last().unwrap()["data"]["state"], "SUCCEEDED");
    let page = edge.get("bob", &format!("{RUNS}/{run}/events?limit=1000")).await.ok();
    assert_eq!(page["events"].as_array().unwrap()[..], all[..1_000]);
    // What is read counts as a stream for as long as it is read, and no longer.
    lines(&edge, &run).await;
    worker.close().await;
    edge.stop().await;
}

async fn of_a_retried_run_the_last_attempt_counts(db: Db) {
    let edge = edge(&db).await;
    let run = edge.run("bob", "do it").await;
    let mut worker = FakeWorker::connect(&edge.root, ADMIN, "w-1", 1).await;
    for nth in 1..=2 {
        let task = worker.next_assignment().await;
        worker.claim(&task).await;
        let events = if nth == 1 { work() } else { work()[2..3].to_vec() };
        worker.send_events(&task.execution_id, EventSource::Sidecar, numbered(1, &events)).await;
        worker.acked(&task.execution_id, EventSource::Sidecar, events.len() as u64).await;
        let reason = if nth == 1 { FailureReason::SidecarLost } else { FailureReason::RateLimit };
        worker.fail(&task, reason, "not now").await;
        worker.report_acked(&task.execution_id).await;
    }
    let seen = edge.get("bob", &format!("{RUNS}/{run}")).await.ok();
    assert_eq!(seen["state"], "FAILED");
    let status = &seen["status_message"];
    assert_eq!((&status["error_code"], &status["retryable"]), (&json!("rate_limit"), &json!(true)));
    let summary = summary(&edge, &run).await;
    assert_eq!((summary.attempt, summary.tools["Bash"].calls, summary.tools["Bash"].ok), (2, 1, 0));
    assert_eq!((summary.tokens.input, summary.session_id), (0, None));
    let exit = summary.exit.unwrap();
    assert_eq!((exit.success, exit.reason), (false, Some(FailureReason::RateLimit)));
    assert_eq!(exit.message, "not now");
    worker.close().await;
    edge.stop().await;
}

async fn each_class_of_failure_is_named_and_counted(db: Db) {
    use FailureReason as R;
    let edge = edge(&db).await;
    let mut worker = FakeWorker::connect(&edge.root, ADMIN, "w-1", 1).await;
    let classes = [
        (R::RateLimit, "rate_limit", true),
        (R::QuotaExhausted, "quota_exhausted", false),
        (R::AuthExpired, "auth_expired", false),
        (R::AuthMissing, "auth_missing", false),
        (R::CliVersionMismatch, "cli_version_mismatch", false),
        (R::NetworkError, "network_error", true),
        // The one that has another name among the codes of the API.
        (R::ContentRefused, "content_policy_violation", false),
        (R::AgentExit, "agent_exit", false),
    ];
    for (reason, code, retryable) in classes {
        let run = edge.run("bob", "do it").await;
        let task = worker.next_assignment().await;
        worker.claim(&task).await;
        worker.fail(&task, reason, "not today").await;
        worker.report_acked(&task.execution_id).await;
        let seen = edge.get("bob", &format!("{RUNS}/{run}")).await.ok();
        let status = &seen["status_message"];
        assert_eq!(
            (&status["error_code"], &status["retryable"]),
            (&json!(code), &json!(retryable)),
            "{seen}"
        );
        let last = lines(&edge, &run).await.pop().unwrap();
        assert_eq!(last["data"]["reason"], reason.as_str(), "{last}");
        assert_eq!(summary(&edge, &run).await.exit.unwrap().reason, Some(reason));
        let metrics = edge.get("", "/metrics").await.text;
        let line = format!("ozma_executions_failed_total{{reason=\"{reason}\"}} 1\n");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    worker.close().await;
    edge.stop().await;
}

async fn evidence_goes_with_its_events(db: Db) {
    let edge = edge(&db).await;
    let run = edge.run("bob", "do it").await;
    edge.post("bob", &format!("{RUNS}/{run}/cancel"), &json!({})).await.ok();
    assert_eq!(lines(&edge, &run).await.len(), 2);
    let core = edge.plane.core();
    let cutoff = core.now() + 60_000;
    let old = core.store.ended_before(cutoff, &Place::default(), 10).await.unwrap();
    let ids: Vec<_> = old.into_iter().map(|(_, id)| id).collect();
    core.store.sweep(&ids, Part::Events, cutoff, || false).await.unwrap();
    for file in ["events.jsonl", "summary.json"] {
        let gone = edge.get("bob", &format!("{RUNS}/{run}/evidence/{file}")).await;
        assert_eq!(gone.problem().0, 410, "{}", gone.text);
    }
    edge.stop().await;
}

async fn a_summary_counts_as_a_stream_and_misses_no_gap(db: Db) {
    let edge = edge(&db).await;
    let run = edge.run("bob", "do it").await;
    let request = edge.request(Method::GET, &format!("{RUNS}/{run}/events"), "bob");
    let following = request.header("accept", "text/event-stream").send().await.unwrap();
    let path = format!("{RUNS}/{run}/evidence/summary.json");
    assert_eq!(edge.get("bob", &path).await.problem().0, 429);
    assert_eq!(edge.get("alice", &path).await.problem().0, 404);
    drop(following);
    eventually("the stream is over", async || {
        (edge.get("bob", &path).await.status == 200).then_some(())
    })
    .await;

    let mut worker = FakeWorker::connect(&edge.root, ADMIN, "w-1", 1).await;
    let task = worker.next_assignment().await;
    worker.claim(&task).await;
    // The last word is of a kind that a summary says nothing of, and its time counts all the same.
    let mut said = numbered(1, &[event("notice", &json!({"text": "x"}))]);
    let late = edge.plane.core().now() + 60_000;
    said[0].at_ms = late;
    worker.send_events(&task.execution_id, EventSource::Sidecar, said).await;
    worker.acked(&task.execution_id, EventSource::Sidecar, 1).await;
    assert_eq!(summary(&edge, &run).await.timings.ended_at_ms, late);
    let sql = "delete from run_events where run_id = $1 and seq = 1";
    rewrite(edge.plane.core(), sql, &run).await;
    assert_eq!(edge.get("bob", &path).await.problem().0, 410);
    worker.close().await;
    edge.stop().await;
}
