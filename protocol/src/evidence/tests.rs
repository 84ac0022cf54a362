//! What a run of events comes to, as a summary.

use expect_test::expect;
use serde_json::json;

use super::*;
use crate::event::Artifact;

fn facts() -> Facts {
    Facts {
        run_id: "run_1".parse().unwrap(),
        execution_id: Some("exe_2".parse().unwrap()),
        attempt: 2,
        prompt_sha256: "ab".repeat(32),
        provider: "claude".to_owned(),
        model: Some("asked-for".to_owned()),
        phases: BTreeMap::from([(Phase::Queued, 5)]),
    }
}

fn event(kind: &str, data: &serde_json::Value) -> Event {
    serde_json::from_value(json!({ "kind": kind, "data": data })).unwrap()
}

fn call(name: &str) -> Event {
    event("tool_call", &json!({"id": "t", "name": name, "input": {}}))
}

fn result(name: &str, ok: bool) -> Event {
    event(
        "tool_result",
        &json!({"id": "t", "name": name, "ok": ok, "output": "", "duration_ms": 1}),
    )
}

#[test]
fn a_run_in_one_page() {
    let (first, last) = ("exe_1".parse().unwrap(), "exe_2".parse().unwrap());
    let mut fold = Fold::new(facts());
    let state = |state: &str| event("state", &json!({"state": state, "attempt": 1}));
    let usage = |tokens: u64| {
        let data = json!({"input_tokens": tokens, "output_tokens": 7, "cached_input_tokens": 3,
            "turns": 2, "cost_usd": 0.25});
        event("usage", &data)
    };
    let artifact = Event::Artifact(Artifact {
        artifact_uid: "art_1".parse().unwrap(),
        artifact_type: "FILE".to_owned(),
        filename: Some("changes.patch".to_owned()),
        filepath: None,
        mime_type: None,
        description: None,
        size_bytes: Some(12),
        sha256: Some("cd".repeat(32)),
        url: None,
        branch: None,
    });
    let exit = event("exit", &json!({"success": true, "exit_code": 0, "message": "done"}));
    for (execution, at, event) in [
        (None, 1_000, state("QUEUED")),
        // Of the attempt before: its tokens were spent, but not by what is summed up here.
        (Some(&first), 1_100, usage(999)),
        (Some(&first), 1_200, call("Read")),
        (Some(&last), 1_300, event("session", &json!({"provider": "claude", "session_id": "s-1"}))),
        (Some(&last), 1_310, event("model", &json!({"dialect": "anthropic", "model": "m-5"}))),
        (Some(&last), 1_400, call("Bash")),
        (Some(&last), 1_500, result("Bash", true)),
        (Some(&last), 1_500, call("Bash")),
        (Some(&last), 1_600, result("Bash", false)),
        (Some(&last), 1_650, event("model_retry", &json!({"attempt": 1, "message": "busy"}))),
        (Some(&last), 1_660, event("raw", &json!({"line": "?"}))),
        (Some(&last), 1_700, usage(50)),
        (Some(&last), 1_800, usage(100)),
        (
            Some(&last),
            1_900,
            event("phase_finished", &json!({"phase": "provider", "duration_ms": 600, "ok": true})),
        ),
        (Some(&last), 1_910, artifact),
        (Some(&last), 1_920, exit),
        (None, 2_000, state("SUCCEEDED")),
    ] {
        fold.see(execution, at, Some(&event));
    }
    fold.see(Some(&last), 2_001, None);
    let summary = fold.finish(true);
    let text = serde_json::to_string_pretty(&summary).unwrap();
    expect![[r#"
        {
          "schema_version": 1,
          "complete": true,
          "run_id": "run_1",
          "execution_id": "exe_2",
          "attempt": 2,
          "prompt_sha256": "abababababababababababababababababababababababababababababababab",
          "provider": "claude",
          "model": "m-5",
          "session_id": "s-1",
          "scripted": false,
          "tools": {
            "Bash": {
              "calls": 2,
              "ok": 1,
              "failed": 1
            }
          },
          "tokens": {
            "input": 100,
            "output": 7,
            "cached_input": 3
          },
          "cost_usd": 0.25,
          "turns": 2,
          "model_retries": 1,
          "raw_lines": 1,
          "timings": {
            "began_at_ms": 1000,
            "ended_at_ms": 2001,
            "total_ms": 1001,
            "phases": {
              "queued": 5,
              "provider": 600
            }
          },
          "exit": {
            "success": true,
            "code": 0,
            "message": "done"
          },
          "artifacts": [
            {
              "artifact_uid": "art_1",
              "artifact_type": "FILE",
              "name": "changes.patch",
              "bytes": 12,
              "sha256": "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
            }
          ],
          "truncated": false
        }"#]]
    .assert_eq(&text);
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
}

#[test]
fn the_planes_word_on_the_end_stands_above_the_sidecars() {
    let lost = json!({"state": "ERROR", "attempt": 2, "reason": "worker_lost", "message": "gone"});
    let mut fold = Fold::new(facts());
    fold.see(None, 1, Some(&event("exit", &json!({"success": true, "message": "done"}))));
    let alone = fold.clone().finish(true).exit.unwrap();
    assert!(alone.success, "{alone:?}");
    fold.see(None, 2, Some(&event("state", &lost)));
    assert_eq!(fold.clone().finish(false).exit, None);
    let exit = fold.finish(true).exit.unwrap();
    assert_eq!((exit.success, exit.reason), (false, Some(FailureReason::WorkerLost)));
    assert_eq!(exit.message, "gone");
}

#[test]
fn what_a_container_says_does_not_make_it_large() {
    let mut fold = Fold::new(facts());
    for index in 0..MAX_TOOLS + 50 {
        fold.see(None, 1, Some(&call(&format!("{index}{}", "ä".repeat(MAX_NAME_BYTES)))));
    }
    for (at, turns) in [(i64::MIN, 1), (i64::MAX, u32::MAX)] {
        let data = json!({"input_tokens": 1, "output_tokens": u64::MAX, "turns": turns});
        fold.see(None, at, Some(&event("usage", &data)));
    }
    let summary = fold.finish(false);
    assert_eq!(summary.tools.len(), MAX_TOOLS + 1);
    assert_eq!(summary.tools[OTHER_TOOLS].calls, 50);
    assert!(summary.truncated);
    assert_eq!(summary.timings.total_ms, u64::MAX);
}
