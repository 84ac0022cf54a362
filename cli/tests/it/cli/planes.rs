//! The command line with a plane behind it, still without an engine.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::Home;

/// A plane as a process; killed when the test ends.
struct Serving {
    child: std::process::Child,
    url: String,
    key: String,
}

impl Serving {
    fn start(home: &Home) -> Self {
        let mut child = home
            .command(&["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"], &[])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let url = first.strip_prefix("listening on ").unwrap().to_owned();
        let second = lines.next().unwrap().unwrap();
        let path = home.0.path().join(second.strip_prefix("admin key in ").unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let key = std::fs::read_to_string(&path).unwrap().trim().to_owned();
        Self { child, url, key }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn against_a_real_plane() {
    let home = Home::new();
    let plane = Serving::start(&home);

    // A token that works is kept, from standard input, for its owner only.
    let mut login = home
        .command(&["login", "--url", &plane.url], &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    login.stdin.take().unwrap().write_all(b"a-tenant-of-the-test\n").unwrap();
    assert!(login.wait_with_output().unwrap().status.success());
    let context = home.0.path().join(".config/ozma/context.toml");
    assert_eq!(std::fs::metadata(&context).unwrap().permissions().mode() & 0o777, 0o600);

    let made =
        home.ozma(&["env", "create", "shop", "--image", "busybox", "--repo", "/srv/x.git#main"]);
    assert_eq!(made.code, 0, "{made:?}");
    assert!(made.out.starts_with("env_"), "{made:?}");
    let shown = home.ozma(&["env", "show", "shop"]);
    assert!(shown.out.contains("/srv/x.git at main"), "{shown:?}");

    let run = home.ozma(&["run", "--env", "shop", "--title", "a title", "--no-follow", "do it"]);
    assert_eq!(run.code, 0, "{run:?}");
    let id = run.out.trim();
    let list = home.ozma(&["runs", "list"]);
    assert!(list.out.contains(id) && list.out.contains("QUEUED"), "{list:?}");
    assert!(list.out.starts_with("RUN ") && !list.out.contains('\x1b'), "{list:?}");
    assert_eq!(home.ozma(&["runs", "cancel", id]).code, 0);
    let shown = home.ozma(&["runs", "show", id]);
    assert!(shown.out.contains("CANCELLED") && shown.out.contains("a title"), "{shown:?}");
    // Following a run that has ended ends with its outcome.
    let logs = home.ozma(&["runs", "logs", "-f", "--json", id]);
    assert_eq!(logs.code, 130, "{logs:?}");
    let end: Value = serde_json::from_str(logs.out.lines().last().unwrap()).unwrap();
    assert_eq!(end["data"]["state"], "CANCELLED");
    // Once more is refused by the plane, in its words and with its code.
    let again = home.ozma(&["runs", "cancel", id]);
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.err.contains("(invalid_request)"), "{again:?}");
    assert!(again.err.contains("hint: `ozma runs show"), "{again:?}");
    let artifact = home.ozma(&["runs", "artifact", id]);
    assert!(artifact.err.contains("hint: `ozma runs show"), "{artifact:?}");
    // An empty prompt says where one comes from; a tenant's "global" environment says that it is not.
    let empty = home.ozma(&["run", ""]);
    assert!(empty.code == 2 && empty.err.contains("--file"), "{empty:?}");
    let global = home.ozma(&["env", "create", "all", "--image", "busybox", "--global"]);
    assert!(global.code == 0 && global.err.contains("admin key"), "{global:?}");
    assert_eq!(home.ozma(&["env", "delete", "all"]).code, 0);

    let unknown = home.ozma(&["runs", "show", "00000000-0000-7000-8000-000000000000"]);
    assert!(unknown.code == 2 && unknown.err.contains("hint:"), "{unknown:?}");

    let admin = [("OZ_ADMIN_API_KEY", plane.key.as_str())];
    let token = home.ozma_with(&["token", "create", "ci", "--quiet"], &admin);
    assert_eq!(token.code, 0, "{token:?}");
    assert!(token.out.starts_with("opr_"), "{token:?}");
    let listed = home.ozma_with(&["token", "list"], &admin);
    assert!(listed.out.contains("ci") && !listed.out.contains(token.out.trim()), "{listed:?}");
    let refused = home.ozma_with(&["token", "list", "--token", "a-tenant-of-the-test"], &[]);
    assert!(refused.code == 3 && refused.err.contains("admin key"), "{refused:?}");

    queue_and_fleet(&home, &admin);
    assert_eq!(home.ozma(&["env", "delete", "shop"]).code, 0);
    assert!(home.ozma(&["env", "list"]).err.contains("no environments"));
}

/// Why a run waits, what its tenant may have, and drains of a worker that is not there.
fn queue_and_fleet(home: &Home, admin: &[(&str, &str)]) {
    let run = home.ozma(&["run", "--env", "shop", "--no-follow", "do it"]);
    let why = home.ozma(&["runs", "why", run.out.trim()]);
    assert!(why.out.starts_with("QUEUED: no worker is connected"), "{why:?}");
    let why = home.ozma(&["runs", "why", run.out.trim(), "--json"]);
    let why: Value = serde_json::from_str(&why.out).unwrap();
    assert_eq!(why["code"], "no_worker");

    let listed = home.ozma_with(&["tenants", "list", "--json"], admin);
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    let waiting = listed["tenants"].as_array().unwrap().iter().find(|one| one["queued"] == 1);
    let tenant = waiting.unwrap()["tenant_id"].as_str().unwrap();
    home.ozma_with(&["tenants", "limit", tenant, "--queued", "1"], admin);
    let set = home.ozma_with(&["tenants", "limit", tenant, "--running", "3"], admin);
    let columns: Vec<_> = set.out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(columns, [tenant, "1", "1*", "0", "3*"], "{set:?}");
    let full = home.ozma(&["run", "--env", "shop", "--no-follow", "one too many"]);
    assert!(full.code != 0 && full.err.contains("1 runs are waiting"), "{full:?}");
    assert_eq!(home.ozma_with(&["tenants", "limit", tenant, "--reset"], admin).code, 0);

    let drained = home.ozma_with(&["worker", "drain", "rack 1", "--wait"], admin);
    assert!(drained.out.contains("runs nothing"), "{drained:?}");
    assert!(drained.err.contains("not connected"), "{drained:?}");
    assert_eq!(home.ozma_with(&["worker", "resume", "rack 1"], admin).code, 0);
    assert_eq!(home.ozma(&["runs", "cancel", run.out.trim()]).code, 0);
}

#[test]
fn bounds_and_retries_are_said_on_the_command_line_and_shown() {
    let home = Home::new();
    let plane = Serving::start(&home);
    home.context(&format!("url = \"{}\"\ntoken = \"a-tenant-of-the-test\"\n", plane.url));
    let made = home.ozma(&[
        "env",
        "create",
        "shop",
        "--image",
        "busybox",
        "--timeout",
        "300",
        "--queue-timeout",
        "60",
        "--retry",
        "2",
        "--retry-on",
        "oom",
        "--retry-on",
        "setup",
        "--tag",
        "gpu",
    ]);
    assert_eq!(made.code, 0, "{made:?}");
    let shown = home.ozma(&["env", "show", "shop"]).out;
    for part in ["at most 300 s", "at most 60 s", "2 attempts after setup, oom", "gpu"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let run = home.ozma(&[
        "run",
        "--env",
        "shop",
        "--no-follow",
        "--priority",
        "-7",
        "--setup-timeout",
        "9",
        "--retry-on",
        "timeout",
        "--tag",
        "eu",
        "do it",
    ]);
    assert_eq!(run.code, 0, "{run:?}");
    let item = home.ozma(&["runs", "show", run.out.trim(), "--json"]);
    let item: Value = serde_json::from_str(&item.out).unwrap();
    let policy = &item["policy"];
    assert_eq!((&item["priority"], &item["max_attempts"]), (&Value::from(-7), &Value::from(2)));
    assert_eq!((&policy["timeout_secs"], &policy["setup_timeout_secs"]), (&300.into(), &9.into()));
    assert_eq!(policy["retry_on"], serde_json::json!(["timeout"]));
    assert_eq!(policy["worker_tags"], serde_json::json!(["eu"]));
    let shown = home.ozma(&["runs", "show", run.out.trim()]).out;
    assert!(shown.contains("waits until") && shown.contains("-7"), "{shown}");

    let unknown = home.ozma(&["run", "--env", "shop", "--retry-on", "luck", "x"]);
    assert!(unknown.code == 2 && unknown.err.contains("worker_lost, image_pull"), "{unknown:?}");
    let refused = home.ozma(&["run", "--env", "shop", "--no-follow", "--priority", "101", "x"]);
    assert!(refused.code == 2 && refused.err.contains("-100 to 100"), "{refused:?}");
}

#[test]
fn one_plane_a_file_and_a_killed_one_leaves_no_lock() {
    let home = Home::new();
    let mut first = Serving::start(&home);
    let args = ["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"];
    let second = home.ozma(&args);
    assert_ne!(second.code, 0, "{second:?}");
    assert!(second.err.contains("another plane runs on this SQLite database"), "{second:?}");
    assert!(second.err.contains("ozma.db.lock"), "{second:?}");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    drop(Serving::start(&home));
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn the_first_interrupt_cancels_the_run() {
    let home = Home::new();
    let plane = Serving::start(&home);
    home.context(&format!("url = \"{}\"\ntoken = \"a-tenant-of-the-test\"\n", plane.url));
    home.ozma(&["env", "create", "shop", "--image", "busybox"]);
    // Nobody takes it: it waits until it is cancelled.
    let mut run = home
        .command(&["run", "--env", "shop", "--json"], &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    run.stdin.take().unwrap().write_all("gr\u{fc}n, from standard input".as_bytes()).unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["data"]["state"], "QUEUED");
    signal("-INT", run.id());
    let end: Value = serde_json::from_str(&lines.last().unwrap().unwrap()).unwrap();
    assert_eq!((&end["kind"], &end["state"]), (&"outcome".into(), &"CANCELLED".into()));
    assert_eq!(end["run"]["prompt"], "gr\u{fc}n, from standard input");
    let done = run.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(130), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stderr).contains("cancelling run"), "{done:?}");
}

#[test]
fn after_up_a_plain_command_works() {
    let home = Home::new();
    // It has to be there, and runs nothing here.
    let vars = [("OZ_SIDECAR_BINARY", "/bin/true"), ("DATABASE_URL", "postgres://another/program")];
    let args = ["up", "--backend", "direct", "--listen", "127.0.0.1:0"];
    let mut up =
        home.command(&args, &vars).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let url = first.strip_prefix("Ozma is up: ").unwrap().split(' ').next().unwrap().to_owned();
    // The last line of the greeting; what it prints afterwards would fill no pipe.
    assert!(lines.any(|line| line.unwrap().contains("ozma runs list")));

    let context = home.0.path().join(".config/ozma/context.toml");
    assert_eq!(std::fs::metadata(&context).unwrap().permissions().mode() & 0o777, 0o600);
    let list = home.ozma(&["runs", "list"]);
    assert_eq!(list.code, 0, "{list:?}");
    let tokens = home.ozma(&["token", "list"]);
    assert!(tokens.code == 0 && tokens.out.contains("ozma up"), "{tokens:?}");

    let second = home.ozma_with(&args, &vars);
    assert_eq!(second.code, 3, "{second:?}");
    assert!(second.err.contains("runs already"), "{second:?}");
    let taken = url.strip_prefix("http://").unwrap();
    let elsewhere = ["up", "--backend", "direct", "--data-dir", "other", "--listen", taken];
    let third = home.ozma_with(&elsewhere, &vars);
    assert_eq!(third.code, 3, "{third:?}");
    assert!(third.err.contains("is taken") && third.err.contains("--listen"), "{third:?}");

    signal("-TERM", up.id());
    let done = up.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(err.contains("not isolated") && err.contains("stopping"), "{err}");
}
