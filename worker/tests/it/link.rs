//! The link to the plane breaks, hangs and is refused; what runs goes on.

use protocol::link::FromWorker;
use test_support::{proxy::Proxy, wait::eventually};

use crate::{
    plane::Withheld,
    rig::{Rig, command},
};

#[tokio::test]
async fn a_broken_link_loses_and_doubles_nothing() {
    let mut rig = Rig::new().await;
    let proxy = Proxy::start(rig.plane.addr()).await;
    rig.config.plane_url = format!("http://{}", proxy.addr());
    rig.start().await;
    let spec = command("for n in $(seq 1 3000); do echo line $n; done; sleep 0.5; seq 3001 3010");
    rig.plane.assign(&spec);
    for bytes in [2_000, 30_000, 70_000] {
        let before = rig.plane.seen().hellos.len();
        proxy.cut_after(bytes);
        eventually("a new hello", || async {
            (rig.plane.seen().hellos.len() > before || rig.plane.seen().reports.len() == 1)
                .then_some(())
        })
        .await;
    }
    rig.plane.report(&spec).await;
    let numbers: Vec<u32> =
        rig.plane.output(&spec).split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!(numbers, (1..=3010).collect::<Vec<_>>());
    rig.finish().await;
}

#[tokio::test]
async fn a_link_that_hangs_is_noticed_and_dialled_anew() {
    let mut rig = Rig::new().await;
    let proxy = Proxy::start(rig.plane.addr()).await;
    rig.config.plane_url = format!("http://{}", proxy.addr());
    rig.start().await;
    let dialled = proxy.connections();
    proxy.stall();
    eventually("a new dial", || async { (proxy.connections() > dialled).then_some(()) }).await;
    proxy.open();
    let spec = command("echo back");
    let hellos = rig.plane.seen().hellos.len();
    eventually("a new hello", || async { (rig.plane.seen().hellos.len() > hellos).then_some(()) })
        .await;
    rig.plane.assign(&spec);
    rig.plane.report(&spec).await;
    rig.finish().await;
}

#[tokio::test]
async fn a_report_is_kept_until_it_is_acknowledged() {
    let rig = Rig::docker().await;
    rig.plane.withhold(Withheld { report_acks: true, ..Withheld::default() });
    let spec = command("true");
    rig.plane.assign(&spec);
    let report = rig.plane.report(&spec).await;
    assert!(matches!(report, FromWorker::TaskCompleted(_)), "{report:?}");
    rig.plane.seen().reports.clear();
    // Said again by itself, on the same link.
    rig.plane.report(&spec).await;
    assert_eq!(rig.homes(), 1, "it was removed before the plane had the report");
    rig.plane.withhold(Withheld::default());
    rig.finish().await;
}

#[tokio::test]
async fn refused_credentials_are_not_hammered() {
    let mut rig = Rig::new().await;
    rig.config.token = Some("another".into());
    rig.launch();
    eventually("a dial", || async { (rig.plane.seen().dials == 1).then_some(()) }).await;
    tokio::task::yield_now().await;
    assert!(rig.is_running(), "a refusal is for an operator to see, not the worker's end");
    rig.drain();
    rig.ended().await.unwrap();
    assert_eq!(rig.plane.seen().dials, 1);
    rig.finish().await;
}

#[tokio::test]
async fn frames_nobody_knows_are_passed_over() {
    let rig = Rig::docker().await;
    rig.plane.say_anything(r#"{"type":"from_the_future","data":{"a":1}}"#);
    rig.plane.say_anything("no JSON at all");
    rig.plane.say_anything(r#"{"type":"ack","data":{"seq":"none"}}"#);
    let spec = command("echo on");
    rig.plane.assign(&spec);
    rig.plane.report(&spec).await;
    assert_eq!(rig.plane.seen().hellos.len(), 1);
    rig.finish().await;
}
