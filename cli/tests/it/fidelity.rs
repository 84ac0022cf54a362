//! What goes in comes out: prompts byte for byte, output whole, bytes that are no text.

use protocol::{
    api::events::EventView,
    event::{Event, Phase},
    run::RunState,
};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{client::Tenant, images, stack::Stack};

async fn run(tenant: &Tenant, command: &str, prompt: &str) -> String {
    let environment = tenant.command(images::busybox(), command, json!({})).await;
    let run = tenant.submit(&environment, prompt).await;
    tenant.ended_as(&run, RunState::Succeeded).await;
    run
}

#[tokio::test]
async fn a_prompt_arrives_byte_for_byte() {
    let stack = Stack::start().await;
    let tenant = stack.tenant("tenant-a");
    let awkward = "\"quotes\" 'single' `ticks` $HOME ${HOME} $(id) \\n \\ %s {{x}}\n\n\ttab\r\nümläut 雪 \u{1f980}";
    let long: Vec<String> =
        (0..4_000).map(|n| format!("line {n}: $PATH \"and so on\"\n")).collect();
    let long = long.concat();
    assert!(long.len() > 100_000);
    for prompt in [awkward, long.as_str()] {
        let command = "sha256sum; sha256sum <\"$OZMA_PROMPT_FILE\"";
        let run = run(&tenant, command, prompt).await;
        let digest = hex::encode(Sha256::digest(prompt));
        assert_eq!(tenant.output(&run).await, format!("{digest}  -\n{digest}  -\n"));
    }
    stack.finish().await;
}

#[tokio::test]
async fn ten_megabytes_of_output_arrive_whole() {
    const BYTES: usize = 10 << 20;
    let stack = Stack::start().await;
    let tenant = stack.tenant("tenant-a");
    // Lines of 1024 bytes that differ, so that one lost or doubled shows in the digest.
    let command = "i=0; while [ $i -lt 10240 ]; do printf '%01023d\\n' $i; i=$((i+1)); done";
    let run = run(&tenant, command, "print").await;
    let expected: Vec<String> = (0..10_240).map(|n| format!("{n:01023}\n")).collect();
    let output = tenant.output(&run).await;
    assert_eq!((output.len(), output == expected.concat()), (BYTES, true));
    stack.finish().await;
}

#[tokio::test]
async fn bytes_that_are_no_text_arrive_as_they_are() {
    let stack = Stack::start().await;
    let tenant = stack.tenant("tenant-a");
    let command = "printf 'before\\n'; printf '\\377\\376\\000\\001\\200\\n'; printf 'after\\n'";
    let run = run(&tenant, command, "print").await;
    let lines: Vec<String> = tenant
        .events(&run)
        .await
        .iter()
        .filter_map(EventView::event)
        .filter_map(|event| match event {
            Event::Output { phase: Phase::Provider, text, base64, .. } => text.or(base64),
            _ => None,
        })
        .collect();
    assert_eq!(lines, ["before", "//4AAYA=", "after"]);
    stack.finish().await;
}
