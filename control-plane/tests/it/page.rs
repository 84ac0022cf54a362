//! The browsable page in a real browser: it draws every operation of the document, and asks nobody else.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use tokio::process::Command;

use crate::edge::Edge;

/// A browser's whole start and one page; it is killed at the bound.
const BROWSER_WITHIN: Duration = Duration::from_mins(1);

/// Loads `url` in a headless browser whose every other host is unknown, and gives what the page became.
async fn page_in_a_browser(url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=10000", "--dump-dom", url])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(BROWSER_WITHIN, browser)
        .await
        .expect("the browser answers in time")
        .expect("chromium is installed: scripts/test.sh sees to it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_page_draws_every_operation_and_loads_nothing_from_outside() {
    let edge = Edge::start().await;
    let page = page_in_a_browser(&format!("{}/docs", edge.root)).await;
    let document = edge.get("", "/api/v1/openapi.json").await.ok();
    let summaries: BTreeSet<&str> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
        .filter_map(|operation| operation["summary"].as_str())
        .collect();
    assert!(summaries.len() > 20, "{summaries:?}");
    let text = page.replace("&amp;", "&");
    for summary in summaries {
        assert!(text.contains(summary), "the page lacks {summary:?}");
    }
    for outside in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!page.contains(outside), "the page points outside: {outside}");
    }
    edge.stop().await;
}
