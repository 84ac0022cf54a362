//! Bad input gets a problem that names the field and the rule, and changes nothing.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::edge::{ADMIN, Edge};

const RUNS: &str = "/api/v1/agent/runs";
const ENVIRONMENTS: &str = "/api/v1/environments";

fn problem(status: u16, code: &str, field: &str) -> (u16, String, String) {
    (status, code.to_owned(), field.to_owned())
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused() {
    let edge = Edge::start().await;
    let cases: [(&[u8], &str); 8] = [
        (b"{", "body"),
        (b"", "body"),
        (b"[]", "body"),
        (b"{\"prompt\":\"\xff\xfe\"}", "body"),
        (b"{\"prompt\":\"a\"} trailing", "body"),
        (b"{\"prompt\":17}", "prompt"),
        (b"{\"prompt\":\"a\",\"metadata\":{\"k\":1}}", "metadata.k"),
        (b"{\"prompt\":\"a\",\"config\":{\"model_id\":false}}", "config.model_id"),
    ];
    for (body, field) in cases {
        let request = edge.request(Method::POST, RUNS, "alice").body(body.to_vec());
        let answer = edge.send(request).await;
        let shown = String::from_utf8_lossy(body);
        assert_eq!(answer.problem(), problem(400, "invalid_request", field), "{shown}");
    }
    let deep = format!("{{\"attachments\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let answer = edge.send(edge.request(Method::POST, RUNS, "alice").body(deep)).await;
    assert_eq!(answer.problem().0, 400);
    assert_eq!(edge.count_runs().await, 0);
    edge.stop().await;
}

#[tokio::test]
async fn a_run_that_cannot_be_is_refused() {
    let edge = Edge::start().await;
    let nobody = "0198c5f0-0000-7000-8000-000000000000";
    let with = |field: &str, value: Value| json!({"prompt": "x", field: value});
    let config = |field: &str, value: Value| json!({"prompt": "x", "config": {field: value}});
    let cases = [
        (json!({}), 400, "prompt"),
        (json!({"prompt": " \n"}), 400, "prompt"),
        (json!({"prompt": "a\u{0}b"}), 400, "prompt"),
        (json!({"prompt": "x".repeat((1 << 20) + 1)}), 400, "prompt"),
        (config("environment_id", json!("env_none")), 404, "config.environment_id"),
        (config("environment_id", json!("../x")), 404, "config.environment_id"),
        (config("harness", json!({"type": "hal"})), 400, "config.harness.type"),
        (config("worker_host", json!("a\nb")), 400, "config.worker_host"),
        (config("name", json!("a\u{1b}[2J")), 400, "config.name"),
        (config("mcp_servers", json!({"a": {}})), 400, "config.mcp_servers.a"),
        (config("mcp_servers", json!({"a": "x"})), 400, "config.mcp_servers"),
        (config("mcp_servers", json!([])), 400, "config.mcp_servers"),
        (
            config("mcp_servers", json!({"a": {"warp_id": "w"}})),
            422,
            "config.mcp_servers.a.warp_id",
        ),
        (
            config("mcp_servers", json!({"a": {"command": "x", "disabled": true}})),
            422,
            "config.mcp_servers.a.disabled",
        ),
        (config("idle_timeout_minutes", json!(0)), 400, "config.idle_timeout_minutes"),
        (config("skill_spec", json!("a/b:c")), 422, "config.skill_spec"),
        (config("memory_stores", json!([1])), 422, "config.memory_stores"),
        (with("parent_run_id", json!(nobody)), 400, "parent_run_id"),
        (with("skill", json!("a:b")), 422, "skill"),
        (with("mode", json!("plan")), 422, "mode"),
        (with("conversation_id", json!("c")), 404, "conversation_id"),
        (with("conversation_id", json!("../c d")), 404, "conversation_id"),
        (with("attachments", json!([{"data": ""}])), 422, "attachments"),
        (with("metadata", json!({"a b": "c"})), 400, "metadata"),
        (with("metadata", json!({"a": "c".repeat(257)})), 400, "metadata.a"),
        (with("title", json!("t".repeat(900))), 400, "title"),
    ];
    for (body, status, field) in cases {
        let answer = edge.post("alice", RUNS, &body).await;
        let (got, _, named) = answer.problem();
        assert_eq!((got, named.as_str()), (status, field), "{}", answer.text);
    }
    assert_eq!(edge.count_runs().await, 0);
    edge.stop().await;
}

#[tokio::test]
async fn what_is_harmless_is_tolerated_and_named() {
    let edge = Edge::start().await;
    let body = json!({
        "prompt": "x", "team": true, "interactive": false, "attachments": [], "skill": "",
        "mode": "normal", "from_the_future": {"a": 1}, "config": {"nmae": "typo",
            "mcp_servers": {"a": {"command": "x", "disabled": false, "autoApprove": ["y"]}}},
    });
    let answer = edge.post("alice", RUNS, &body).await;
    answer.ok();
    let named: Vec<&str> = answer.header("x-ozma-ignored").split(", ").collect();
    assert!(named.contains(&"team") && named.contains(&"from_the_future"), "{named:?}");
    assert!(named.iter().any(|name| name.ends_with("nmae")), "{named:?}");
    assert!(named.contains(&"config.mcp_servers.a.autoApprove"), "{named:?}");
    let servers = json!({"a": {"url": "http://h", "timeout": 5}});
    let body = json!({"name": "a", "docker_image": "x", "harness": {"mcp_servers": servers}});
    let answer = edge.post("alice", ENVIRONMENTS, &body).await;
    assert_eq!(answer.header("x-ozma-ignored"), "harness.mcp_servers.a.timeout");
    edge.stop().await;
}

#[tokio::test]
async fn an_environment_that_cannot_be_is_refused() {
    let edge = Edge::start().await;
    let with = |field: &str, value: Value| {
        let mut body = json!({"name": "a", "docker_image": "debian"});
        body[field] = value;
        body
    };
    let cases = [
        (json!({"docker_image": "x"}), "name"),
        (with("name", json!(" ")), "name"),
        (with("name", json!("n".repeat(201))), "name"),
        (with("docker_image", json!("")), "docker_image"),
        (with("docker_image", json!("a b")), "docker_image"),
        (with("docker_image", json!("--privileged")), "docker_image"),
        (with("repo", json!([])), "repo"),
        (with("repos", json!(["https://user:pw@github.com/a/b"])), "repos[0].url"),
        (with("repos", json!(["a/b", "ext::sh -c id"])), "repos[1].url"),
        (with("repos", json!([{"url": "a/b", "ref": "--upload-pack=x"}])), "repos[0].ref"),
        (with("repos", json!([{"url": "a/b", "token_env": "1X"}])), "repos[0].token_env"),
        (with("repos", json!(17)), "repos"),
        (with("setup_commands", json!([1])), "setup_commands[0]"),
        (with("setup_commands", json!(vec!["true"; 101])), "setup_commands"),
        (with("env_vars", json!({"1A": "x"})), "env_vars.1A"),
        (with("env_vars", json!({"A": 1})), "env_vars.A"),
        (with("env_vars", json!({"A": "a\u{0}"})), "env_vars.A"),
        (with("env_vars", json!({"A": "<redacted>"})), "env_vars.A"),
        (with("instance_shape", json!({"vcpus": 0})), "instance_shape.vcpus"),
        (with("instance_shape", json!({"memory_gb": -1})), "instance_shape.memory_gb"),
        (with("instance_shape", json!({"gpus": 1})), "instance_shape.gpus"),
        (with("timeout_secs", json!(0)), "timeout_secs"),
        (with("timeout_secs", json!(10_000_000)), "timeout_secs"),
        (with("harness", json!({"type": "command"})), "harness.command"),
        (with("harness", json!({"type": "agent", "command": "x"})), "harness.command"),
        (with("harness", json!({"type": "hal"})), "harness.type"),
        (with("network", json!("lan")), "network"),
        (with("artifacts", json!(["../x"])), "artifacts[0]"),
    ];
    for (body, field) in cases {
        let answer = edge.post("alice", ENVIRONMENTS, &body).await;
        assert_eq!(answer.problem(), problem(400, "invalid_request", field), "{}", answer.text);
    }
    let servers = json!({"a": {"url": "http://h", "headers": "Bearer hunter2"}});
    let answer =
        edge.post("alice", ENVIRONMENTS, &with("harness", json!({"mcp_servers": servers}))).await;
    let field = "harness.mcp_servers.a.headers";
    assert_eq!(answer.problem(), problem(400, "invalid_request", field));
    assert!(!answer.text.contains("hunter2") && answer.text.contains("must be a map"));
    let global = json!({"name": "a", "docker_image": "x", "global": true, "env_vars": {"A": "b"}});
    let answer = edge.post(ADMIN, ENVIRONMENTS, &global).await;
    assert_eq!(answer.problem(), problem(400, "invalid_request", "env_vars"));
    let all = edge.get(ADMIN, ENVIRONMENTS).await.ok();
    assert_eq!(all["items"], json!([]));
    edge.stop().await;
}

#[tokio::test]
async fn bad_parameters_are_refused() {
    let edge = Edge::start().await;
    let id = edge.run("alice", "x").await;
    let events = format!("/api/v1/agent/runs/{id}/events");
    let cases = [
        (format!("{RUNS}?cursor=not-one"), "cursor"),
        (format!("{RUNS}?cursor=%FF%FE"), "query"),
        (format!("{RUNS}?limit=0"), "limit"),
        (format!("{RUNS}?limit=501"), "limit"),
        (format!("{RUNS}?limit=many"), "limit"),
        (format!("{RUNS}?state=DONE"), "state"),
        (format!("{RUNS}?sort_by=colour"), "sort_by"),
        (format!("{RUNS}?sort_order=up"), "sort_order"),
        (format!("{RUNS}?created_after=yesterday"), "created_after"),
        ("/api/v1/agent/environments?sort_by=colour".to_owned(), "sort_by"),
        (format!("{events}?cursor=x"), "cursor"),
        (format!("{events}?after=-1"), "after"),
        (format!("{events}?limit=1001"), "limit"),
    ];
    for (path, field) in cases {
        let answer = edge.get("alice", &path).await;
        // A byte that is no UTF-8 may also be read as a wrong cursor.
        let (status, code, named) = answer.problem();
        let fits = named == field || (field == "query" && named == "cursor");
        assert!(status == 400 && code == "invalid_request" && fits, "{path}: {}", answer.text);
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_unknown_paths_are_problems_too() {
    let edge = Edge::start_with(|config| config.max_body_bytes = 4_096).await;
    let body = json!({"prompt": "x".repeat(3 << 20)});
    let answer = edge.post("alice", RUNS, &body).await;
    assert_eq!(answer.problem(), problem(413, "invalid_request", ""));
    assert_eq!(edge.count_runs().await, 0);

    for path in ["/", "/api/v1/nothing", "/api/v2/agent/runs", "/api/v1/agent/runs/x/y/z"] {
        assert_eq!(edge.get("alice", path).await.problem().0, 404, "{path}");
    }
    for path in
        ["/api/v1/agent/runs/a%2Fb%20c", "/api/v1/agent/runs/%FF", "/api/v1/environments/.."]
    {
        let status = edge.get("alice", path).await.status;
        assert!(matches!(status, 404 | 200), "{path}: {status}");
    }
    let wrong = edge.send(edge.request(Method::PATCH, RUNS, "alice")).await;
    assert_eq!(wrong.problem().0, 405);
    assert!(wrong.header("allow").contains("POST"));
    edge.stop().await;
}

#[tokio::test]
async fn huge_headers_are_an_answer_and_not_a_hang() {
    let edge = Edge::start().await;
    let big = edge.request(Method::GET, "/health", "").header("x-big", "x".repeat(60_000));
    assert_eq!(edge.send(big).await.problem().0, 431);
    // Beyond what the HTTP library buffers it answers by itself.
    let text = format!("GET /health HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n", "x".repeat(1 << 20));
    let mut socket = tokio::net::TcpStream::connect(edge.plane.local_addr()).await.unwrap();
    let (mut reader, mut writer) = socket.split();
    let mut start = [0; 12];
    let (_, read) = tokio::join!(writer.write_all(text.as_bytes()), reader.read_exact(&mut start));
    read.expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 431");
    edge.stop().await;
}

#[tokio::test]
async fn a_text_no_database_can_look_for_is_refused() {
    let edge = Edge::start().await;
    let long = "x".repeat(50_001);
    for (query, field) in [
        ("q=%00", "q"),
        (&format!("q={long}"), "q"),
        ("name=a%00", "name"),
        ("model_id=%00", "model_id"),
        ("source=%00", "source"),
        ("artifact_type=%00", "artifact_type"),
        ("metadata[a]=%00", "metadata[a]"),
    ] {
        let answer = edge.get("alice", &format!("{RUNS}?{query}")).await;
        assert_eq!(answer.problem(), problem(400, "invalid_request", field));
    }
    edge.stop().await;
}
