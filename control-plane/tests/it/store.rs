//! Every store method, on both databases: tokens, environments, connections, listings, idempotency.

use std::collections::BTreeMap;

use control_plane::{
    environments::{self, EnvironmentError},
    runs::{self, Idempotency, ListError, NewRun, RunFilter, SortBy, SubmitError},
    scope::Scope,
    store::{ConnectionRow, StoreError, TokenKind},
};
use protocol::{ids::RunId, link::DiskUse, run::RunState, secret::Secret};
use service::clock::Clock;

use crate::base::{
    Db, START, admin, environment, new_environment, on_both, prompt, settings, submit, tenant,
};

on_both!(
    a_token_is_found_until_it_is_revoked,
    environments_are_their_owners,
    global_environments_are_everybodys_and_the_administrators_to_change,
    values_are_sealed_and_the_key_is_checked,
    an_environment_limit_is_a_limit,
    a_key_makes_one_run,
    runs_are_their_owners,
    a_listing_is_filtered_sorted_and_paged,
    a_full_queue_takes_no_more,
    parents_must_exist_and_not_be_too_many,
    connections_come_and_go,
    a_database_answers,
);

async fn a_token_is_found_until_it_is_revoked(db: Db) {
    let store = db.store().await;
    let owner = tenant('a').owner().clone();
    let token = store.insert_token("h1", TokenKind::Tenant, &owner, "laptop", START).await.unwrap();
    store.insert_token("h2", TokenKind::Worker, &owner, "rack\0", START + 1).await.unwrap();
    assert!(store.insert_token("h1", TokenKind::Tenant, &owner, "again", START).await.is_err());

    assert_eq!(store.token("h1").await.unwrap().unwrap().owner, owner);
    assert_eq!(store.token("h2").await.unwrap().unwrap().kind, TokenKind::Worker);
    assert!(store.token("h3").await.unwrap().is_none());
    let listed: Vec<_> = store.tokens().await.unwrap().into_iter().map(|t| t.label).collect();
    assert_eq!(listed, ["rack\u{fffd}", "laptop"]);

    store.revoke_token(&token.id, START + 2).await.unwrap();
    assert!(store.token("h1").await.unwrap().is_none());
    let again = store.revoke_token(&token.id, START + 3).await;
    assert!(matches!(again, Err(StoreError::NotFound)));
}

async fn environments_are_their_owners(db: Db) {
    let core = db.core().await;
    let (ann, ben) = (tenant('a'), tenant('b'));
    let mine = environment(&core, &ann, &[("TOKEN", "s3cret")]).await;

    let seen = environments::get(&core, &ann, &mine.id).await.unwrap();
    assert_eq!(seen.env["TOKEN"].expose(), "s3cret");
    assert!(environments::get(&core, &admin(), &mine.id).await.is_ok());
    for result in [
        environments::get(&core, &ben, &mine.id).await.map(|_| ()),
        environments::update(&core, &ben, &mine.id, new_environment("x", &[])).await.map(|_| ()),
        environments::delete(&core, &ben, &mine.id).await,
    ] {
        assert!(matches!(result, Err(EnvironmentError::NotFound)));
    }
    assert!(environments::list(&core, &ben).await.unwrap().is_empty());

    core.clock.advance(std::time::Duration::from_secs(1));
    let changed = new_environment("renamed", &[("OTHER", "x")]);
    environments::update(&core, &ann, &mine.id, changed).await.unwrap();
    let seen = environments::get(&core, &ann, &mine.id).await.unwrap();
    assert_eq!((seen.name.as_str(), seen.env.len()), ("renamed", 1));
    assert_eq!((seen.created_at, seen.updated_at), (START, START + 1_000));

    environments::delete(&core, &ann, &mine.id).await.unwrap();
    assert!(environments::list(&core, &ann).await.unwrap().is_empty());
}

async fn global_environments_are_everybodys_and_the_administrators_to_change(db: Db) {
    let core = db.core().await;
    let ann = tenant('a');
    let global = |env| environments::NewEnvironment { global: true, ..new_environment("all", env) };

    let shared = environments::create(&core, &admin(), global(&[])).await.unwrap();
    let refused = environments::create(&core, &admin(), global(&[("A", "b")])).await;
    assert!(matches!(refused, Err(EnvironmentError::GlobalWithValues)));
    let wished = environments::create(&core, &ann, global(&[("A", "b")])).await.unwrap();
    assert!(!wished.global, "a tenant's wish is ignored");

    assert!(environments::get(&core, &ann, &shared.id).await.unwrap().global);
    assert!(environments::get(&core, &tenant('b'), &wished.id).await.is_err());
    let changed = environments::update(&core, &ann, &shared.id, new_environment("x", &[])).await;
    assert!(matches!(changed, Err(EnvironmentError::ReadOnly)));
    let deleted = environments::delete(&core, &ann, &shared.id).await;
    assert!(matches!(deleted, Err(EnvironmentError::ReadOnly)));
    environments::delete(&core, &admin(), &shared.id).await.unwrap();
}

async fn values_are_sealed_and_the_key_is_checked(db: Db) {
    let core = db.core().await;
    environments::check_key(&core).await.unwrap();
    environments::check_key(&core).await.unwrap();
    let mine = environment(&core, &tenant('a'), &[("TOKEN", "s3cret-marker")]).await;

    let row = core.store.environment(&tenant('a'), &mine.id).await.unwrap();
    let sealed = row.env_sealed.unwrap();
    let marker = b"s3cret-marker";
    assert!(!sealed.windows(marker.len()).any(|bytes| bytes == marker));

    let other = control_plane::core::Core::new(
        db.store().await,
        control_plane::sealing::Sealer::new(&[8; 32]),
        Clock::by_hand(START),
        service::lifecycle::Lifecycle::new(),
        settings(),
    );
    assert!(environments::check_key(&other).await.is_err());
    let unopened = environments::get(&other, &tenant('a'), &mine.id).await;
    assert!(matches!(unopened, Err(EnvironmentError::Store(StoreError::Corrupt(_)))));
}

async fn an_environment_limit_is_a_limit(db: Db) {
    let few = control_plane::core::Settings { max_environments: 1, ..settings() };
    let core = db.core_with(Clock::by_hand(START), few).await;
    environment(&core, &tenant('a'), &[]).await;
    let second = environments::create(&core, &tenant('a'), new_environment("2", &[])).await;
    assert!(matches!(second, Err(EnvironmentError::TooMany(1))));
    environment(&core, &tenant('b'), &[]).await;
}

async fn a_key_makes_one_run(db: Db) {
    let core = db.core().await;
    let keyed = |hash: &str| NewRun {
        idempotency: Some(Idempotency { key: "k".to_owned(), request_hash: hash.to_owned() }),
        ..prompt("once")
    };
    let first = runs::submit(&core, &tenant('a'), keyed("h1")).await.unwrap();
    let again = runs::submit(&core, &tenant('a'), keyed("h1")).await.unwrap();
    assert_eq!((&again.run_id, again.state), (&first.run_id, first.state));
    assert!(again.repeated && !first.repeated);
    let other = runs::submit(&core, &tenant('a'), keyed("h2")).await;
    assert!(matches!(other, Err(SubmitError::IdempotencyMismatch)));
    let bens = runs::submit(&core, &tenant('b'), keyed("h2")).await.unwrap();
    assert_ne!(bens.run_id, first.run_id, "keys are the owner's");

    // At the same time: still one run.
    let at_once = |hash: &str| NewRun {
        idempotency: Some(Idempotency { key: "k2".to_owned(), request_hash: hash.to_owned() }),
        ..prompt("once")
    };
    let ann = tenant('a');
    let both = tokio::join!(
        runs::submit(&core, &ann, at_once("h")),
        runs::submit(&core, &ann, at_once("h"))
    );
    assert_eq!(both.0.unwrap().run_id, both.1.unwrap().run_id);
}

async fn runs_are_their_owners(db: Db) {
    let core = db.core().await;
    let run = submit(&core, &tenant('a'), "mine").await;
    assert_eq!(runs::get(&core, &tenant('a'), &run).await.unwrap().prompt, "mine");
    assert!(runs::get(&core, &admin(), &run).await.is_ok());
    let ben = tenant('b');
    assert!(matches!(runs::get(&core, &ben, &run).await, Err(StoreError::NotFound)));
    assert!(matches!(runs::artifacts(&core, &ben, &run).await, Err(StoreError::NotFound)));
    assert!(matches!(runs::cancel(&core, &ben, &run).await, Err(runs::CancelError::NotFound)));
    assert!(runs::attempts(&core, &ben, &run).await.unwrap().is_empty());
    let page = runs::list(&core, &ben, &RunFilter::default(), 10, None).await.unwrap();
    assert!(page.runs.is_empty());
    let foreign = environment(&core, &tenant('a'), &[]).await;
    let used = NewRun { environment_id: Some(foreign.id), ..prompt("x") };
    assert!(matches!(runs::submit(&core, &ben, used).await, Err(SubmitError::UnknownEnvironment)));
    let below = NewRun { parent_run_id: Some(run), ..prompt("x") };
    assert!(matches!(runs::submit(&core, &ben, below).await, Err(SubmitError::UnknownParent)));
    assert_eq!(core.store.count_runs().await.unwrap()["QUEUED"], 1);
}

async fn a_listing_is_filtered_sorted_and_paged(db: Db) {
    let core = db.core().await;
    let ann = tenant('a');
    let shop = environment(&core, &ann, &[]).await;
    let mut ids: Vec<RunId> = Vec::new();
    for (n, title) in ["bravo", "alpha", "Charlie", "100% done", "echo"].into_iter().enumerate() {
        core.clock.advance(std::time::Duration::from_secs(1));
        let new = NewRun {
            title: Some(title.to_owned()),
            name: (n % 2 == 0).then(|| "nightly".to_owned()),
            model_id: Some("m1".to_owned()),
            environment_id: (n == 1).then(|| shop.id.clone()),
            parent_run_id: (n > 0).then(|| ids[n - 1].clone()),
            metadata: BTreeMap::from([("n".to_owned(), n.to_string())]),
            ..prompt("Do It")
        };
        ids.push(runs::submit(&core, &ann, new).await.unwrap().run_id);
    }
    submit(&core, &tenant('b'), "somebody else's").await;
    let titles = async |filter: RunFilter| -> Vec<String> {
        let page = runs::list(&core, &ann, &filter, 100, None).await.unwrap();
        page.runs.into_iter().map(|run| run.title).collect()
    };
    let all = RunFilter::default;
    assert_eq!(titles(all()).await, ["echo", "100% done", "Charlie", "alpha", "bravo"]);
    let by_title = RunFilter { sort_by: SortBy::Title, ascending: true, ..all() };
    assert_eq!(titles(by_title.clone()).await, ["100% done", "Charlie", "alpha", "bravo", "echo"]);
    let nightly = RunFilter { name: Some("nightly".to_owned()), ..all() };
    assert_eq!(titles(nightly).await, ["echo", "Charlie", "bravo"]);
    let text = |text: &str| RunFilter { text: Some(text.to_owned()), ..all() };
    assert_eq!(titles(text("CHARL")).await, ["Charlie"]);
    assert_eq!(titles(text("0%")).await, ["100% done"]);
    assert_eq!(titles(text("do it")).await.len(), 5);
    let with = RunFilter { environment_id: Some(Some(shop.id.clone())), ..all() };
    assert_eq!(titles(with).await, ["alpha"]);
    assert_eq!(titles(RunFilter { environment_id: Some(None), ..all() }).await.len(), 4);
    let two = BTreeMap::from([("n".to_owned(), "2".to_owned())]);
    assert_eq!(titles(RunFilter { metadata: two, ..all() }).await, ["Charlie"]);
    let below = RunFilter { ancestor_run_id: Some(ids[2].clone()), ..all() };
    assert_eq!(titles(below).await, ["echo", "100% done"]);
    let late = RunFilter { created_after: Some(START + 4_000), ..all() };
    assert_eq!(titles(late).await, ["echo"]);
    let early = RunFilter { created_before: Some(START + 2_000), updated_after: Some(0), ..all() };
    assert_eq!(titles(early).await, ["bravo"]);
    let none = RunFilter { states: vec![RunState::Failed, RunState::Error], ..all() };
    assert!(titles(none).await.is_empty());
    let queued = RunFilter { states: vec![RunState::Queued], source: Some("API".into()), ..all() };
    assert_eq!(titles(queued).await.len(), 5);
    let model =
        RunFilter { model_id: Some("m2".into()), artifact_type: Some("FILE".into()), ..all() };
    assert!(titles(model).await.is_empty());

    for sort_by in [SortBy::UpdatedAt, SortBy::CreatedAt, SortBy::Title, SortBy::Agent] {
        for ascending in [false, true] {
            let filter = RunFilter { sort_by, ascending, ..all() };
            let whole = titles(filter.clone()).await;
            let (mut paged, mut cursor) = (Vec::new(), None);
            loop {
                let page = runs::list(&core, &ann, &filter, 2, cursor.as_deref()).await.unwrap();
                assert!(page.runs.len() <= 2);
                paged.extend(page.runs.into_iter().map(|run| run.title));
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(paged, whole, "{sort_by:?} {ascending}");
        }
    }
    let forged = runs::list(&core, &ann, &all(), 2, Some("nonsense")).await;
    assert!(matches!(forged, Err(ListError::BadCursor)));
}

async fn a_full_queue_takes_no_more(db: Db) {
    let small = control_plane::core::Settings { max_queued: 2, ..settings() };
    let core = db.core_with(Clock::by_hand(START), small).await;
    for _ in 0..2 {
        submit(&core, &tenant('a'), "x").await;
    }
    let third = runs::submit(&core, &tenant('a'), prompt("x")).await;
    assert!(matches!(third, Err(SubmitError::QueueFull(2))));
    submit(&core, &tenant('b'), "x").await;

    let nul = runs::submit(&core, &tenant('c'), prompt("a\0b")).await;
    assert!(matches!(nul, Err(SubmitError::Nul("prompt"))));
    let bare = control_plane::core::Settings { default_image: None, ..settings() };
    let core = db.core_with(Clock::by_hand(START), bare).await;
    let imageless = runs::submit(&core, &tenant('c'), prompt("x")).await;
    assert!(matches!(imageless, Err(SubmitError::EnvironmentRequired)));
}

async fn parents_must_exist_and_not_be_too_many(db: Db) {
    let core = db.core().await;
    let mut parent = submit(&core, &tenant('a'), "top").await;
    for _ in 1..runs::MAX_DEPTH {
        let below = NewRun { parent_run_id: Some(parent), ..prompt("below") };
        parent = runs::submit(&core, &tenant('a'), below).await.unwrap().run_id;
    }
    let below = NewRun { parent_run_id: Some(parent), ..prompt("too deep") };
    let deep = runs::submit(&core, &tenant('a'), below.clone()).await;
    assert!(deep.is_ok(), "{MAX} parents are allowed", MAX = runs::MAX_DEPTH);
    let below = NewRun { parent_run_id: Some(deep.unwrap().run_id), ..below };
    let deeper = runs::submit(&core, &tenant('a'), below).await;
    assert!(matches!(deeper, Err(SubmitError::TooDeep)));
}

async fn connections_come_and_go(db: Db) {
    let store = db.store().await;
    let row = |id: &str, seen: i64| ConnectionRow {
        id: id.to_owned(),
        plane_id: "p".to_owned(),
        worker_id: format!("w-{id}"),
        instance_id: id.to_owned(),
        dialect: "ozma".to_owned(),
        backend: "docker".to_owned(),
        version: "1".to_owned(),
        tags: "[]".to_owned(),
        capacity: 2,
        draining: 0,
        connected_at: START,
        last_seen_at: seen,
        disk_bytes: None,
        disk_limit_bytes: None,
    };
    store.insert_connection(&row("a", START)).await.unwrap();
    store.insert_connection(&row("b", START)).await.unwrap();
    let disk = DiskUse { used_bytes: 7, limit_bytes: Some(9) };
    store.touch_connection("b", true, Some(disk), START + 5).await.unwrap();
    let seen = store.connections(START + 1).await.unwrap();
    let touched = ConnectionRow {
        draining: 1,
        disk_bytes: Some(7),
        disk_limit_bytes: Some(9),
        ..row("b", START + 5)
    };
    assert_eq!(seen, std::slice::from_ref(&touched));
    let connected = store.connected(START + 1).await.unwrap();
    assert_eq!((&connected[0].connection, connected[0].running), (&touched, 0));
    assert_eq!(store.sweep_connections(START + 1).await.unwrap(), 1);
    store.remove_connection("b").await.unwrap();
    assert!(store.connections(0).await.unwrap().is_empty());
}

async fn a_database_answers(db: Db) {
    let store = db.store().await;
    store.ping().await.unwrap();
    store.close().await;
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    // Scopes say whose data it is, not who may be an administrator.
    assert!(matches!(tenant('a'), Scope::Tenant(_)));
    let secret = format!("{:?}", BTreeMap::from([("A", Secret::new("x"))]));
    assert_eq!(secret, r#"{"A": <redacted>}"#);
}
