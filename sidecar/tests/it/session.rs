//! Runs that go on with what an earlier run of their conversation left.

use protocol::{
    event::{Event, Phase, Stream},
    spec::{RunSpec, SessionSpec},
};
use test_support::repo::Repository;

use crate::worker::{Heard, Worker, command, with_repo};

fn of_conversation(mut spec: RunSpec, resume: bool) -> RunSpec {
    let conversation_id = "first".parse().unwrap();
    spec.session = Some(SessionSpec { conversation_id, resume });
    spec
}

/// The next run at the same places.
async fn again(worker: &mut Worker, spec: RunSpec) -> Heard {
    worker.launch(&[]);
    worker.run(spec).await
}

fn notices(heard: &Heard) -> Vec<String> {
    let texts = heard.events().filter_map(|event| match event {
        Event::Notice { text } => Some(text),
        _ => None,
    });
    texts.collect()
}

fn cloned(heard: &Heard) -> usize {
    heard.events().filter(|event| matches!(event, Event::Cloned { .. })).count()
}

fn patch(heard: &Heard) -> String {
    String::from_utf8(heard.files()["changes.patch"].clone()).unwrap()
}

#[tokio::test]
async fn a_follow_up_finds_its_workspace_and_set_up_runs_again() {
    let repo = Repository::with_files(&[("a.txt", "one\n")]);
    let run = |line: &str, resume| {
        let mut spec = of_conversation(with_repo(command(line), repo.path()), resume);
        spec.setup_commands =
            vec!["echo set up; echo root > by-root; chmod 600 by-root".to_owned()];
        spec
    };
    let mut worker = Worker::start();
    let change = "echo two >> a.txt; git add -A; git commit -qm two; echo three >> a.txt";
    let heard = worker.run(run(change, false)).await;
    assert!(heard.exit().unwrap().success, "{heard:?}");
    assert_eq!(cloned(&heard), 1);

    let heard =
        again(&mut worker, run("cat a.txt; echo four >> a.txt; echo mine > by-root", true)).await;
    assert!(heard.exit().unwrap().success, "{heard:?}");
    assert_eq!(heard.stdout(), ["one", "two", "three"]);
    assert_eq!(heard.lines(Phase::Setup, Stream::Stdout), ["set up"]);
    assert_eq!(cloned(&heard), 0);
    assert!(notices(&heard)[0].contains("stands already"), "{:?}", notices(&heard));
    // Against where the conversation began, commits included.
    let patch = patch(&heard);
    for line in ["+two", "+three", "+four", "+mine"] {
        assert!(patch.contains(line), "{patch}");
    }
}

#[tokio::test]
async fn what_is_in_a_repositorys_place_is_moved_and_not_lost() {
    let repo = Repository::with_files(&[("a.txt", "one\n")]);
    let mut worker = Worker::start();
    let name = repo.path().file_name().unwrap().to_str().unwrap().to_owned();
    let make = format!("mkdir -p {name}; echo mine > {name}/own.txt; ln -s /etc link");
    let heard = worker.run(of_conversation(command(&make), false)).await;
    assert!(heard.exit().unwrap().success, "{heard:?}");

    let look = format!("ls; cat ../{name}.before-*/own.txt");
    let heard =
        again(&mut worker, of_conversation(with_repo(command(&look), repo.path()), true)).await;
    assert!(heard.exit().unwrap().success, "{heard:?}");
    assert_eq!(heard.stdout(), ["a.txt", "mine"]);
    assert_eq!(cloned(&heard), 1);
    assert!(notices(&heard)[0].contains("in the way of a repository"), "{:?}", notices(&heard));
}

#[tokio::test]
async fn a_half_clone_of_an_earlier_run_is_cloned_again() {
    let repo = Repository::with_files(&[("a.txt", "one\n")]);
    let mut worker = Worker::start();
    let spec = || with_repo(command("cat a.txt"), repo.path());
    worker.run(of_conversation(spec(), false)).await;
    // As if it had been killed before it could note that the clone was whole.
    std::fs::remove_file(worker.root().join("ozma/session/repositories.json")).unwrap();
    let heard = again(&mut worker, of_conversation(spec(), true)).await;
    assert_eq!(heard.stdout(), ["one"], "{heard:?}");
    assert_eq!(cloned(&heard), 1);
}
