//! Command lines of providers: from an image of their own, from the environment's, or from nowhere.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use protocol::{
    event::{Event, EventSource},
    failure::FailureReason,
    link::FromWorker,
    secret::Secret,
    spec::{ProviderKind, RunSpec},
};
use test_support::image::{self, docker};

use crate::rig::{Rig, command};

/// A program that says where it is and that it is done, in Claude's dialect.
fn program(root: &Path, path: &str, who: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = format!(
        "#!/bin/sh\ncat >/dev/null\n[ \"$ANTHROPIC_API_KEY\" = the-workers-key ] && key=key\necho '{{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\
         \"result\":\"'{who} $0 $key $PATH'\"}}'\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// An image and the volumes that were filled from it; gone with this value.
struct Image(String);

impl Image {
    fn of(files: &[(&str, &str)], base: Option<&str>, name: String) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (path, who) in files {
            program(root.path(), path, who);
        }
        match base {
            Some(base) => image::with_files(base, root.path(), &name),
            None => image::import(root.path(), &name),
        }
        Self(name)
    }

    fn volumes(&self) -> Vec<String> {
        let filter = format!("label=ozma.harness-image={}", self.0);
        let list = docker(&["volume", "ls", "--quiet", "--filter", &filter], &[]);
        list.lines().map(str::to_owned).collect()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        for volume in self.volumes() {
            // A failed test's container may use it still.
            let mut remove = std::process::Command::new("docker");
            let _ = remove.args(["volume", "rm", "--force", &volume]).output();
        }
        image::remove(&self.0);
    }
}

fn claude() -> RunSpec {
    let mut spec = command("");
    spec.harness.provider = ProviderKind::Claude;
    spec.harness.command = None;
    spec
}

async fn rig(change: impl FnOnce(&mut worker::Config)) -> Rig {
    let mut rig = Rig::new().await;
    rig.config.providers.claude.api_key = Some("the-workers-key".into());
    rig.config.harness_images.claude = Some(String::new());
    change(&mut rig.config);
    rig.start().await;
    rig
}

async fn answer(rig: &Rig, spec: &RunSpec) -> String {
    rig.plane.assign(spec);
    let report = rig.plane.report(spec).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    let events = rig.plane.events(spec, EventSource::Sidecar);
    let answers = events.into_iter().find_map(|event| match event {
        Event::Answer { text, .. } => Some(text),
        _ => None,
    });
    answers.unwrap()
}

async fn failure(rig: &Rig, spec: &RunSpec) -> (FailureReason, String) {
    rig.plane.assign(spec);
    let report = rig.plane.report(spec).await;
    let FromWorker::TaskFailed(failed) = report else { panic!("{report:?}") };
    (failed.failure_reason.unwrap(), failed.message)
}

#[tokio::test]
async fn a_command_line_comes_from_its_own_image_unless_the_environments_has_one() {
    let mut name = String::new();
    let rig = rig(|config| {
        name = format!("ozma-test:harness-{}", config.worker_id);
        config.harness_images.claude = Some(name.clone());
    })
    .await;
    let harness = Image::of(&[("harness/claude/bin/claude", "mounted")], None, name);
    let spec = claude();
    let said = answer(&rig, &spec).await;
    assert!(said.starts_with("mounted /harness/claude/bin/claude key "), "{said}");
    assert!(said.ends_with(":/bin:/harness/claude/bin"), "{said}");
    assert_eq!(harness.volumes().len(), 1);

    // A search path of the environment's own ends with it as well.
    let mut spec = claude();
    spec.env.insert("PATH".to_owned(), Secret::new("/usr/bin:/bin"));
    let said = answer(&rig, &spec).await;
    assert!(said.ends_with(" /usr/bin:/bin:/harness/claude/bin"), "{said}");

    let own = format!("ozma-test:own-{}", rig.config.worker_id);
    let own = Image::of(&[("bin/claude", "own")], Some(image::busybox()), own);
    let mut spec = claude();
    spec.image.clone_from(&own.0);
    let said = answer(&rig, &spec).await;
    assert!(said.starts_with("own /usr/bin/claude key "), "{said}");

    // Nothing of the others' is mounted for those that need none.
    let spec = command("ls /harness || echo none");
    rig.plane.assign(&spec);
    rig.plane.report(&spec).await;
    assert_eq!(rig.plane.output(&spec).lines().last(), Some("none"));
    rig.finish().await;
}

#[tokio::test]
async fn without_a_command_line_the_fix_is_named() {
    let rig = rig(|_| {}).await;
    let (reason, message) = failure(&rig, &claude()).await;
    assert_eq!(reason, FailureReason::AgentInvocation, "{message}");
    assert!(message.contains("ozma harness build claude"), "{message}");
    assert!(message.contains("add it to the environment's image"), "{message}");
    rig.finish().await;
}

#[tokio::test]
async fn an_image_that_holds_no_command_line_is_named() {
    let mut name = String::new();
    let rig = rig(|config| {
        name = format!("ozma-test:empty-{}", config.worker_id);
        config.harness_images.claude = Some(name.clone());
        config.pull_policy = worker::config::PullPolicy::Never;
    })
    .await;
    let (reason, message) = failure(&rig, &claude()).await;
    assert_eq!(reason, FailureReason::SidecarPrep, "{message}");
    assert!(message.contains(&name) && message.contains("not present"), "{message}");

    let wrong = Image::of(&[("bin/claude", "wrong")], None, name.clone());
    let (reason, message) = failure(&rig, &claude()).await;
    assert_eq!(reason, FailureReason::SidecarPrep, "{message}");
    assert!(message.contains("has no /harness/claude/bin/claude"), "{message}");
    assert!(wrong.volumes().is_empty(), "{:?}", wrong.volumes());
    rig.finish().await;
}

#[tokio::test]
async fn without_an_endpoint_the_places_are_named() {
    let rig = rig(|config| config.providers.claude.api_key = None).await;
    let (reason, message) = failure(&rig, &claude()).await;
    assert_eq!(reason, FailureReason::AuthMissing, "{message}");
    assert!(message.contains("[providers.claude]"), "{message}");
    rig.finish().await;
}

#[tokio::test]
async fn what_a_worker_left_that_died_while_it_filled_a_volume_keeps_nobody_waiting() {
    let mut name = String::new();
    let rig = rig(|config| {
        name = format!("ozma-test:left-{}", config.worker_id);
        config.harness_images.claude = Some(name.clone());
    })
    .await;
    let harness = Image::of(&[("harness/claude/bin/claude", "mounted")], None, name);
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", &harness.0], &[]);
    let id = &id.trim_start_matches("sha256:")[..12];
    let (container, volume) = (format!("ozma-fill-{id}"), format!("ozma-harness-claude-{id}"));
    let label = format!("ozma.harness-image={}", harness.0);
    let mount = format!("type=volume,source={volume},target=/harness/claude,volume-label={label}");
    docker(
        &["create", "--name", &container, "--label", &label, "--mount", &mount, &harness.0, "/x"],
        &[],
    );
    let said = answer(&rig, &claude()).await;
    assert!(said.starts_with("mounted "), "{said}");
    let filter = format!("name={container}");
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", &filter], &[]), "");
    rig.finish().await;
}
