//! Events and artifacts on their way in, on both databases: once, in order, and never trusted.

use base64::{Engine, engine::general_purpose::STANDARD};
use control_plane::{
    feed, runs,
    store::{Ingested, StoreError},
};
use protocol::{
    event::{Artifact, Event, EventLine, EventSource, Phase},
    ids::ArtifactUid,
    run::RunState,
};
use sha2::{Digest, Sha256};
use test_support::worker::numbered;

use crate::{
    base::{Db, admin, on_both, tenant},
    step::{ingest, kinds, output, report, succeeded, with_run},
};

on_both!(
    events_are_stored_once_and_without_gaps,
    a_container_cannot_forge_what_the_plane_says,
    an_artifact_needs_its_digest,
);

async fn events_are_stored_once_and_without_gaps(db: Db) {
    let (core, run) = with_run(&db, RunState::Claimed).await;
    let lines = numbered(1, &[output("1"), output("2"), output("3"), output("4")]);
    let took = |seq, stored, repeated, gap| Ingested::Stored {
        run_id: run.run_id.clone(),
        seq,
        stored,
        repeated,
        gap,
    };
    let sidecar = EventSource::Sidecar;
    assert_eq!(ingest(&core, &run, sidecar, &lines[..2]).await, took(2, 2, 0, false));
    assert_eq!(ingest(&core, &run, sidecar, &lines[..2]).await, took(2, 0, 2, false));
    assert_eq!(ingest(&core, &run, sidecar, &lines[3..]).await, took(2, 0, 0, true));
    assert_eq!(ingest(&core, &run, sidecar, &lines[1..]).await, took(4, 2, 1, false));
    assert_eq!(ingest(&core, &run, sidecar, &[]).await, took(4, 0, 0, false));
    // The worker counts for itself.
    let own = numbered(1, &[Event::Notice { text: "pulled".to_owned() }]);
    assert_eq!(ingest(&core, &run, EventSource::Worker, &own).await, took(1, 1, 0, false));
    let kinds = kinds(&core, &run.run_id).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "output").count(), 4);
    assert_eq!(kinds.iter().filter(|kind| *kind == "notice").count(), 1);
}

async fn a_container_cannot_forge_what_the_plane_says(db: Db) {
    let (core, run) = with_run(&db, RunState::Claimed).await;
    let line = |seq: u64, at_ms: i64, kind: &str, data: &str| {
        let json = format!(r#"{{"seq":{seq},"at_ms":{at_ms},"kind":{kind:?},"data":{data}}}"#);
        serde_json::from_str::<EventLine>(&json).unwrap()
    };
    let lines = [
        line(1, 1, "state", r#"{"state":"SUCCEEDED","attempt":1}"#),
        line(2, 1, "a\nb", "{}"),
        line(3, i64::MAX, "from_the_future", r#"{"nul":"\u0000"}"#),
        line(4, i64::MIN, "phase_finished", r#"{"phase":"queued","duration_ms":9,"ok":true}"#),
        line(5, 1, "answer", r#"{"text":"a\u0000b"}"#),
        line(6, 1, "artifact", r#"{"artifact_uid":"u","artifact_type":"FILE"}"#),
    ];
    ingest(&core, &run, EventSource::Sidecar, &lines).await;
    let page = feed::events_page(&core, &admin(), &run.run_id, 5, 1_000).await.unwrap();
    let seen: Vec<_> = page.events.iter().map(|e| (e.kind.as_str(), e.at_ms)).collect();
    let expected = [
        ("from_the_future", 253_402_300_799_999),
        ("phase_finished", 0),
        ("answer", 1),
        ("notice", 1),
    ];
    assert_eq!(seen, expected);
    let seen = runs::get(&core, &admin(), &run.run_id).await.unwrap();
    assert_eq!((seen.state, seen.phases[&Phase::Queued]), (RunState::Inprogress, 0));
    assert_eq!(seen.answer.as_deref(), Some("a\u{fffd}b"));

    let large = format!("{:?}", "x".repeat(1 << 20));
    ingest(&core, &run, EventSource::Sidecar, &[line(7, 1, "text", &large)]).await;
    assert_eq!(kinds(&core, &run.run_id).await.last().unwrap(), "truncated");
}

fn file(uid: &str, content: &[u8]) -> (ArtifactUid, Artifact) {
    let uid: ArtifactUid = uid.parse().unwrap();
    let artifact = Artifact {
        artifact_uid: uid.clone(),
        artifact_type: "FILE".to_owned(),
        filename: Some("change.patch".to_owned()),
        filepath: None,
        mime_type: None,
        description: None,
        size_bytes: Some(content.len() as u64),
        sha256: Some(hex::encode(Sha256::digest(content))),
        url: None,
        branch: None,
    };
    (uid, artifact)
}

async fn an_artifact_needs_its_digest(db: Db) {
    let (core, run) = with_run(&db, RunState::Claimed).await;
    let part = |uid: &ArtifactUid, index, content: &[u8]| Event::ArtifactPart {
        artifact_uid: uid.clone(),
        index,
        base64: STANDARD.encode(content),
    };
    let (good, whole) = file("good", b"hello world");
    let (bad, broken) = file("bad", b"other content");
    let pull = Artifact {
        artifact_uid: "pull".parse().unwrap(),
        artifact_type: "PULL_REQUEST".to_owned(),
        url: Some("https://example.org/pull/1".to_owned()),
        branch: Some("fix".to_owned()),
        ..whole.clone()
    };
    let events = [
        part(&good, 1, b" world"),
        part(&good, 0, b"hello"),
        part(&good, 0, b"HELLO"),
        part(&good, 9_999, b"too far"),
        Event::Artifact(whole.clone()),
        Event::Artifact(whole),
        part(&bad, 0, b"not that"),
        Event::Artifact(broken),
        Event::Artifact(pull),
    ];
    ingest(&core, &run, EventSource::Sidecar, &numbered(1, &events)).await;
    report(&core, &run, succeeded()).await;
    let kept = runs::artifacts(&core, &tenant('a'), &run.run_id).await.unwrap();
    let uids: Vec<_> = kept.iter().map(|kept| kept.artifact.artifact_uid.as_str()).collect();
    assert_eq!(uids, ["good", "pull"]);
    let kinds = kinds(&core, &run.run_id).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "notice").count(), 2, "{kinds:?}");
    assert!(!kinds.contains(&"artifact_part".to_owned()));

    let content = runs::artifact_content(&core, &tenant('a'), &good).await.unwrap();
    assert_eq!(content, b"hello world");
    assert!(runs::artifact(&core, &admin(), &good).await.is_ok());
    for foreign in [good, bad] {
        let ben = tenant('b');
        let seen = runs::artifact(&core, &ben, &foreign).await;
        assert!(matches!(seen, Err(StoreError::NotFound)));
        let content = runs::artifact_content(&core, &ben, &foreign).await;
        assert!(matches!(content, Err(StoreError::NotFound)));
    }
    let seen = runs::get(&core, &admin(), &run.run_id).await.unwrap();
    let of = runs::artifacts_of(&core, &tenant('b'), std::slice::from_ref(&seen)).await.unwrap();
    assert!(of.is_empty());
    let of = runs::artifacts_of(&core, &tenant('a'), &[seen]).await.unwrap();
    assert_eq!(of[&run.run_id].len(), 2);
}
