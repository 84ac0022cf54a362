//! Order, phases, values and failures around set-up and a command.

use protocol::{
    event::{Event, Phase, Stream},
    failure::FailureReason,
    secret::Secret,
    sidecar::{Seq, ToSidecar},
    spec::{Endpoint, HttpEndpoint, ProviderKind},
};
use test_support::repo::Repository;

use crate::worker::{Worker, command, with_repo};

#[tokio::test]
async fn a_run_goes_through_its_phases_in_order() {
    let repo = Repository::with_files(&[("a.txt", "a\n")]);
    let mut spec = with_repo(
        command("cat; echo to-stderr >&2; cat \"$OZMA_PROMPT_FILE\" | wc -c"),
        repo.path(),
    );
    spec.prompt = "quotes ' \" $HOME `x` \\ and é".to_owned();
    let prompt = spec.prompt.clone();
    spec.setup_commands =
        vec!["echo one > made.txt; echo $CI".to_owned(), "cat made.txt; cat".to_owned()];
    let heard = Worker::start().run(spec).await;

    let exit = heard.exit().unwrap();
    assert!(exit.success, "{exit:?}");
    let phases: Vec<_> = heard
        .events()
        .filter_map(|event| match event {
            Event::PhaseFinished { phase, ok, .. } => Some((phase, ok)),
            _ => None,
        })
        .collect();
    let order = [Phase::Clone, Phase::Setup, Phase::Provider, Phase::Collect];
    assert_eq!(phases, order.map(|phase| (phase, true)));
    assert_eq!(heard.lines(Phase::Setup, Stream::Stdout), ["true", "one"]);
    let size = prompt.len().to_string();
    // The command printed the prompt without a newline, so that the count goes on in its line.
    assert_eq!(heard.stdout(), [format!("{prompt}{size}")]);
    assert_eq!(heard.lines(Phase::Provider, Stream::Stderr), ["to-stderr"]);
    let seqs: Vec<_> = heard.0.iter().map(|line| line.seq).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_prompt_of_100_kb_arrives_byte_for_byte() {
    let mut spec = command("cat > copy; cmp copy \"$OZMA_PROMPT_FILE\" && wc -c < copy");
    spec.prompt = "$(exit) \"'\\\n\u{1f600}".repeat(10_000);
    let bytes = spec.prompt.len();
    let mut worker = Worker::start();
    let prompt = spec.prompt.clone();
    let heard = worker.run(spec).await;
    assert_eq!(heard.stdout().last().unwrap().trim(), bytes.to_string());
    let copy = std::fs::read_to_string(worker.root().join("workspace/copy")).unwrap();
    assert!(copy == prompt);
}

#[tokio::test]
async fn a_failing_set_up_command_is_named_and_ends_the_run() {
    let mut spec = command("echo never");
    spec.setup_commands =
        vec!["true".to_owned(), "echo why >&2; exit 9".to_owned(), "echo never".to_owned()];
    let mut worker = Worker::start();
    let heard = worker.run(spec).await;
    let exit = heard.exit().unwrap();
    assert_eq!(exit.reason, Some(FailureReason::SetupCommand));
    assert_eq!(exit.message, "set-up command 2 ended with code 9: why");
    assert!(!heard.everything().contains("echo never\\n"));
    assert!(heard.stdout().is_empty());
    assert_eq!(worker.ended().await, Some(1));
}

#[tokio::test]
async fn a_failing_command_gives_its_code() {
    let mut worker = Worker::start();
    let exit = worker.run(command("exit 42")).await.exit().unwrap();
    assert_eq!((exit.reason, exit.exit_code), (Some(FailureReason::AgentExit), Some(42)));
    assert_eq!(worker.ended().await, Some(42));
    let mut spec = command("");
    spec.harness.provider = ProviderKind::Gemini;
    let exit = Worker::start().run(spec.clone()).await.exit().unwrap();
    assert_eq!(exit.reason, Some(FailureReason::AuthMissing));
    spec.harness.endpoint = Some(Endpoint::Gemini(HttpEndpoint {
        base_url: "http://127.0.0.1:9".to_owned(),
        api_key: Some(Secret::new("a-key")),
        ..HttpEndpoint::default()
    }));
    let exit = Worker::start().run(spec).await.exit().unwrap();
    assert_eq!(exit.reason, Some(FailureReason::AgentInvocation), "{}", exit.message);
    assert!(exit.message.contains("ozma harness build gemini"), "{}", exit.message);
}

#[tokio::test]
async fn set_up_gets_the_values_without_the_providers_credentials() {
    let mut spec = command("echo provider:$OPENAI_API_KEY:$PLAIN:$OZMA_SOCKET");
    for (name, value) in [("OPENAI_API_KEY", "k"), ("PLAIN", "p")] {
        spec.env.insert(name.to_owned(), Secret::new(value));
    }
    spec.setup_commands = vec!["echo setup:$OPENAI_API_KEY:$PLAIN:$OZMA_SOCKET".to_owned()];
    let heard = Worker::start().run(spec).await;
    assert_eq!(heard.lines(Phase::Setup, Stream::Stdout), ["setup::p:"]);
    assert_eq!(heard.stdout(), ["provider:k:p:"]);
}

#[tokio::test]
async fn what_set_up_leaves_running_serves_the_provider_and_ends_with_the_run() {
    let mut spec = command("test -d /proc/$(cat server.pid)");
    spec.setup_commands = vec!["sleep 600 & echo $! > server.pid".to_owned()];
    let mut worker = Worker::start();
    let heard = worker.run(spec).await;
    assert_eq!(heard.exit().unwrap().message, "the command ended with code 0", "{heard:?}");
    let pid = std::fs::read_to_string(worker.root().join("workspace/server.pid")).unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{}", pid.trim())).exists());
}

#[tokio::test]
async fn nothing_comes_after_the_exit_event() {
    let mut spec = command("true");
    spec.setup_commands = vec!["(while echo still here; do :; done) & sleep 0".to_owned()];
    let mut worker = Worker::start();
    let (mut connection, _) = worker.accept().await;
    connection.assign(spec).await;
    let exit = connection.until(|event| matches!(event, Event::Exit(_))).await;
    let Some(Event::Exit(said)) = exit.event() else { panic!() };
    assert!(said.success, "{said:?}");
    connection.send(ToSidecar::Ack(Seq { seq: exit.seq })).await;
    assert!(connection.event().await.is_none());
    worker.ended().await;
}
