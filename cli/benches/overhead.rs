//! What the sidecar and the adapter cost over running the same command line by hand in the same container:
//! `cargo bench -p cli --bench overhead`, and `-- PROVIDER…`, `-- --count N`, `-- --json`.
//!
//! Each run's image has a program of the provider's name which runs the real one twice with the same arguments,
//! input and values, and tells how long each took: once by hand, with its output thrown away, once for the adapter.
//! Every other run does it in the other order, and each two neighbours count as one, their mean: a command line
//! takes longer the first time in a container. A container that only ends is started in turns with them. Then
//!
//! * *around* is the container's life less both, and less the life of the bare container;
//! * *within* is how much longer the one under the adapter took than the one by hand;
//! * *overhead* is the sum of the two, run by run: what a run takes more than the command line takes in a container.
//!
//! Memory is that of the sidecar's two processes while a tool of the provider sleeps: their proportional share.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own, for people")]

#[expect(dead_code, clippy::unwrap_used, reason = "it is the tests' own, and they use the rest")]
#[path = "../tests/it/client.rs"]
mod client;
#[expect(dead_code, clippy::unwrap_used, reason = "it is the tests' own, and they use the rest")]
#[path = "../tests/it/images.rs"]
mod images;
#[expect(dead_code, clippy::unwrap_used, reason = "it is the tests' own, and they use the rest")]
#[path = "../tests/it/stack.rs"]
mod stack;

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use protocol::{event::Event, run::RunState};
use serde_json::{Value, json};
use test_support::{
    image::{self, LABEL, docker},
    model::Model,
    wait::eventually_within,
};

use crate::{client::Tenant, stack::Stack};

const PROVIDERS: [&str; 4] = ["claude", "codex", "opencode", "gemini"];

/// Runs of each provider that count, an even number; one more goes before them.
const COUNT: usize = 20;

const PATIENCE: Duration = Duration::from_mins(3);

/// `PROVIDER` is its name.
const TWICE: &str = r#"#!/bin/sh
real=/harness/PROVIDER/bin/PROVIDER
input=$(mktemp) && cat >"$input"
now() { date +%s%N; }
by_hand() { begun=$(now); $real "$@" <"$input" >/dev/null 2>&1; ended=$?; hand=$(($(now) - begun)); }
[ "$BY_HAND" = last ] || by_hand "$@"
begun=$(now)
$real "$@" <"$input"
code=$?
under=$(($(now) - begun))
[ "$BY_HAND" = first ] || by_hand "$@"
echo "took ended=$ended hand=$hand under=$under" >&2
exit $code
"#;

/// Milliseconds of one run.
struct Took {
    life: f64,
    hand: f64,
    under: f64,
}

fn main() {
    let (mut wanted, mut count, mut json) = (Vec::new(), COUNT, false);
    let mut args = std::env::args().skip(1);
    while let Some(argument) = args.next() {
        match argument.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--json" => json = true,
            "--count" => count = args.next().and_then(|n| n.parse().ok()).expect("--count N"),
            name if PROVIDERS.contains(&name) => wanted.push(name.to_owned()),
            other => panic!("{other}: one of {PROVIDERS:?}, --count N, --json"),
        }
    }
    if wanted.is_empty() {
        wanted = PROVIDERS.map(str::to_owned).to_vec();
    }
    assert!(count >= 2 && count % 2 == 0, "--count: an even number");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let rows = runtime.block_on(measure(&wanted, count));
    if json {
        println!("{}", Value::from(rows));
        return;
    }
    println!(
        "| provider | by hand, p50 | around | within | overhead (≤ 60 ms) | sidecar + adapter (≤ 10 MiB) |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for row in rows {
        let ms = |name: &str| format!("{:.0} ms", row[name].as_f64().unwrap_or_default());
        println!(
            "| {} | {} | {} | {} | {} | {:.1} MiB |",
            row["provider"].as_str().unwrap_or_default(),
            ms("hand_ms"),
            ms("around_ms"),
            ms("within_ms"),
            ms("overhead_ms"),
            row["memory_bytes"].as_f64().unwrap_or_default() / f64::from(1 << 20),
        );
    }
}

async fn measure(providers: &[String], count: usize) -> Vec<Value> {
    let stack = Stack::start_with(&[("OZ_WORKER_CAPACITY", "1")]).await;
    let tenant = stack.tenant("tenant-a");
    let mut rows = Vec::new();
    for provider in providers {
        let name = format!("ozma-test:twice-{provider}");
        make_image(provider, &name);
        let model = Model::start_on(&format!("{}:0", images::host())).await;
        let first =
            environment(&tenant, provider, &name, endpoint(provider, &model, "text", "first"))
                .await;
        let last =
            environment(&tenant, provider, &name, endpoint(provider, &model, "text", "last")).await;
        let (mut runs, mut bare) = (Vec::new(), Vec::new());
        for turn in 0..=count {
            eprintln!("{provider}: {turn} of {count}");
            let took = once(&tenant, if turn % 2 == 0 { &first } else { &last }).await;
            let alone = life(&bare_container(&name)).await;
            if turn > 0 {
                runs.push(took);
                bare.push(alone);
            }
        }
        let sleeps = environment(
            &tenant,
            provider,
            images::workshop(),
            endpoint(provider, &model, "sleep", ""),
        )
        .await;
        let memory = memory(&tenant, &sleeps).await;
        image::remove(&name);
        let bare = median(bare);
        let pair =
            |two: &[Took], pick: &dyn Fn(&Took) -> f64| f64::midpoint(pick(&two[0]), pick(&two[1]));
        let of = |pick: &dyn Fn(&Took) -> f64| {
            median(runs.chunks_exact(2).map(|two| pair(two, pick)).collect())
        };
        rows.push(json!({
            "provider": provider,
            "runs": runs.len(),
            "bare_ms": bare,
            "hand_ms": of(&|took| took.hand),
            "around_ms": of(&|took| took.life - took.hand - took.under - bare),
            "within_ms": of(&|took| took.under - took.hand),
            "overhead_ms": of(&|took| took.life - 2.0 * took.hand - bare),
            "memory_bytes": memory,
        }));
    }
    stack.finish().await;
    rows
}

fn make_image(provider: &str, name: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("usr/local/bin").join(provider);
    fs::create_dir_all(folder.path().join("usr/local/bin")).expect("folders");
    fs::write(&file, TWICE.replace("PROVIDER", provider)).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("its mode");
    image::with_files(images::workshop(), folder.path(), name);
}

fn endpoint(provider: &str, model: &Model, scenario: &str, by_hand: &str) -> Value {
    let (key, address, base_url) = match provider {
        "claude" => ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", model.root(scenario)),
        "gemini" => ("GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", model.root(scenario)),
        _ => ("OPENAI_API_KEY", "OPENAI_BASE_URL", model.base_url(scenario)),
    };
    json!({key: "a-key", address: base_url, "BY_HAND": by_hand})
}

async fn environment(tenant: &Tenant, provider: &str, image: &str, values: Value) -> String {
    tenant
        .environment(&json!({
            "name": format!("overhead {provider}"),
            "docker_image": image,
            "env_vars": values,
            "harness": {"type": provider, "model_id": "test-model"},
        }))
        .await
}

async fn once(tenant: &Tenant, environment: &str) -> Took {
    let run = tenant.submit(environment, "do as the model says").await;
    let container = eventually_within(PATIENCE, "the run's container", || async {
        let item = tenant.run(&run).await;
        assert!(!item.state.is_terminal(), "it had no container: {item:?}");
        Stack::containers(&run).pop()
    })
    .await;
    tenant.ended_as(&run, RunState::Succeeded).await;
    eventually_within(PATIENCE, "its container is over", async || {
        Stack::containers(&run).is_empty().then_some(())
    })
    .await;
    let events = tenant.events(&run).await;
    let said = events.iter().find_map(|view| match view.event() {
        Some(Event::Output { text: Some(text), .. }) if text.starts_with("took ") => Some(text),
        _ => None,
    });
    let said = said.expect("the image's program tells how long it took");
    let part = |name: &str| {
        let found = said.split_whitespace().find_map(|word| word.strip_prefix(name));
        found.and_then(|nanos| nanos.parse::<f64>().ok()).expect("nanoseconds") / 1e6
    };
    assert!(said.contains("ended=0 "), "by hand it failed: {said}");
    Took { life: life(&container).await, hand: part("hand="), under: part("under=") }
}

/// A container of the same image whose process ends at once; its id.
fn bare_container(image: &str) -> String {
    let id = docker(&["create", "--label", LABEL, "--network", "none", image, "/bin/true"], &[]);
    docker(&["start", "--attach", &id], &[]);
    docker(&["rm", "--volumes", &id], &[]);
    id
}

/// From a container's start to its end, in milliseconds, by the engine's own account.
async fn life(container: &str) -> f64 {
    let filter = format!("container={container}");
    let format = "{{.Action}} {{.TimeNano}}";
    let args =
        ["events", "--since", "15m", "--until", "0s", "--filter", &filter, "--format", format];
    let at = |told: &str, action: &str| {
        let found = told.lines().find_map(|line| line.strip_prefix(action)?.strip_prefix(' '));
        found.and_then(|nanos| nanos.parse::<f64>().ok()).map(|nanos| nanos / 1e6)
    };
    // It tells of whole seconds that are over.
    eventually_within(PATIENCE, "the container's start and end", async || {
        let told = docker(&args, &[]);
        Some(at(&told, "die")? - at(&told, "start")?)
    })
    .await
}

/// What the sidecar's processes take in a container whose provider waits for its tool.
async fn memory(tenant: &Tenant, environment: &str) -> u64 {
    let run = tenant.submit(environment, "do as the model says").await;
    let processes = eventually_within(PATIENCE, "the tool sleeps", || async {
        let item = tenant.run(&run).await;
        assert!(!item.state.is_terminal(), "it ended before its tool began: {item:?}");
        let container = Stack::containers(&run).pop()?;
        let told = docker(&["top", &container, "-eo", "pid,args"], &[]);
        told.contains("sleep 300").then_some(told)
    })
    .await;
    let ours = processes.lines().filter_map(|line| {
        let (pid, program) = line.trim_start().split_once(' ')?;
        let ours = ["/agent/ozma-sidecar supervise", "/proc/self/exe harness"];
        ours.iter().any(|ours| program.trim_start().starts_with(ours)).then(|| pid.to_owned())
    });
    let shares: Vec<u64> = ours.map(|pid| share(&pid)).collect();
    assert!(shares.len() >= 2, "the supervisor and the harness: {processes}");
    tenant.cancel(&run).await;
    tenant.ended(&run).await;
    shares.iter().sum()
}

/// The proportional share of a process: a page that two of them map counts as half a page in each.
fn share(pid: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .expect("our own container's process");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a line Pss");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kib << 10
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}
