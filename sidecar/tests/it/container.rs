//! The static binary as PID 1 of real containers: nothing of the image but a kernel, and no way back to root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use protocol::{
    event::Phase,
    failure::FailureReason,
    secret::Secret,
    spec::{Endpoint, ProviderKind, RunSpec},
};
use test_support::{
    image::{self, LABEL, docker},
    repo::Repository,
};

use crate::worker::{Heard, Worker, command, with_repo};

/// What the Docker backend gives a container, and no more.
const CAPABILITIES: [&str; 7] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETPCAP", "SETUID"];

/// The folder with the binary as it ships; built unless it is there.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        // What cargo tells a test of its package would make build scripts run again, for minutes of building.
        let told =
            ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_CRATE_", "CARGO_BIN_", "CARGO_PRIMARY_"];
        for (name, _) in std::env::vars_os() {
            if told.iter().any(|told| name.to_string_lossy().starts_with(told)) {
                build.env_remove(name);
            }
        }
        let done = build
            .args(["build", "--quiet", "--package", "sidecar", "--profile", "sidecar"])
            .args(["--target", "x86_64-unknown-linux-musl"])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        // Beside the profile's folder that this test itself runs from: target/debug/deps/it-….
        let own = std::env::current_exe().unwrap();
        let target = own.ancestors().nth(3).unwrap();
        target.join("x86_64-unknown-linux-musl/sidecar")
    })
}

/// A container; gone with this value.
struct Container {
    name: String,
}

impl Container {
    fn start(image: &str, worker: &Worker, more: &[&str]) -> Self {
        let name = format!("ozma-test-{}", worker.folder.path().file_name().unwrap().display());
        let agent = worker.folder.path().join("agent");
        fs::create_dir(&agent).unwrap();
        fs::copy(built().join("ozma-sidecar"), agent.join("ozma-sidecar")).unwrap();
        // As in its image.
        let unreadable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        fs::set_permissions(agent.join("ozma-sidecar"), unreadable).unwrap();
        let mounts = [
            format!("{}:/agent:ro", agent.display()),
            format!("{}:/run/ozma", worker.folder.path().join("sock").display()),
        ];
        let mut args = vec!["run", "--detach", "--network=none", "--user=0:0", "--cap-drop=ALL"];
        let added = CAPABILITIES.map(|capability| format!("--cap-add={capability}"));
        args.extend(added.iter().map(String::as_str));
        args.extend(["--security-opt=no-new-privileges", "--label", LABEL, "--name", &name]);
        args.extend(mounts.iter().flat_map(|mount| ["--volume", mount]));
        args.extend([
            "--env=OZMA_SOCKET=/run/ozma/worker.sock",
            "--entrypoint=/agent/ozma-sidecar",
        ]);
        args.extend(more);
        args.extend([image, "supervise"]);
        docker(&args, &[]);
        Self { name }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.name], &[]);
    }
}

/// A run in a container of its own, to its end; the container's exit code as well.
async fn run(image: &str, spec: RunSpec, more: &[&str]) -> (Heard, String) {
    let mut worker = Worker::listen();
    let container = Container::start(image, &worker, more);
    let heard = worker.run(spec).await;
    let code = docker(&["wait", &container.name], &[]);
    (heard, code.trim().to_owned())
}

fn script(script: &str) -> RunSpec {
    let mut spec = command("");
    spec.harness.provider = ProviderKind::Agent;
    spec.harness.endpoint = Some(Endpoint::Scripted { script: script.to_owned() });
    spec
}

#[test]
fn the_binary_is_static_and_of_bounded_size() {
    let binary = built().join("ozma-sidecar");
    let headers =
        Command::new("readelf").args(["--program-headers"]).arg(&binary).output().unwrap();
    assert!(headers.status.success());
    assert!(!String::from_utf8_lossy(&headers.stdout).contains("INTERP"));
    assert!(fs::metadata(&binary).unwrap().len() <= 10_000_000);
}

#[tokio::test]
async fn the_provider_is_unprivileged_for_good() {
    let mut spec = command(
        "grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs)' /proc/self/status; \
         cat /proc/self/oom_score_adj; echo x > $HOME/x && echo x > ${TMPDIR:-/tmp}/x && echo writable; \
         cat /proc/1/environ; cat /ozma/journal.jsonl; echo x > /x; cat /proc/$PPID/environ; ls -ld .",
    );
    spec.setup_commands = vec!["id -u; echo made > by-root".to_owned()];
    let (heard, code) = run(image::busybox(), spec, &[]).await;
    assert_eq!(code, "0", "{}", heard.everything());
    let lines = heard.stdout();
    for line in [
        "Uid:\t10001\t10001\t10001\t10001",
        "Gid:\t10001\t10001\t10001\t10001",
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "1000",
        "writable",
    ] {
        assert!(lines.iter().any(|printed| printed == line), "{line} is not in {lines:#?}");
    }
    assert!(lines.iter().any(|line| line.trim_end() == "Groups:"), "{lines:#?}");
    // PID 1's environment, the journal, a place outside, and the harness that holds the key.
    let denied = heard.lines(Phase::Provider, protocol::event::Stream::Stderr);
    assert_eq!(
        denied.iter().filter(|line| line.contains("ermission denied")).count(),
        4,
        "{denied:#?}"
    );
    assert_eq!(heard.lines(Phase::Setup, protocol::event::Stream::Stdout), ["0"]);
}

#[tokio::test]
async fn set_up_is_root_and_still_sees_nothing_of_the_supervisor() {
    let mut spec = command("true");
    // Its memory holds the key of the link and the model's, its descriptors lead to the worker.
    spec.setup_commands =
        vec!["id -u; cat /proc/1/maps; cat /proc/1/mem; cat /proc/1/fd/0; exit 0".to_owned()];
    let (heard, code) = run(image::busybox(), spec, &[]).await;
    assert_eq!(code, "0", "{}", heard.everything());
    assert_eq!(heard.lines(Phase::Setup, protocol::event::Stream::Stdout), ["0"]);
    let denied = heard.lines(Phase::Setup, protocol::event::Stream::Stderr);
    assert_eq!(denied.len(), 3, "{denied:#?}");
    assert!(denied.iter().all(|line| line.contains("ermission denied")), "{denied:#?}");
}

/// Looks for harnesses for ever, and notes for each that it finds whether it could open what the key is in.
fn spy(name: &str) -> String {
    format!(
        "while :; do for p in /proc/[0-9]*; do case \"$(tr '\\0' ' ' 2>/dev/null <$p/cmdline)\" in \
         */exe\\ harness*) for f in mem environ maps; do \
         if (: <$p/$f) 2>/dev/null; then echo $f opened; else [ -d $p ] && echo $f denied; fi; \
         done >>/tmp/{name};; esac; done; done"
    )
}

#[tokio::test]
async fn what_set_up_left_running_sees_nothing_of_the_harness() {
    let look = "for name in root agent; do n=0; until [ $(grep -c denied /tmp/$name) -gt 30 ] || [ $n -gt 400 ]; do \
                n=$((n+1)); sleep 0.05; done; sort -u /tmp/$name | sed \"s/^/$name /\"; done";
    let mut worker = Worker::listen();
    let container = Container::start(image::busybox(), &worker, &[]);
    let mut spec = command(look);
    spec.setup_commands = vec![format!("id -u; ({}) </dev/null >/dev/null 2>&1 &", spy("root"))];
    // As what root may become at any time.
    let agent = ["--user=10001:10001", &container.name, "/bin/sh", "-c", &spy("agent")];
    docker(&[&["exec", "--detach"], &agent[..]].concat(), &[]);
    let heard = worker.run(spec).await;
    assert!(heard.exit().unwrap().success, "{}", heard.everything());
    assert_eq!(heard.lines(Phase::Setup, protocol::event::Stream::Stdout), ["0"]);
    let seen = heard.stdout();
    assert_eq!(
        seen,
        [
            "root environ denied",
            "root maps denied",
            "root mem denied",
            "agent environ denied",
            "agent maps denied",
            "agent mem denied"
        ]
    );
}

#[tokio::test]
async fn a_process_of_the_agents_is_not_to_be_looked_into_from_its_first_instruction_on() {
    let worker = Worker::listen();
    let container = Container::start(image::busybox(), &worker, &[]);
    let _connection = worker.accept().await;
    // A mode that protects nothing by itself, and waits on its standard input.
    let look = |binary: &str| {
        let line = format!(
            "mkfifo /tmp/$$; {binary} clone </tmp/$$ & exec 3>/tmp/$$; \
             until tr '\\0' ' ' </proc/$!/cmdline | grep -q clone; do :; done; \
             for f in environ maps mem; do if (: </proc/$!/$f) 2>/dev/null; then echo opened; else echo denied; fi; done; \
             kill -9 $!"
        );
        let user = ["exec", "--user=10001:10001", &container.name, "/bin/sh", "-c", &line];
        docker(&user, &[]).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let copy = "cp /agent/ozma-sidecar /tmp/readable; chmod 755 /tmp/readable";
    docker(&["exec", &container.name, "/bin/sh", "-c", copy], &[]);
    assert_eq!(look("/agent/ozma-sidecar"), ["denied"; 3]);
    // It is its mode that does it.
    assert_eq!(look("/tmp/readable"), ["opened"; 3]);
}

#[tokio::test]
async fn a_supervisor_that_waits_is_small() {
    let worker = Worker::listen();
    let container = Container::start(image::busybox(), &worker, &[]);
    let _connection = worker.accept().await;
    let look = ["exec", &container.name, "/bin/cat", "/proc/1/status"];
    let status = docker(&look, &[]);
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kib: u64 = own.trim().trim_end_matches(" kB").parse().unwrap();
    // The rest is the binary, which all containers share. A kernel that gives huge pages to all is not asked.
    let always = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .is_ok_and(|enabled| enabled.contains("[always]"));
    assert!(always || kib <= 1024, "{status}");
}

#[tokio::test]
async fn orphans_are_reaped() {
    // Each inner shell leaves a child behind; PID 1 must wait for them all.
    let spec = command(
        "for i in 1 2 3 4 5 6 7 8; do sh -c 'sleep 0 & exit'; done; \
         for try in $(seq 1 2000); do \
             zombies=$(cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z 1 '); \
             [ $zombies = 0 ] && break; done; echo zombies $zombies",
    );
    let (heard, _) = run(image::busybox(), spec, &[]).await;
    assert_eq!(heard.stdout(), ["zombies 0"]);
}

#[tokio::test]
async fn want_of_memory_is_named_with_peak_and_limit() {
    let more = ["--memory=64m", "--memory-swap=64m"];
    let (heard, code) = run(image::busybox(), command("tail /dev/zero"), &more).await;
    let exit = heard.exit().unwrap();
    assert_eq!(exit.reason, Some(FailureReason::ContainerOom), "{exit:?}");
    assert_eq!((exit.exit_code, exit.oom_killed, code.as_str()), (Some(137), true, "137"));
    assert!(exit.peak_memory_bytes.unwrap() > 32 << 20);
    assert!(exit.message.contains("limit 64 MiB"), "{}", exit.message);
    // In set-up it is the same.
    let mut spec = command("echo never");
    spec.setup_commands = vec!["tail /dev/zero".to_owned()];
    let (heard, _) = run(image::busybox(), spec, &more).await;
    assert_eq!(heard.exit().unwrap().reason, Some(FailureReason::ContainerOom));
}

#[tokio::test]
async fn nothing_secret_is_seen_from_outside_or_in_any_command_line() {
    let mut worker = Worker::listen();
    let container = Container::start(image::busybox(), &worker, &[]);
    let mut spec = command("echo ready; while [ ! -e /tmp/go ]; do :; done");
    spec.prompt = "marked-prompt".to_owned();
    spec.env.insert("A_VALUE".to_owned(), Secret::new("marked-value"));
    let (mut connection, _) = worker.accept().await;
    connection.assign(spec).await;
    connection.until(|event| matches!(event, protocol::event::Event::Output { .. })).await;
    let inspected = docker(&["inspect", &container.name], &[]);
    let look =
        "tr '\\0' '\\n' < /proc/1/environ; cat /proc/[0-9]*/cmdline; cat /ozma/journal.jsonl";
    let seen = docker(&["exec", &container.name, "/bin/sh", "-c", look], &[]);
    docker(&["exec", &container.name, "/bin/touch", "/tmp/go"], &[]);
    worker.finish(connection).await;
    let logged = docker(&["logs", &container.name], &[]);
    for text in [&inspected, &seen, &logged] {
        assert!(!text.contains("marked-") && !text.contains(crate::worker::KEY), "{text}");
    }
    assert!(inspected.contains("OZMA_SOCKET") && seen.contains("supervise"), "{seen}");
}

#[tokio::test]
async fn an_image_with_nothing_in_it_is_enough_for_the_agent() {
    let empty = tempfile::tempdir().unwrap();
    fs::create_dir(empty.path().join("srv")).unwrap();
    let name = "ozma-test:nothing";
    image::import(empty.path(), name);
    let repo = Repository::with_files(&[("a.txt", "one\n")]);
    let turns = r#"{"name": "n", "turns": [
        {"tools": [{"name": "write_file", "input": {"path": "b.txt", "content": "new\n"}},
                   {"name": "shell", "input": {"command": "true"}}]},
        {"answer": "done"}]}"#;
    let mut spec = script(turns);
    let mut more = Vec::new();
    let mount = format!("--volume={}:/srv/repo:ro", repo.path().display());
    if cfg!(feature = "gix") {
        more.push(mount.as_str());
        spec = with_repo(spec, "/srv/repo");
    }
    let (heard, code) = run(name, spec, &more).await;
    assert_eq!(code, "0", "{}", heard.everything());
    assert!(heard.everything().contains("could not run /bin/sh"));
    if cfg!(feature = "gix") {
        let patch = String::from_utf8(heard.files()["changes.patch"].clone()).unwrap();
        assert!(patch.contains("+new"), "{patch}");
    }
    let mut spec = command("true");
    spec.harness.command = Some("true".to_owned());
    let (heard, _) = run(name, spec, &[]).await;
    assert_eq!(heard.exit().unwrap().reason, Some(FailureReason::AgentInvocation));
    image::remove(name);
}

#[tokio::test]
async fn a_stop_of_the_container_is_nobodys_cancel_and_everything_in_it_ends() {
    let mut worker = Worker::listen();
    let container = Container::start(image::busybox(), &worker, &[]);
    let (mut connection, _) = worker.accept().await;
    connection.assign(command("setsid sleep 600 & echo ready; wait")).await;
    connection.until(|event| matches!(event, protocol::event::Event::Output { .. })).await;
    docker(&["kill", "--signal=TERM", &container.name], &[]);
    let heard = worker.finish(connection).await;
    assert_eq!(heard.exit().unwrap().reason, Some(FailureReason::GracefulShutdown));
    assert_eq!(docker(&["wait", &container.name], &[]).trim(), "1");
}
