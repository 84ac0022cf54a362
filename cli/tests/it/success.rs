//! The whole way: clone, set-up, an edit, a patch.

use protocol::{
    api::{artifacts::ArtifactItem, events::EventView},
    event::{Event, Phase},
    run::RunState,
};
use serde_json::json;

use crate::{images, stack::Stack};

/// Raises the price of tea, in the repository that was cloned.
const COMMAND: &str = "sed -i 's/tea 250/tea 275/' prices.txt && cat prices.txt && cat /tmp/set-up";

#[tokio::test]
async fn a_run_clones_sets_up_edits_and_leaves_a_patch() {
    let stack = Stack::start().await;
    let tenant = stack.tenant("tenant-a");
    let environment = tenant
        .command(
            images::shop(),
            COMMAND,
            json!({
                "repos": ["/srv/shop.git"],
                "setup_commands": ["echo first >/tmp/set-up", "echo second >>/tmp/set-up; echo heard"],
                "artifacts": ["shop/prices.txt"],
            }),
        )
        .await;
    let run = tenant.submit(&environment, "raise the price of tea").await;
    let item = tenant.ended_as(&run, RunState::Succeeded).await;

    assert_eq!((item.attempt, item.exit_code), (1, Some(0)));
    for phase in Phase::ALL {
        assert!(
            item.phases.contains_key(&phase),
            "no time for {}: {:?}",
            phase.as_str(),
            item.phases
        );
    }

    let events = tenant.events(&run).await;
    assert_eq!(states(&events), ["PENDING", "CLAIMED", "INPROGRESS", "SUCCEEDED"]);
    let seen: Vec<Event> = events.iter().filter_map(EventView::event).collect();
    assert!(
        seen.iter()
            .any(|event| matches!(event, Event::Cloned { path, .. } if path == "/workspace/shop"))
    );
    let set_up =
        seen.iter().filter(|event| matches!(event, Event::SetupFinished { exit_code: 0, .. }));
    assert_eq!(set_up.count(), 2);
    assert_eq!(tenant.output(&run).await, "tea 275\nbun 120\nfirst\nsecond\n");

    let mut patches = 0;
    for artifact in &item.artifacts {
        let ArtifactItem::File { data, .. } = artifact else { panic!("{artifact:?} is no file") };
        let content = String::from_utf8(tenant.artifact(data.artifact_uid.as_str()).await).unwrap();
        if data.filename.rsplit('.').next() == Some("patch") {
            patches += 1;
            assert!(content.contains("-tea 250\n+tea 275\n"), "{content}");
        } else {
            assert_eq!(
                (data.filename.as_str(), content.as_str()),
                ("prices.txt", "tea 275\nbun 120\n")
            );
        }
    }
    assert_eq!((patches, item.artifacts.len()), (1, 2));
    stack.finish().await;
}

/// The states the events tell of, in order, without the first.
fn states(events: &[EventView]) -> Vec<String> {
    let states = events.iter().filter_map(EventView::event).filter_map(|event| match event {
        Event::State { state, .. } => Some(state.to_string()),
        _ => None,
    });
    states.filter(|state| state != "QUEUED").collect()
}
