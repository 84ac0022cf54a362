//! The command line itself: what it says and how it ends, without an engine.

mod planes;
mod runtimes;

use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// How a command ended.
#[derive(Debug)]
struct Done {
    code: i32,
    out: String,
    err: String,
}

/// `ozma` in a home of its own and an environment of nothing but what is said here.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn command(&self, args: &[&str], vars: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ozma"));
        command
            .args(args)
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path())
            .envs(vars.iter().copied())
            .stdin(Stdio::null());
        command
    }

    fn ozma_with(&self, args: &[&str], vars: &[(&str, &str)]) -> Done {
        let done = self.command(args, vars).output().unwrap();
        Done {
            code: done.status.code().unwrap(),
            out: String::from_utf8(done.stdout).unwrap(),
            err: String::from_utf8(done.stderr).unwrap(),
        }
    }

    fn ozma(&self, args: &[&str]) -> Done {
        self.ozma_with(args, &[])
    }

    fn context(&self, text: &str) {
        let folder = self.0.path().join(".config/ozma");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("context.toml"), text).unwrap();
    }
}

/// An address where nobody listens: the port was ours a moment ago.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn bad_usage_ends_with_2_and_does_nothing() {
    let home = Home::new();
    for args in [
        &["no-such-command"][..],
        &["run", "x", "--env", "a", "--image", "b"],
        &["run", "x", "--file", "y"],
        &["runs", "show", "../etc"],
        &["runs", "list", "--state", "SLEEPING"],
        &["env", "create"],
        &["worker", "--backend", "podman"],
        &["login", "--url", "http://user:password@x"],
    ] {
        let done = home.ozma(args);
        assert_eq!(done.code, 2, "{args:?}: {done:?}");
        assert!(done.err.contains("error"), "{args:?}: {done:?}");
        assert_eq!(done.out, "", "{args:?}");
    }
    assert_eq!(std::fs::read_dir(home.0.path()).unwrap().count(), 0, "something was written");
}

#[test]
fn help_and_version_end_with_0() {
    let home = Home::new();
    let help = home.ozma(&["--help"]);
    assert_eq!(help.code, 0);
    for command in ["up", "run", "runs", "env", "demo", "doctor", "serve", "worker", "bench"] {
        assert!(help.out.contains(command), "{command} is not in the help");
    }
    assert!(home.ozma(&["--version"]).out.starts_with("ozma "));
}

#[test]
fn without_a_plane_it_says_how_to_get_one() {
    let home = Home::new();
    let unknown = home.ozma(&["run", "hello"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.err.contains("ozma up") && unknown.err.contains("--url"), "{unknown:?}");

    let url = nobody();
    let away = home.ozma(&["runs", "list", "--url", &url, "--token", "t"]);
    assert_eq!(away.code, 3, "{away:?}");
    assert!(away.err.starts_with(&format!("error: no plane answers at {url}")), "{away:?}");
    assert!(away.err.contains("hint: start one with `ozma up`"), "{away:?}");
}

#[test]
fn the_flag_comes_before_the_variable_and_that_before_the_context() {
    let home = Home::new();
    let (flag, variable, noted) = (nobody(), nobody(), nobody());
    home.context(&format!("url = \"{noted}\"\ntoken = \"t\"\n"));
    let vars = [("OZMA_URL", variable.as_str()), ("OZMA_TOKEN", "t")];
    let asked = |done: Done, url: &str| assert!(done.err.contains(url), "{url}: {done:?}");
    asked(home.ozma_with(&["runs", "list", "--url", &flag], &vars), &flag);
    asked(home.ozma_with(&["runs", "list"], &vars), &variable);
    asked(home.ozma(&["runs", "list"]), &noted);

    // The context's token goes to no other plane.
    let other = home.ozma(&["runs", "list", "--url", &flag]);
    assert_eq!(other.code, 2, "{other:?}");
    assert!(other.err.contains("no token for"), "{other:?}");
}

#[test]
fn completions_know_the_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let done = home.ozma(&["completions", shell]);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.out.contains("doctor"), "{shell}");
    }
    // A reader that goes away is no failure.
    let mut child = home
        .command(&["completions", "bash"], &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    assert_eq!((done.status.code(), done.stderr.len()), (Some(0), 0), "{done:?}");
}

#[test]
fn a_wrong_configuration_is_named_and_nothing_starts() {
    let home = Home::new();
    let file = home.0.path().join("ozma.toml");
    let path = file.to_str().unwrap();
    for (text, named) in [
        ("lissten = \"127.0.0.1:0\"", "lissten"),
        ("listen = \"0.0.0.0:0\"", "OZ_ALLOW_OPEN_TENANCY"),
        ("lease_ms = 1", "lease_ms"),
        ("admin_key = \"short\"", "admin_key"),
    ] {
        std::fs::write(&file, text).unwrap();
        let done = home.ozma(&["serve", "--config", path, "--check-config"]);
        assert_eq!(done.code, 2, "{text}: {done:?}");
        assert!(done.err.contains(named), "{text}: {done:?}");
        assert!(!done.err.contains("\"short\""), "a secret was shown: {done:?}");
    }
    std::fs::write(&file, "listen = \"127.0.0.1:0\"").unwrap();
    let done = home.ozma(&["serve", "--config", path, "--check-config"]);
    assert_eq!((done.code, done.out.as_str()), (0, "the configuration is valid\n"), "{done:?}");

    let worker = home.ozma(&["worker", "--state-dir", "/tmp/x"]);
    assert_eq!(worker.code, 2, "{worker:?}");
    assert!(worker.err.contains("--token-file"), "{worker:?}");
    let folder = format!("{path}/x");
    let worker = home.ozma(&["worker", "--token", "t", "--state-dir", &folder]);
    assert_eq!(worker.code, 3, "{worker:?}");
    assert!(worker.err.contains("hint: name a folder"), "{worker:?}");
}

#[test]
fn doctor_gives_json_and_fails_when_a_check_does() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let nowhere = format!("unix://{}/no.sock", home.0.path().display());
    let done =
        home.ozma_with(&["doctor", "--json", "--listen", &listen], &[("DOCKER_HOST", &nowhere)]);
    assert_eq!(done.code, 1, "{done:?}");
    let report: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(report["ok"], false);
    let check = |name: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks
            .iter()
            .find(|check| check["name"] == name)
            .unwrap_or_else(|| panic!("{name}"))
            .clone()
    };
    assert_eq!(check("port")["verdict"], "fail");
    assert_ne!(check("engine")["verdict"], "pass");
    assert_eq!(check("database")["verdict"], "pass");
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["verdict"] == "pass", check.get("fix").is_none(), "{check}");
    }
}

#[test]
fn a_workers_file_is_checked_with_the_files_it_names() {
    let home = Home::new();
    let file = home.0.path().join("worker.toml");
    let path = file.to_str().unwrap();
    for (text, wrong) in [
        ("[providers.claude]\napi_key_file = \"/no/such/key\"", "providers.claude.api_key_file"),
        ("[providers.agent]\nscript_file = \"/no/such.json\"", "providers.agent.script_file"),
        ("[providers.codex]\napi_key = \" \"", "providers.codex: api_key: is empty"),
        ("[providers.codex]\napi_key = \"hunter2\" x", "line 2"),
        ("[providers.codex]\napi_key = \"hunter2\"\napi_key_file = \"/x\"", "only one of them"),
    ] {
        std::fs::write(&file, text).unwrap();
        let done = home.ozma(&["worker", "--config", path, "--check-config"]);
        assert_eq!(done.code, 2, "{text}: {done:?}");
        assert!(done.err.contains(wrong) && !done.err.contains("hunter2"), "{text}: {done:?}");
    }
}

#[test]
fn up_says_what_is_missing() {
    let home = Home::new();
    let nowhere = format!("unix://{}/no.sock", home.0.path().display());
    let vars = [("DOCKER_HOST", nowhere.as_str()), ("OZ_SIDECAR_BINARY", "/no/such/sidecar")];
    let done = home.ozma_with(&["up", "--listen", "127.0.0.1:0"], &vars);
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.err.contains("no container engine answers"), "{done:?}");
    assert!(done.err.contains("hint: start an engine"), "{done:?}");

    // Its worker's file is read before anything begins.
    let file = home.0.path().join("worker.toml");
    std::fs::write(&file, "[providers.claude]\nkey = \"hunter2\"\n").unwrap();
    let done = home.ozma_with(&["up", "--worker-config", file.to_str().unwrap()], &vars);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.err.contains("unknown field `key`"), "{done:?}");
}
