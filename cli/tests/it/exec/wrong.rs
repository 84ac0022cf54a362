//! `ozma exec` held wrong: it says what is wrong and what to do, and writes nothing.

use std::fs;

use super::{KEY, Rig, code, err, out};

/// Arguments, the exit code, and what must be said.
type Case = (&'static [&'static str], i32, &'static [&'static str]);

const CASES: &[Case] = &[
    (&[], 2, &["the prompt is empty", "--file"]),
    (&[" "], 2, &["the prompt is empty"]),
    (&["-f", "/nowhere", "-m", "cat"], 2, &["/nowhere", "No such file"]),
    (&["-f", "../binary", "-m", "cat"], 2, &["not UTF-8", "let the prompt name it"]),
    (&["-f", "/dev/zero", "-m", "cat"], 2, &["longer than", "let the prompt name it"]),
    (&["-a", "nobody", "hello"], 2, &["no agent \"nobody\"", ".autopilot/agents"]),
    (&["nobody", "-f", "/etc/hostname"], 2, &["no agent \"nobody\""]),
    (&["odd", "hello"], 2, &["odd.md", "\"xml\"", "text, json and answer"]),
    (&["broken", "hello"], 2, &["broken.yaml", "line 1"]),
    (&["strange", "hello"], 2, &["provider is \"nobody\"", "claude, codex"]),
    (&["-m", "bad", "hello"], 2, &["bad.toml", "`comand`", "`command`"]),
    (&["-m", "unclosed", "hello"], 2, &["unclosed.toml", "line 1"]),
    (&["-m", "claud", "hello"], 2, &["claud.toml", "no provider \"claud\"", "claude, codex"]),
    (&["-m", "cat.toml", "hello"], 2, &["without its folder and its ending", "ozma/models"]),
    (&["-m", "./cat.toml", "hello"], 2, &["without its folder and its ending"]),
    (&["--models-dir", "/nowhere", "hello"], 2, &["--models-dir", "/nowhere"]),
    (&["--agents-dir", "/nowhere", "hello"], 2, &["--agents-dir", "/nowhere"]),
    (&["-p", "/nowhere", "hello"], 2, &["/nowhere", "No such file"]),
    (&["-p", "../binary", "hello"], 2, &["no folder"]),
    (&["--json", "-o", "text", "hello"], 2, &["--json", "--output"]),
    (&["--mcp", "../mcp.json", "-m", "agent", "hello"], 2, &["mcp.json", "no object of servers"]),
    // What is not here is no fault of the command line.
    (&["-m", "gone", "hello"], 3, &["not-installed-anywhere", "PATH", "gone.toml"]),
    (&["hello"], 3, &["claude is not on the PATH", "npm install -g @anthropic-ai"]),
    (&["-m", "codex/m", "hello"], 3, &["codex is not on the PATH", "npm install -g @openai"]),
];

#[test]
fn what_makes_no_sense_says_so_and_writes_nothing() {
    let rig = Rig::new();
    for (name, text) in [
        ("models/cat.toml", "command = \"cat\"\n"),
        ("models/bad.toml", "comand = \"cat\"\n"),
        ("models/unclosed.toml", "command = \"cat\n"),
        ("models/claud.toml", "provider = \"claud\"\n"),
        ("models/gone.toml", "command = \"not-installed-anywhere\"\n"),
        ("agents/odd.md", "---\noutput_format: xml\n---\nx\n"),
        ("agents/broken.yaml", "model: [a\n"),
        ("agents/strange.md", "---\nprovider: nobody\n---\nx\n"),
    ] {
        rig.write(&format!(".config/ozma/{name}"), text);
    }
    rig.write("mcp.json", "[]");
    fs::write(rig.path("binary"), [0xff, 0xfe, 0]).unwrap();
    for (args, expected, words) in CASES {
        let done = rig.exec(args, &[("ANTHROPIC_API_KEY", KEY)]);
        assert_eq!(code(&done), *expected, "{args:?}: {done:?}");
        assert!(out(&done).is_empty() && err(&done).starts_with("error: "), "{args:?}: {done:?}");
        for word in *words {
            assert!(err(&done).contains(word), "{args:?}: no {word:?} in {}", err(&done));
        }
    }
    assert!(!rig.path("project/.workbench").exists(), "something was written");
}

#[test]
fn where_nothing_can_be_written_it_says_what_to_change() {
    let rig = Rig::new();
    rig.write(".config/ozma/models/cat.toml", "command = \"cat\"\n");
    rig.write("project/.workbench", "no folder");
    let done = rig.exec(&["-m", "cat", "hello"], &[]);
    assert!(code(&done) == 3 && err(&done).contains("--project"), "{done:?}");
    fs::remove_file(rig.path("project/.workbench")).unwrap();
    let file = rig.path(".config/ozma/models/cat.toml");
    let done = rig.exec(&["-m", "cat", "hello"], &[("XDG_STATE_HOME", file.to_str().unwrap())]);
    assert!(code(&done) == 3 && err(&done).contains("XDG_STATE_HOME"), "{done:?}");
    assert!(!rig.path("project/.workbench").exists(), "something was written");
}

#[test]
fn a_provider_without_a_key_or_a_model_says_where_they_come_from_here() {
    let rig = Rig::new();
    for name in ["claude", "opencode"] {
        rig.program(name, "exit 1");
    }
    for (args, vars) in [
        (&["hello"][..], &[][..]),
        (&["-m", "opencode", "hello"], &[("OPENAI_API_KEY", KEY)]),
        (&["-m", "agent", "hello"], &[("OPENAI_API_KEY", KEY)]),
    ] {
        let done = rig.exec(args, vars);
        assert_eq!(code(&done), 1, "{args:?}: {done:?}");
        for word in ["hint: ", "your own environment", "--model PROVIDER/MODEL", "ozma doctor"] {
            assert!(err(&done).contains(word), "{args:?}: no {word:?} in {}", err(&done));
        }
    }
}
