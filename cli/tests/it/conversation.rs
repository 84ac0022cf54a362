//! A conversation from the command line: a run, a follow-up that finds what it left, and the evidence of both.

use std::{path::Path, process::Stdio};

use serde_json::Value;
use test_support::model::{Model, RESULT_TEXT};

use crate::{images, stack::Stack};

struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Done {
    /// The last line of `--json`.
    fn outcome(&self) -> Value {
        let last =
            self.out.lines().last().unwrap_or_else(|| panic!("nothing was said: {}", self.err));
        serde_json::from_str(last).unwrap()
    }

    fn answer(&self) -> String {
        let lines = self.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let answers: Vec<Value> = lines.filter(|event| event["kind"] == "answer").collect();
        answers.last().unwrap()["data"]["text"].as_str().unwrap().to_owned()
    }
}

async fn ozma(folder: &Path, url: &str, args: &[&str]) -> Done {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_ozma"));
    command.args(args).current_dir(folder).env_clear().env("HOME", folder);
    command.env("OZMA_URL", url).env("OZMA_TOKEN", "tenant-a").stdin(Stdio::null());
    let done = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = done.status.code().unwrap();
    Done { code, out: text(done.stdout), err: text(done.stderr) }
}

fn summary(folder: &Path, run: &str) -> Value {
    let kept = folder.join(".workbench/runs").join(run);
    let events = std::fs::read_to_string(kept.join("events.jsonl")).unwrap();
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.last().unwrap()["data"]["state"], "SUCCEEDED");
    let summary = serde_json::from_slice(&std::fs::read(kept.join("summary.json")).unwrap());
    summary.unwrap()
}

#[tokio::test]
async fn a_follow_up_finds_the_workspace_and_the_conversation_and_both_leave_evidence() {
    let model = Model::start_on(&format!("{}:0", images::host())).await;
    let base_url = model.base_url("file");
    let stack = Stack::start_with(&[
        ("OZ_PROVIDER_BASE_URL", base_url.as_str()),
        ("OZ_PROVIDER_API_KEY", "the-key"),
        ("OZ_PROVIDER_MODEL", "test-model"),
    ])
    .await;
    let tenant = stack.tenant("tenant-a");
    let folder = tempfile::tempdir().unwrap();
    let (folder, url) = (folder.path(), tenant.url());

    let args = ["run", "write it", "--image", images::busybox(), "--harness", "agent"];
    let first = ozma(folder, url, &[&args[..], &["--json", "--evidence"]].concat()).await;
    assert_eq!(first.code, 0, "{}{}", first.out, first.err);
    let outcome = first.outcome();
    let run = outcome["run_id"].as_str().unwrap();
    assert!(outcome["evidence"].as_str().unwrap().ends_with(run), "{outcome}");
    assert_eq!(outcome["run"]["conversation_id"], run);
    assert!(first.answer().starts_with(&format!("{RESULT_TEXT} users=1")), "{}", first.answer());
    let kept = summary(folder, run);
    assert_eq!((&kept["run_id"], &kept["provider"]), (&run.into(), &"agent".into()));
    assert_eq!(
        (&kept["tools"]["shell"]["ok"], &kept["exit"]["success"]),
        (&1.into(), &true.into())
    );

    let args = ["runs", "followup", run, "and now?", "--json", "--evidence"];
    let second = ozma(folder, url, &args).await;
    assert_eq!(second.code, 0, "{}{}", second.out, second.err);
    let outcome = second.outcome();
    let next = outcome["run_id"].as_str().unwrap();
    assert_ne!(next, run);
    assert_eq!(outcome["run"]["conversation_id"], run);
    assert!(second.answer().contains("users=2"), "it forgot: {}", second.answer());
    assert_eq!(summary(folder, next)["session_id"], kept["session_id"]);

    // By its other name, and what is said of it.
    let args = ["run", "and again?", "--conversation", next, "--no-follow"];
    let third = ozma(folder, url, &args).await;
    assert_eq!(third.code, 0, "{}", third.err);
    let third = third.out.trim();
    tenant.ended(third).await;
    let shown = ozma(folder, url, &["runs", "show", third]).await;
    assert!(shown.out.contains(&format!("conversation {run}")), "{}", shown.out);
    assert!(shown.out.contains("session      "), "{}", shown.out);

    let nobody =
        ozma(folder, url, &["runs", "followup", "0198c5f0-0000-7000-8000-000000000000", "x"]).await;
    assert_eq!(nobody.code, 2, "{}", nobody.err);
    stack.finish().await;
}

#[tokio::test]
async fn a_conversation_that_is_busy_says_so_and_what_to_do() {
    let stack = Stack::start().await;
    let tenant = stack.tenant("tenant-a");
    let environment =
        tenant.command(images::busybox(), "echo begun; sleep 300", serde_json::json!({})).await;
    let run = tenant.submit(&environment, "wait").await;
    tenant.until_printed(&run, "begun\n").await;
    let folder = tempfile::tempdir().unwrap();
    let busy = ozma(folder.path(), tenant.url(), &["runs", "followup", &run, "and now?"]).await;
    assert_ne!(busy.code, 0);
    assert!(busy.err.contains("hint: ") && busy.err.contains("conversation_busy"), "{}", busy.err);
    tenant.cancel(&run).await;
    tenant.ended(&run).await;

    // What failed says by which name; servers go along, and their secrets are not shown again.
    let mcp = folder.path().join("mcp.json");
    let server = r#"{"mcpServers": {"a": {"command": "x", "env": {"KEY": "of-the-server-0123"}}}}"#;
    std::fs::write(&mcp, server).unwrap();
    let image = images::busybox();
    let args = ["run", "fail", "--image", image, "--command", "exit 7", "--mcp", "mcp.json"];
    let failed = ozma(folder.path(), tenant.url(), &[&args[..], &["--json"]].concat()).await;
    assert_eq!(failed.code, 1, "{}{}", failed.out, failed.err);
    assert!(!failed.out.contains("of-the-server-0123"), "{}", failed.out);
    let item = &failed.outcome()["run"];
    assert_eq!(item["agent_config"]["mcp_servers"]["a"]["command"], "x");
    let run = item["run_id"].as_str().unwrap();
    let shown = ozma(folder.path(), tenant.url(), &["runs", "show", run]).await;
    assert!(shown.out.contains("error code   agent_exit"), "{}", shown.out);
    stack.finish().await;
}
