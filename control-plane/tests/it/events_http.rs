//! Watching a run over HTTP: nothing is missed, nothing comes twice, and a stream ends with its run.

use futures_util::StreamExt;
use protocol::event::{Event, EventSource};
use reqwest::Method;
use serde_json::Value;
use test_support::{
    wait::in_time,
    worker::{FakeWorker, numbered},
};

use crate::edge::{ADMIN, Edge};

/// One server-sent event: id, kind, data.
type Line = (u64, String, Value);

/// Reads a stream to its end.
async fn read_stream(edge: &Edge, run: &str, last: Option<u64>) -> Vec<Line> {
    let path = format!("/api/v1/agent/runs/{run}/events");
    let mut request =
        edge.request(Method::GET, &path, "alice").header("accept", "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = request.send().await.expect("the plane answers");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.bytes_stream();
    let mut text = String::new();
    in_time("the stream's end", async {
        while let Some(part) = stream.next().await {
            text.push_str(std::str::from_utf8(&part.expect("a part")).expect("UTF-8"));
        }
    })
    .await;
    text.split("\n\n").filter(|block| block.contains("data: ")).map(line).collect()
}

fn line(block: &str) -> Line {
    let field = |name: &str| {
        let found = block.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap_or_else(|| panic!("{name} in {block}")).to_owned()
    };
    let data: Value = serde_json::from_str(&field("data: ")).expect("JSON");
    (field("id: ").parse().expect("a number"), field("event: "), data)
}

fn text(text: &str) -> Event {
    Event::Text { text: text.to_owned(), scripted: false }
}

#[tokio::test]
async fn a_stream_replays_follows_and_ends_with_the_run() {
    let edge = Edge::start().await;
    let run = edge.run("alice", "x").await;
    let mut worker = FakeWorker::connect(&edge.root, ADMIN, "w-1", 1).await;
    let task = worker.next_assignment().await;
    assert_eq!(task.task_id.as_str(), run);
    worker.claim(&task).await;
    let events = numbered(1, &[text("one"), text("two\r\nlines")]);
    worker.send_events(&task.execution_id, EventSource::Sidecar, events).await;
    worker.acked(&task.execution_id, EventSource::Sidecar, 2).await;

    let follow = read_stream(&edge, &run, None);
    let finish = async {
        let events = numbered(3, &[text("three")]);
        worker.send_events(&task.execution_id, EventSource::Sidecar, events).await;
        worker.complete(&task).await;
        worker.report_acked(&task.execution_id).await;
    };
    let (lines, ()) = tokio::join!(follow, finish);

    let numbers: Vec<u64> = lines.iter().map(|(id, ..)| *id).collect();
    assert_eq!(numbers, (1..=lines.len() as u64).collect::<Vec<_>>(), "in order, without gaps");
    let texts: Vec<&str> = lines
        .iter()
        .filter(|(_, kind, _)| kind == "text")
        .map(|(_, _, data)| data["data"]["text"].as_str().expect("a text"))
        .collect();
    assert_eq!(texts, ["one", "two\r\nlines", "three"]);
    let (id, kind, last) = lines.last().expect("the end");
    assert_eq!((kind.as_str(), &last["data"]["state"]), ("state", &Value::from("SUCCEEDED")));
    assert_eq!((&last["seq"], last["at"].is_string()), (&Value::from(*id), true));

    // Dialling again with the last number seen gives exactly what is missing.
    let rest = read_stream(&edge, &run, Some(numbers.len() as u64 - 2)).await;
    assert_eq!(rest.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), numbers[numbers.len() - 2..]);
    assert_eq!(read_stream(&edge, &run, Some(*id)).await, []);
    pages_hold_the_same(&edge, &run, &lines).await;
    worker.close().await;
    edge.stop().await;
}

async fn pages_hold_the_same(edge: &Edge, run: &str, lines: &[Line]) {
    let mut seen = Vec::new();
    let mut cursor = String::from("0");
    loop {
        let path = format!("/api/v1/agent/runs/{run}/events?limit=2&cursor={cursor}");
        let page = edge.get("alice", &path).await.ok();
        seen.extend(page["events"].as_array().expect("events").clone());
        page["page_info"]["next_cursor"].as_str().expect("a cursor").clone_into(&mut cursor);
        if page["page_info"]["has_next_page"] == false {
            break;
        }
    }
    let expected: Vec<Value> = lines.iter().map(|(_, _, data)| data.clone()).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_drain_ends_streams_so_that_the_stop_is_quick() {
    let edge = Edge::start().await;
    let run = edge.run("alice", "x").await;
    let path = format!("/api/v1/agent/runs/{run}/events");
    let request = edge.request(Method::GET, &path, "alice").header("accept", "text/event-stream");
    let mut stream = request.send().await.expect("an answer").bytes_stream();
    stream.next().await.expect("the first event").expect("a part");
    edge.drain();
    in_time("the stream's end", async { while stream.next().await.is_some() {} }).await;
    edge.stop().await;
}
