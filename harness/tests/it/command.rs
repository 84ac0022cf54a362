//! The `command` provider.

use protocol::{event::Event, failure::FailureReason, secret::Secret};

use crate::run::Run;

fn printed(events: &[Event]) -> Vec<&str> {
    let texts = events.iter().filter_map(|event| match event {
        Event::Output { text, .. } => text.as_deref(),
        _ => None,
    });
    texts.collect()
}

#[tokio::test]
async fn the_prompt_is_on_stdin_and_in_a_file_and_values_in_the_environment() {
    let mut run = Run::command("cat; echo; cat $OZMA_PROMPT_FILE; echo; echo $A; pwd");
    run.launch.env.insert("A".to_owned(), Secret::new("b c"));
    let (events, exit) = run.finish().await;
    assert!(exit.success);
    let folder = run.folder.path().to_str().unwrap();
    assert_eq!(printed(&events), ["the prompt", "the prompt", "b c", folder]);
}

#[tokio::test]
async fn a_command_that_reads_no_prompt_ends_all_the_same() {
    let mut run = Run::command("exit 3");
    run.launch.prompt = "x".repeat(1 << 20);
    let (_, exit) = run.finish().await;
    assert_eq!((exit.exit_code, exit.reason), (Some(3), Some(FailureReason::AgentExit)));
}

#[tokio::test]
async fn cancelling_interrupts_the_command() {
    let run =
        Run::command("trap 'echo bye; exit 0' TERM; sleep 600 >/dev/null 2>&1 & echo ready; wait");
    let cancel = run.cancel.clone();
    let (events, exit) = run.watch(|_| cancel.cancel()).await;
    assert!(printed(&events).contains(&"bye"), "{events:?}");
    assert!(exit.success, "its own word stands; the sidecar knows that it was interrupted");
    let run = Run::command("echo ready; sleep 600");
    let cancel = run.cancel.clone();
    let (_, exit) = run.watch(|_| cancel.cancel()).await;
    assert_eq!(exit.reason, Some(FailureReason::TaskCancelled));
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let (_, exit) = Run::command(" ").finish().await;
    assert_eq!(exit.reason, Some(FailureReason::AgentInvocation));
    let mut run = Run::command("true");
    run.launch.directory = "/nowhere".to_owned();
    let (_, exit) = run.finish().await;
    assert_eq!(exit.reason, Some(FailureReason::AgentInvocation));
    for kind in ["claude", "codex", "opencode", "gemini"] {
        let mut run = Run::command("true");
        run.launch.harness.provider = serde_json::from_value(kind.into()).unwrap();
        let (_, exit) = run.finish().await;
        assert_eq!(exit.reason, Some(FailureReason::AuthMissing));
        assert!(exit.message.contains(&format!("[providers.{kind}]")), "{}", exit.message);
    }
}

#[tokio::test]
async fn a_process_left_behind_does_not_hold_the_end_nor_take_the_last_words() {
    let run = Run::command("(while echo x; do sleep 0.05; done) & printf 'last words' >&2");
    let (events, exit) = run.finish().await;
    assert!(exit.success);
    assert!(printed(&events).contains(&"last words"), "{events:?}");
    // One that is silent, and ends of itself soon after the test.
    let run = Run::command("sleep 2 & printf 'last words'");
    let (events, _) = run.finish().await;
    assert!(printed(&events).contains(&"last words"), "{events:?}");
}
