//! What the core's tests stand on: a store on either driver, and a plane with a socket for workers.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Query, State, WebSocketUpgrade},
    response::Response,
    routing::get,
};
use control_plane::{
    core::{Core, Settings},
    environments::{self, Environment, EnvironmentSpec, NewEnvironment},
    link,
    runs::{self, NewRun, Run},
    scope::Scope,
    sealing::Sealer,
    store::Store,
};
use protocol::{
    ids::{RunId, WorkerId},
    run::RunState,
    secret::Secret,
};
use serde::Deserialize;
use service::{clock::Clock, lifecycle::Lifecycle};
use test_support::{
    postgres::{self, Database},
    wait::eventually,
    worker::FakeWorker,
};
use tokio::net::TcpListener;

/// Where clocks set by hand begin.
pub(crate) const START: i64 = 1_800_000_000_000;

/// Stamps each test for both databases: `async fn name(db: Db)` becomes `sqlite::name` and `postgres::name`.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name($crate::base::Db::sqlite()).await })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name($crate::base::Db::postgres().await).await })*
        }
    };
}
pub(crate) use on_both;

enum Place {
    Folder { _folder: tempfile::TempDir },
    Server { _database: Database },
}

/// An empty database of one test's own, gone with this value.
pub(crate) struct Db {
    pub(crate) url: String,
    _place: Place,
}

impl Db {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("ozma.db").display());
        Self { url, _place: Place::Folder { _folder: folder } }
    }

    pub(crate) async fn postgres() -> Self {
        let database = postgres::database().await;
        Self { url: database.url.clone(), _place: Place::Server { _database: database } }
    }

    pub(crate) async fn store(&self) -> Store {
        Store::open(&self.url).await.unwrap()
    }

    /// A core without loops or socket: for tests that take each step themselves.
    pub(crate) async fn core(&self) -> Arc<Core> {
        self.core_with(Clock::by_hand(START), settings()).await
    }

    pub(crate) async fn core_with(&self, clock: Clock, settings: Settings) -> Arc<Core> {
        let store = self.store().await;
        Core::new(store, Sealer::new(&[7; 32]), clock, Lifecycle::new(), settings)
    }

    /// A plane with its loops and a socket for workers.
    pub(crate) async fn plane(&self) -> Plane {
        self.plane_with(Clock::by_hand(START), settings()).await
    }

    pub(crate) async fn plane_with(&self, clock: Clock, settings: Settings) -> Plane {
        Plane::start(self.core_with(clock, settings).await).await
    }
}

/// Quick loops, and no second thoughts before another attempt.
pub(crate) fn settings() -> Settings {
    Settings {
        default_image: Some("debian:bookworm-slim".to_owned()),
        retry_wait: Duration::ZERO,
        hello_timeout: Duration::from_millis(300),
        poll: Duration::from_millis(20),
        ..Settings::default()
    }
}

/// A plane: a core whose loops run, behind a real socket.
pub(crate) struct Plane {
    pub(crate) core: Arc<Core>,
    addr: SocketAddr,
}

#[derive(Deserialize)]
struct Dialled {
    worker_id: WorkerId,
}

async fn accept(
    State(core): State<Arc<Core>>,
    Query(dialled): Query<Dialled>,
    upgrade: WebSocketUpgrade,
) -> Response {
    link::bounded(upgrade)
        .on_upgrade(move |socket| link::serve_worker(core, socket, dialled.worker_id))
}

impl Plane {
    /// Lets time pass under the eyes of the plane: in one step it would take itself for one that stood still.
    pub(crate) async fn pass_time(&self, clock: &Clock, secs: u64) {
        const STEP: u64 = 5;
        let rounds = &self.core.counters.reaper_rounds;
        for step in (0..secs).step_by(5) {
            clock.advance(Duration::from_secs(STEP.min(secs - step)));
            let seen = rounds.get();
            // The round that runs now may have looked at the clock before.
            eventually("the reaper has looked", async || (rounds.get() >= seen + 2).then_some(()))
                .await;
        }
    }

    async fn start(core: Arc<Core>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/api/v1/selfhosted/worker/ws", get(accept))
            .with_state(Arc::clone(&core));
        let draining = core.life.draining().clone();
        core.life.spawn(async move {
            let served = axum::serve(listener, router);
            served.with_graceful_shutdown(draining.cancelled_owned()).await.unwrap();
        });
        control_plane::loops::start(&core);
        Self { core, addr }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) async fn worker(&self, id: &str, capacity: u32) -> FakeWorker {
        FakeWorker::connect(&self.url(), "unused", id, capacity).await
    }

    pub(crate) async fn stop(self) {
        self.core.life.stop(Duration::from_secs(5), std::future::pending()).await;
        self.core.store.close().await;
    }
}

pub(crate) fn tenant(letter: char) -> Scope {
    Scope::Tenant(letter.to_string().repeat(64).parse().unwrap())
}

pub(crate) fn admin() -> Scope {
    Scope::Admin("0".repeat(64).parse().unwrap())
}

pub(crate) fn prompt(text: &str) -> NewRun {
    NewRun { prompt: text.to_owned(), config: "{}".to_owned(), ..NewRun::default() }
}

pub(crate) async fn submit(core: &Core, scope: &Scope, text: &str) -> RunId {
    runs::submit(core, scope, prompt(text)).await.unwrap().run_id
}

pub(crate) async fn environment(core: &Core, scope: &Scope, env: &[(&str, &str)]) -> Environment {
    environments::create(core, scope, new_environment("shop", env)).await.unwrap()
}

pub(crate) fn new_environment(name: &str, env: &[(&str, &str)]) -> NewEnvironment {
    let env: BTreeMap<_, _> =
        env.iter().map(|(key, value)| ((*key).to_owned(), Secret::new(*value))).collect();
    let spec = EnvironmentSpec { docker_image: "shop:1".to_owned(), ..EnvironmentSpec::default() };
    NewEnvironment { name: name.to_owned(), global: false, spec, env, mcp: BTreeMap::new() }
}

/// The run, once it is in this state.
pub(crate) async fn reached(core: &Core, id: &RunId, state: RunState) -> Run {
    eventually(&format!("run {id} is {state}"), async || {
        core.store.run(&admin(), id).await.ok().filter(|run| run.state == state)
    })
    .await
}

/// A new run that this worker has claimed.
pub(crate) async fn claimed(
    plane: &Plane,
    worker: &mut FakeWorker,
) -> protocol::link::TaskAssignment {
    submit(&plane.core, &tenant('a'), "do it").await;
    let assignment = worker.next_assignment().await;
    worker.claim(&assignment).await;
    reached(&plane.core, &assignment.task_id, RunState::Claimed).await;
    assignment
}
