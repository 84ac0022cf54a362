//! What the real command-line providers printed once, in some three hundred cases, read again: one line a case.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use expect_test::expect_file;
use harness::replay::replay;
use protocol::{event::Event, spec::ProviderKind};

fn folder(provider: ProviderKind) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(provider.as_str())
}

struct Case {
    name: String,
    stdout: Vec<u8>,
    stderr: String,
    exit: String,
}

impl Case {
    /// 128 and the number for a signal, as a shell has it.
    fn exit_code(&self) -> i32 {
        match self.exit.split_once('=') {
            Some(("exit", code)) => code.trim().parse().unwrap(),
            Some(("signal", name)) if name.starts_with("SIGKILL") => 137,
            Some(("signal", name)) if name.starts_with("SIGTERM") => 143,
            Some(("signal", name)) if name.starts_with("SIGINT") => 130,
            _ => panic!("{}: {}", self.name, self.exit),
        }
    }
}

fn cases(provider: ProviderKind) -> Vec<Case> {
    let mut cases: Vec<_> = std::fs::read_dir(folder(provider))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let read = |name| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let text = |name| String::from_utf8_lossy(&read(name)).into_owned();
            Case {
                name: entry.file_name().into_string().unwrap(),
                stdout: read("stdout.txt"),
                stderr: text("stderr.txt"),
                exit: text("exit.txt"),
            }
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() > 60, "{provider:?}: {}", cases.len());
    cases
}

fn kind(event: &Event) -> String {
    let json = serde_json::to_value(event).unwrap();
    json["kind"].as_str().unwrap().to_owned()
}

/// Kinds with their number, in alphabetical order.
fn counted(events: &[Event]) -> String {
    let mut counts = BTreeMap::<_, u32>::new();
    for event in events {
        *counts.entry(kind(event)).or_default() += 1;
    }
    let mut text = String::new();
    for (kind, count) in counts {
        write!(text, " {kind}:{count}").unwrap();
    }
    text
}

fn overview(provider: ProviderKind) -> String {
    let mut text = String::new();
    for case in cases(provider) {
        let (events, exit) =
            replay(provider, &case.stdout, &case.stderr, case.exit_code(), usize::MAX);
        let outcome = match exit.reason {
            None => "success".to_owned(),
            Some(reason) => {
                let wait = exit.retry_after_ms.map(|ms| format!(" after {ms} ms"));
                format!("{reason}{}", wait.unwrap_or_default())
            }
        };
        let message: String = exit.message.chars().take(110).collect();
        writeln!(text, "{} ({}) -> {outcome}: {message}", case.name, case.exit.trim()).unwrap();
        writeln!(text, "   {}", counted(&events)).unwrap();
        assert_eq!(exit.success, exit.reason.is_none(), "{}", case.name);
    }
    text
}

#[test]
fn claude_as_it_was_seen() {
    expect_file!["../transcripts/claude.txt"].assert_eq(&overview(ProviderKind::Claude));
}

#[test]
fn codex_as_it_was_seen() {
    expect_file!["../transcripts/codex.txt"].assert_eq(&overview(ProviderKind::Codex));
}

#[test]
fn opencode_as_it_was_seen() {
    expect_file!["../transcripts/opencode.txt"].assert_eq(&overview(ProviderKind::Opencode));
}

#[test]
fn gemini_as_it_was_seen() {
    expect_file!["../transcripts/gemini.txt"].assert_eq(&overview(ProviderKind::Gemini));
}

/// One run with a tool of each, event by event; times and ids vary and are left out.
#[test]
fn a_tool_call_event_by_event() {
    let mut text = String::new();
    for (provider, name) in [
        (ProviderKind::Claude, "mcp_stdio"),
        (ProviderKind::Codex, "tool_json"),
        (ProviderKind::Opencode, "tool_json"),
        (ProviderKind::Gemini, "tool_stream"),
    ] {
        writeln!(text, "== {} {name}", provider.as_str()).unwrap();
        let case = cases(provider).into_iter().find(|case| case.name == name).unwrap();
        for mut event in replay(provider, &case.stdout, &case.stderr, 0, 7).0 {
            match &mut event {
                Event::ToolResult { duration_ms, id, .. } => {
                    *duration_ms = 0;
                    id.clear();
                }
                Event::ToolCall { id, .. } => id.clear(),
                _ => {}
            }
            writeln!(text, "{}", serde_json::to_string(&event).unwrap()).unwrap();
        }
    }
    expect_file!["../transcripts/tools.txt"].assert_eq(&text);
}

/// However the bytes arrive, the events are the same.
#[test]
fn chunks_do_not_matter() {
    for provider in [ProviderKind::Claude, ProviderKind::Codex, ProviderKind::Gemini] {
        for case in cases(provider).iter().take(12) {
            let whole = replay(provider, &case.stdout, &case.stderr, 1, usize::MAX);
            let bytes = replay(provider, &case.stdout, &case.stderr, 1, 1);
            let strip = |(events, exit): (Vec<Event>, _)| (counted(&events), exit);
            assert_eq!(strip(whole), strip(bytes), "{}", case.name);
        }
    }
}

/// Nothing that can be printed breaks a run: cut lines, long lines, bytes that are no text.
#[test]
fn nonsense_is_output() {
    for provider in
        [ProviderKind::Claude, ProviderKind::Codex, ProviderKind::Opencode, ProviderKind::Gemini]
    {
        let mut bytes = b"{\"type\":\"resul\n[1]\nnull\n\xff\xfe\n{\"type\":1}\n{}\n".to_vec();
        bytes.extend(b"{\"type\":\"text\",\"part\":{\"text\":\"");
        bytes.extend(std::iter::repeat_n(b'x', 10 << 20));
        bytes.extend(b"\"}}\n");
        let (events, exit) = replay(provider, &bytes, "", 1, 1 << 16);
        assert!(!exit.success);
        assert!(events.iter().any(|event| kind(event) == "raw"), "{provider:?}");
        for event in &events {
            assert!(serde_json::to_string(event).unwrap().len() < 600 << 10);
        }
    }
}
