//! A worker's connection itself: who replaces whom, what rubbish does, how it ends, and the stock dialect.

use std::time::Duration;

use control_plane::core::Settings;
use protocol::{
    limits::MAX_FRAME_BYTES,
    link::{FromWorker, Hello, ToWorker},
    run::RunState,
};
use service::clock::Clock;
use test_support::{
    wait::{eventually, in_time},
    worker::{FakeWorker, hello, running},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::base::{Db, START, claimed, on_both, reached, settings, submit, tenant};

on_both!(
    a_newer_connection_replaces_the_older,
    rubbish_does_not_end_a_connection,
    a_message_over_the_limit_ends_it_with_1009,
    a_stock_worker_keeps_its_task_over_a_disconnect,
    a_plane_that_stops_says_goodbye,
);

async fn a_newer_connection_replaces_the_older(db: Db) {
    let plane = db.plane().await;
    let first = hello(1);
    let mut old = FakeWorker::connect_with(&plane.url(), "unused", "w1", first.clone()).await;
    let run = claimed(&plane, &mut old).await;
    let again = Hello { executions: vec![running(&run)], ..first };
    let mut new = FakeWorker::connect_with(&plane.url(), "unused", "w1", again).await;
    assert!(new.verdict(&run.execution_id).unwrap().keep);
    assert!(in_time("the older socket's end", old.try_next()).await.is_none());
    eventually("one connection is left", async || (plane.core.workers.len() == 1).then_some(()))
        .await;
    new.complete(&run).await;
    new.report_acked(&run.execution_id).await;
    // Another process of the same name is a second worker, not a newer one.
    let mut twin = plane.worker("w1", 1).await;
    assert_eq!(plane.core.workers.len(), 2);
    submit(&plane.core, &tenant('a'), "one").await;
    submit(&plane.core, &tenant('a'), "two").await;
    new.next_assignment().await;
    twin.next_assignment().await;
    plane.stop().await;
}

async fn rubbish_does_not_end_a_connection(db: Db) {
    let plane = db.plane().await;
    let mut worker = plane.worker("w1", 1).await;
    for rubbish in ["", "{", "[]", r#"{"type":"task_claimed","data":7}"#, r#"{"type":"events"}"#] {
        worker.send_text(rubbish).await;
    }
    worker.send_text(r#"{"type":"from_the_future","data":{}}"#).await;
    worker.send(&FromWorker::Hello(hello(9))).await;
    worker.heartbeat(&["unknown".parse().unwrap()], 1).await;
    let unknown = worker
        .next_where(|frame| match frame {
            ToWorker::Stop(stop) => Some(stop.execution_id),
            _ => None,
        })
        .await;
    assert_eq!(unknown.as_str(), "unknown");
    assert_eq!(plane.core.counters.bad_frames.get(), 5);
    claimed(&plane, &mut worker).await;

    // One of another protocol is turned away.
    let other = Hello { protocol: 99, ..hello(1) };
    let mut stranger = FakeWorker::connect_stock(&plane.url(), "unused", "w3").await;
    stranger.send(&FromWorker::Hello(other)).await;
    assert!(in_time("the stranger's end", stranger.try_next()).await.is_none());
    plane.stop().await;
}

async fn a_message_over_the_limit_ends_it_with_1009(db: Db) {
    let plane = db.plane().await;
    let address = plane.url().replace("http://", "");
    let mut socket = TcpStream::connect(&address).await.unwrap();
    let request = format!(
        "GET /api/v1/selfhosted/worker/ws?worker_id=w1 HTTP/1.1\r\nHost: {address}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(in_time("the handshake", socket.read_u8()).await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    // A masked text frame of one byte too many.
    socket.write_all(&[0x81, 0xff]).await.unwrap();
    socket.write_u64(MAX_FRAME_BYTES as u64 + 1).await.unwrap();
    socket.write_u32(0).await.unwrap();
    let (opcode, _length) = (socket.read_u8().await.unwrap(), socket.read_u8().await.unwrap());
    assert_eq!((opcode, socket.read_u16().await.unwrap()), (0x88, 1009));
    plane.stop().await;
}

async fn a_stock_worker_keeps_its_task_over_a_disconnect(db: Db) {
    let clock = Clock::by_hand(START);
    let plane = db.plane_with(clock.clone(), settings()).await;
    let mut worker = FakeWorker::connect_stock(&plane.url(), "unused", "w1").await;
    let run = claimed(&plane, &mut worker).await;
    drop(worker);
    clock.advance(Duration::from_secs(80));
    control_plane::reaper::pass(&plane.core).await.unwrap();
    let mut worker = FakeWorker::connect_stock(&plane.url(), "unused", "w1").await;
    worker.complete(&run).await;
    reached(&plane.core, &run.task_id, RunState::Succeeded).await;
    plane.stop().await;
}

async fn a_plane_that_stops_says_goodbye(db: Db) {
    let plane = db.plane_with(Clock::by_hand(START), Settings::default()).await;
    let mut worker = plane.worker("w1", 1).await;
    let store = plane.core.store.clone();
    let goodbye = async { assert!(worker.try_next().await.is_none()) };
    let (core, ()) = tokio::join!(plane.stop(), goodbye);
    let () = core;
    assert!(store.ping().await.is_err());
}
