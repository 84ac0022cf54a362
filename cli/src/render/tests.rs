//! How a run reads, as a snapshot.

use expect_test::expect;
use protocol::event::{Event, Exit, Phase, Stream};

use super::lines;
use crate::{surroundings::Surroundings, term::Term};

fn shown(events: &[Event]) -> String {
    let term = Term::new(&Surroundings::default());
    events.iter().flat_map(|event| lines(&term, event)).map(|line| line + "\n").collect()
}

#[test]
fn a_run_reads_like_this() {
    let state = |state: &str, more: &str| -> Event {
        serde_json::from_str(&format!(
            r#"{{"kind":"state","data":{{"state":"{state}","attempt":1{more}}}}}"#
        ))
        .unwrap()
    };
    let events = [
        state("CLAIMED", r#","worker_id":"w1""#),
        Event::PhaseStarted { phase: Phase::Image },
        Event::PhaseFinished { phase: Phase::Image, duration_ms: 1_234, ok: true },
        Event::Cloned {
            url: "/srv/demo.git".into(),
            path: "/workspace/demo".into(),
            commit: "0123456789abcdef".into(),
            by: "git".into(),
        },
        Event::SetupStarted { index: 0, command: "make\nmake test".into() },
        Event::Output {
            phase: Phase::Setup,
            stream: Stream::Stdout,
            text: Some("ok\x1b[31m\n".into()),
            base64: None,
            partial: false,
        },
        Event::SetupFinished { index: 0, exit_code: 2, duration_ms: 10 },
        Event::Model { dialect: "scripted".into(), model: "demo".into(), scripted: true },
        Event::Text { text: "I shall look.\nThen edit.".into(), scripted: true },
        Event::ToolCall {
            id: "1".into(),
            name: "shell".into(),
            input: serde_json::json!({"command": "ls \"a b\""}),
            scripted: false,
        },
        Event::ToolResult {
            id: "1".into(),
            name: "shell".into(),
            ok: true,
            output: "line\n".repeat(14),
            duration_ms: 3,
            truncated: false,
            scripted: false,
        },
        Event::Exit(Exit {
            success: false,
            exit_code: Some(3),
            reason: None,
            message: "the agent ended with exit code 3".into(),
            peak_memory_bytes: Some(10_000_000),
            oom_killed: false,
            retry_after_ms: None,
        }),
        state("FAILED", r#","reason":"agent_exit","message":"exit code 3""#),
    ];
    expect![[r#"
        ● CLAIMED on w1
        ✓ image 1.2 s
          cloned /srv/demo.git at 0123456789ab into /workspace/demo
          $ make
            make test
          │ ok␛[31m
          exit code 2 after 10 ms
          scripted model, no AI: demo
          I shall look.  [scripted]
          Then edit.
          → shell ls "a b"
          ← ok 3 ms
            line
            line
            line
            line
            line
            line
            line
            line
            line
            line
            line
            line
            … 2 more lines
          exit code 3, peak memory 10.0 MB
        ● FAILED: exit code 3
    "#]]
    .assert_eq(&shown(&events));
}
