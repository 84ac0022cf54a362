//! An engine that is reached over TCP: the run's link goes over the container's standard input and output.

use std::{net::SocketAddr, path::Path};

use protocol::{event::Event, failure::FailureReason, link::FromWorker};
use test_support::{image::docker, proxy::Proxy};
use tokio::net::{TcpListener, UnixStream};

use crate::{
    plane::Withheld,
    restart::{assert_counted, counting},
    rig::{Rig, command, container},
};

/// This machine's engine behind a TCP address, as another machine's is.
struct Engine {
    proxy: Proxy,
    accepting: tokio::task::AbortHandle,
}

impl Engine {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr: SocketAddr = listener.local_addr().unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        let accepting = tasks.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    let socket = Path::new("/var/run/docker.sock");
                    let mut engine = UnixStream::connect(socket).await.unwrap();
                    // Whoever breaks off is gone: nothing to tell anybody.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut engine).await;
                });
            }
        });
        tasks.detach_all();
        Self { proxy: Proxy::start(addr).await, accepting }
    }

    async fn rig(&self) -> Rig {
        let mut rig = Rig::new().await;
        rig.config.docker_host = Some(format!("tcp://{}", self.proxy.addr()));
        rig.start().await;
        rig
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_on_an_engine_elsewhere_says_and_leaves_everything() {
    let engine = Engine::start().await;
    let rig = engine.rig().await;
    let mut spec = command(
        "cat; echo; seq 1 20000; echo found >result.txt; while [ ! -e /tmp/go ]; do sleep 0.05; done",
    );
    spec.artifacts = vec!["result.txt".to_owned()];
    spec.prompt = "x".repeat(100_000);
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "20000").await;

    let inspected = docker(&["inspect", &container(&spec)], &[]);
    assert!(!inspected.contains("/run/ozma"), "a folder of ours is mounted: {inspected}");
    assert!(inspected.contains("\"Type\": \"none\""), "the output is logged: {inspected}");
    docker(&["exec", &container(&spec), "touch", "/tmp/go"], &[]);

    let report = rig.plane.report(&spec).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    let mut expected = vec![spec.prompt.clone()];
    expected.extend((1..=20_000).map(|n| n.to_string()));
    assert!(rig.plane.output(&spec).lines().eq(expected));
    let events = rig.plane.arrived(&spec);
    assert!(events.iter().any(|event| matches!(event, Event::Artifact(_))), "no artifact");
    assert!(matches!(events.last(), Some(Event::Exit(_))), "{:?}", events.last());
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_reaches_an_engine_elsewhere() {
    let engine = Engine::start().await;
    let rig = engine.rig().await;
    let spec =
        command("trap 'echo interrupted; exit 3' TERM INT; echo up; while :; do sleep 0.1; done");
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "up").await;
    rig.plane.cancel(&spec);
    let report = rig.plane.report(&spec).await;
    let FromWorker::TaskCompleted(done) = &report else { panic!("{report:?}") };
    assert_eq!(done.task_state.as_deref(), Some("CANCELLED"));
    rig.plane.output_line(&spec, "interrupted").await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_takes_its_runs_up_again_from_an_engine_elsewhere() {
    let engine = Engine::start().await;
    let mut rig = engine.rig().await;
    let spec = command(&counting());
    rig.plane.assign(&spec);
    for line in ["n 5", "n 20"] {
        rig.plane.output_line(&spec, line).await;
        rig.kill();
        rig.start().await;
    }
    let report = rig.plane.report(&spec).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    assert_counted(&rig.plane.output(&spec));
    assert_eq!(rig.plane.seen().claimed.len(), 1);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_way_to_the_engine_loses_and_doubles_nothing() {
    let engine = Engine::start().await;
    let rig = engine.rig().await;
    let spec = command("seq 1 500; while [ ! -e /tmp/go ]; do sleep 0.05; done; seq 501 50000");
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "500").await;
    // Nothing more comes without attaching again.
    engine.proxy.cut();
    docker(&["exec", &container(&spec), "touch", "/tmp/go"], &[]);
    rig.plane.output_line(&spec, "2000").await;
    // In the middle of a line, as likely as not.
    engine.proxy.cut_after(10_001);
    let report = rig.plane.report(&spec).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    let said = rig.plane.output(&spec);
    assert!(said.lines().eq((1..=50_000).map(|n| n.to_string())));
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_ended_elsewhere_meanwhile_is_read_from_its_journal() {
    let engine = Engine::start().await;
    let mut rig = engine.rig().await;
    rig.plane.withhold(Withheld { acks: true, report_acks: true, entry: false });
    let spec = command("seq 1 1000; touch /tmp/said; sleep 300");
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "1000").await;
    rig.kill();
    rig.plane.forget(&spec);
    docker(&["kill", &container(&spec)], &[]);
    rig.plane.withhold(Withheld::default());
    rig.start().await;
    let report = rig.plane.report(&spec).await;
    let FromWorker::TaskFailed(failed) = report else { panic!("{report:?}") };
    assert_eq!(failed.failure_reason, Some(FailureReason::ContainerExit));
    assert!(rig.plane.output(&spec).lines().eq((1..=1000).map(|n| n.to_string())));
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plane_that_is_behind_makes_a_run_elsewhere_wait() {
    let engine = Engine::start().await;
    let rig = engine.rig().await;
    rig.plane.withhold(Withheld { acks: true, ..Withheld::default() });
    // More than worker and engine hold together.
    let spec = command("seq 1 100000");
    rig.plane.assign(&spec);
    rig.plane.output_line(&spec, "4000").await;
    assert!(rig.plane.arrived(&spec).len() < 10_000, "nothing held it back");
    rig.plane.withhold(Withheld::default());
    let report = rig.plane.report(&spec).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    assert!(rig.plane.output(&spec).lines().eq((1..=100_000).map(|n| n.to_string())));
    rig.finish().await;
}
