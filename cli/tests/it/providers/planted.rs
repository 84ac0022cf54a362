//! Marked keys, looked for everywhere a run of a provider leaves something: only the provider may have them.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use protocol::{api::artifacts::ArtifactItem, run::RunState};
use serde_json::{Value, json};
use test_support::{
    image::{LABEL, docker},
    model::Model,
    wait::eventually_within,
};

use crate::{client::Tenant, images, secrets::clean_folder, stack::Stack};

/// In the worker's configuration.
const OF_WORKER: &str = "planted-model-key-of-the-worker-7a1d";
/// Among the environment's values.
const OF_ENVIRONMENT: &str = "planted-model-key-of-the-environment-c3f0";
/// For a server of tools.
const OF_SERVER: &str = "planted-key-of-the-server-19be";

const SECRETS: [&str; 3] = [OF_WORKER, OF_ENVIRONMENT, OF_SERVER];

/// Left behind by the set-up, as root: it looks at every process for every one of them, over and over. Its own words
/// are no match for what it looks for.
const SPY: &str = r"(while :; do
    grep -las -e 'planted-[m]odel-key-of-the-' -e 'planted-[k]ey-of-the-' \
        /proc/[0-9]*/environ /proc/[0-9]*/cmdline >>/workspace/found
    echo looked >/workspace/looked
    sleep 0.05
done) >/dev/null 2>&1 &";

/// The quick ones first: a tool that has slept for two minutes is ended by some.
const PROVIDERS: [&str; 5] = ["agent", "claude", "codex", "gemini", "opencode"];

#[tokio::test]
async fn a_providers_key_is_found_nowhere_else() {
    let model = Model::start_on(&format!("{}:0", images::host())).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("worker.toml");
    fs::write(&config, worker_config(&model)).unwrap();
    let stack = Stack::start_with(&[("OZ_WORKER_CONFIG", config.to_str().unwrap())]).await;
    let tenant = stack.tenant("tenant-a");

    // One with the environment's key in place of the worker's, and one of each with the worker's, to be cancelled.
    let own = endpoint("claude", &model.root("sleep"));
    let mut runs = vec![("claude", begin(&tenant, "claude", own).await)];
    for provider in PROVIDERS {
        runs.push((provider, begin(&tenant, provider, json!({})).await));
    }
    // With the environment's key: one of each that works, and one that is refused by an endpoint that says with
    // which key.
    let refusing = refusing();
    let mut others = Vec::new();
    for provider in PROVIDERS {
        for (root, end) in [
            (model.root("file"), RunState::Succeeded),
            (format!("http://{refusing}"), RunState::Failed),
        ] {
            let run = begin(&tenant, provider, endpoint(provider, &root)).await;
            others.push((provider, run, end));
        }
    }

    for (provider, run) in &runs {
        let container = until_its_tool_runs(&tenant, run).await;
        clean(provider, "docker inspect", &docker(&["inspect", &container], &[]));
        clean(provider, "a command line", &docker(&["top", &container, "-eo", "pid,args"], &[]));
        clean(provider, "docker logs", &docker(&["logs", &container], &[]));
        tenant.cancel(run).await;
        tenant.ended_as(run, RunState::Cancelled).await;
        left_by(&tenant, provider, run).await;
    }
    for (provider, run, end) in &others {
        let item = tenant.ended_as(run, *end).await;
        let code = item.status_message.and_then(|message| message.error_code);
        let refused = (*end == RunState::Failed).then_some("auth_expired");
        assert_eq!(code.as_deref(), refused, "{provider}");
        left_by(&tenant, provider, run).await;
    }
    // Each was asked with the key it was meant to be asked with.
    let asked_with = |key: &str| {
        let shows = |value: &String| value.contains(key);
        model.requests().iter().filter(|request| request.headers.values().any(shows)).count()
    };
    assert!(
        asked_with(OF_WORKER) >= PROVIDERS.len() && asked_with(OF_ENVIRONMENT) > PROVIDERS.len()
    );

    // What its endpoint says a provider writes into its session as it is: that is the endpoint's doing.
    let refused = |volume: &String| {
        others.iter().any(|(_, run, end)| *end == RunState::Failed && volume.ends_with(run))
    };
    let mut volumes = crate::stack::kept(stack.worker_id());
    volumes.retain(|volume| !refused(volume));
    assert!(volumes.len() >= runs.len() + PROVIDERS.len(), "{volumes:?}");
    for volume in volumes {
        let mount = format!("{volume}:/kept:ro");
        let look =
            format!("grep -rlF {} /kept || true", SECRETS.map(|s| format!("-e {s}")).join(" "));
        let run = ["run", "--rm", "--label", LABEL, "--network", "none", "--volume", &mount];
        let found = docker(&[&run[..], &[images::busybox(), "sh", "-c", &look]].concat(), &[]);
        assert!(found.is_empty(), "{volume} keeps a key in {found}");
    }
    clean("any", "the logs", &stack.logs());
    clean_folder(stack.folder(), &SECRETS);
    stack.finish().await;
}

/// Every provider's endpoint is the worker's.
fn worker_config(model: &Model) -> String {
    let table = |provider: &str| {
        let base_url = match provider {
            "claude" | "gemini" => model.root("sleep"),
            _ => model.base_url("sleep"),
        };
        format!(
            "[providers.{provider}]\nbase_url = \"{base_url}\"\nmodel = \"test-model\"\napi_key = \"{OF_WORKER}\"\n"
        )
    };
    format!("capacity = 3\n{}", PROVIDERS.map(table).concat())
}

/// The environment's own endpoint, and its key, under the provider's own names.
fn endpoint(provider: &str, root: &str) -> Value {
    match provider {
        "claude" => json!({"ANTHROPIC_API_KEY": OF_ENVIRONMENT, "ANTHROPIC_BASE_URL": root}),
        "gemini" => json!({"GEMINI_API_KEY": OF_ENVIRONMENT, "GOOGLE_GEMINI_BASE_URL": root}),
        _ => json!({"OPENAI_API_KEY": OF_ENVIRONMENT, "OPENAI_BASE_URL": format!("{root}/v1")}),
    }
}

/// The address of an endpoint that refuses every key, and shows it while it does.
fn refusing() -> std::net::SocketAddr {
    let listener = TcpListener::bind((images::host(), 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // Some connect ahead of their first request.
            std::thread::spawn(move || refuse(&stream));
        }
    });
    addr
}

fn refuse(stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut shown, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        if value.contains(OF_ENVIRONMENT) {
            value.clone_into(&mut shown);
        }
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().unwrap_or_default();
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    let body = json!({"type": "error", "error": {
        "type": "authentication_error", "code": 401, "status": "UNAUTHENTICATED",
        "message": format!("Incorrect API key provided: {shown}"),
    }});
    let body = body.to_string();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

async fn begin(tenant: &Tenant, provider: &str, env: Value) -> String {
    let servers = json!({"flow": {"command": "perl", "args": ["/opt/flow/flow.pl"], "env": {"TOKEN": OF_SERVER}}});
    let environment = tenant
        .environment(&json!({
            "name": provider,
            "docker_image": images::workshop(),
            "repos": ["/srv/shop.git"],
            "setup_commands": [SPY],
            "artifacts": ["found", "looked"],
            "env_vars": env,
            "harness": {"type": provider, "mcp_servers": servers},
        }))
        .await;
    let shown = tenant.get(&format!("/environments/{environment}")).await.text().await.unwrap();
    // Its own values are shown to whoever set them; what its servers are given is not.
    assert!(!shown.contains(OF_SERVER) && !shown.contains(OF_WORKER), "{shown}");
    tenant.submit(&environment, "do as the model says").await
}

/// Gives its container.
async fn until_its_tool_runs(tenant: &Tenant, run: &str) -> String {
    eventually_within(Duration::from_mins(3), "the tool sleeps", || async {
        let sleeping = |id: &String| docker(&["top", id], &[]).contains("sleep 300");
        let found = Stack::containers(run).into_iter().find(sleeping);
        if found.is_none() {
            let item = tenant.run(run).await;
            assert!(!item.state.is_terminal(), "it ended before its tool began: {item:?}");
        }
        found
    })
    .await
}

/// Everything the API tells of the run.
async fn left_by(tenant: &Tenant, provider: &str, run: &str) {
    for path in ["", "/events?limit=1000", "/evidence/events.jsonl", "/evidence/summary.json"] {
        let answer = tenant.get(&format!("/agent/runs/{run}{path}")).await;
        assert!(answer.status().is_success(), "{provider}: {path}: {}", answer.status());
        clean(provider, path, &answer.text().await.unwrap());
    }
    let mut names = Vec::new();
    for artifact in &tenant.run(run).await.artifacts {
        let ArtifactItem::File { data, .. } = artifact else { continue };
        let content = tenant.artifact(data.artifact_uid.as_str()).await;
        let content = String::from_utf8_lossy(&content);
        clean(provider, &data.filename, &content);
        assert!(
            data.filename != "found" || content.is_empty(),
            "{provider}: what the set-up left behind found the key in {content}"
        );
        names.push(
            Path::new(&data.filename)
                .extension()
                .map_or(data.filename.clone(), |end| end.to_string_lossy().into_owned()),
        );
    }
    assert!(
        names.iter().any(|name| name == "looked"),
        "{provider}: the spy saw nothing at all: {names:?}"
    );
    if provider != "agent" {
        assert!(names.iter().any(|name| name == "jsonl"), "{provider}: no transcript: {names:?}");
    }
}

fn clean(provider: &str, what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{provider}: {what} shows {secret}: {text}");
    }
}
