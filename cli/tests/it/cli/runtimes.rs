//! `ozma doctor` over the providers' command lines of a machine.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use super::Home;

/// Must stand nowhere in what doctor says.
const KEY: &str = "sk-of-the-test-0123456789";

fn program(home: &Home, name: &str, script: &str) {
    let path = home.0.path().join("bin").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn doctor_says_which_providers_are_here_and_what_they_would_get() {
    let home = Home::new();
    program(&home, "claude", "[ \"$1\" = --version ] && echo '2.1.329 (Claude Code)'");
    program(&home, "gemini", "echo broken >&2; exit 1");
    let path = format!("{}:/usr/bin:/bin", home.0.path().join("bin").display());
    let vars = [("PATH", path.as_str()), ("ANTHROPIC_API_KEY", KEY)];
    let doctor = |more: &[&str]| {
        let args = [&["doctor", "--offline", "--json"], more].concat();
        let done = home.ozma_with(&args, &vars);
        assert!(!done.out.contains(KEY) && !done.err.contains(KEY), "the key shows: {done:?}");
        (done.code, serde_json::from_str::<Value>(&done.out).unwrap_or_else(|_| panic!("{done:?}")))
    };

    let (code, report) = doctor(&["--require-runtime", "--runtimes", "claude-code,codex"]);
    assert_eq!((code, &report["ok"]), (1, &false.into()));
    let (claude, codex) = (&report["runtimes"][0], &report["runtimes"][1]);
    assert_eq!(claude["version"], "2.1.329 (Claude Code)");
    assert_eq!(
        (&claude["authenticated"], &claude["key"]),
        (&true.into(), &"ANTHROPIC_API_KEY".into())
    );
    let injected = &claude["injected"];
    let has = |list: &str, what: &str| injected[list].as_array().unwrap().contains(&what.into());
    assert!(has("arguments", "--dangerously-skip-permissions"), "{injected}");
    assert!(has("variables", "ANTHROPIC_API_KEY"), "{injected}");
    assert_eq!((&codex["path"], &codex["authenticated"]), (&Value::Null, &false.into()));
    let verdicts: Vec<&Value> =
        report["checks"].as_array().unwrap().iter().map(|check| &check["verdict"]).collect();
    assert_eq!(verdicts, ["pass", "fail"]);

    // One that is not required, or has no key, is a warning.
    let (code, report) = doctor(&["--runtimes", "codex,gemini-cli"]);
    assert_eq!((code, &report["ok"]), (0, &true.into()));
    assert_eq!(report["checks"][1]["verdict"], "warn", "{report}");
    let (code, _) = doctor(&["--require-runtime", "--runtimes", "claude-code,agent"]);
    assert_eq!(code, 0);
    // Whichever there is.
    let (code, report) = doctor(&["--require-runtime"]);
    assert_eq!((code, report["runtimes"].as_array().unwrap().len()), (0, 4));

    let text = home.ozma_with(&["doctor", "--offline", "--runtimes", "claude-code"], &vars);
    assert!(text.out.starts_with("pass  claude-code 2.1.329"), "{text:?}");
    assert!(text.out.contains("variables: ") && !text.out.contains(KEY), "{text:?}");
}

#[test]
fn doctor_fails_where_no_provider_is_here() {
    let home = Home::new();
    let none =
        home.ozma_with(&["doctor", "--offline", "--require-runtime"], &[("PATH", "/nowhere")]);
    assert_eq!(none.code, 1, "{none:?}");
    assert!(none.out.contains("npm install -g"), "{none:?}");
    // Its own log-in is seen, and said not to be used.
    program(&home, "codex", "echo codex-cli 0.169.0");
    fs::create_dir(home.0.path().join(".codex")).unwrap();
    fs::write(home.0.path().join(".codex/auth.json"), "{}").unwrap();
    let path = home.0.path().join("bin");
    let vars = [("PATH", path.to_str().unwrap())];
    let seen = home.ozma_with(&["doctor", "--offline", "--require-runtime"], &vars);
    assert_eq!(seen.code, 0, "{seen:?}");
    assert!(
        seen.out.contains(".codex/auth.json") && seen.out.contains("CODEX_API_KEY"),
        "{seen:?}"
    );
    // One that is there and cannot be started is none.
    let broken = home.0.path().join("bin/codex");
    fs::write(&broken, "#!/no/such/interpreter\n").unwrap();
    for args in [&["--require-runtime"][..], &["--require-runtime", "--runtimes", "codex"]] {
        let args = [&["doctor", "--offline"], args].concat();
        let seen = home.ozma_with(&args, &vars);
        assert_eq!(seen.code, 1, "{seen:?}");
        assert!(seen.out.contains("bin/codex cannot be started"), "{seen:?}");
    }
    let unknown = home.ozma(&["doctor", "--runtimes", "claude-code,nobody"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
}
