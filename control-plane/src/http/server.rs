//! Connections: how many, how slow they may be, and how they end. It knows no route.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use service::lifecycle::Lifecycle;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Most connections at a time, streams and workers included; the next one waits in the system's queue.
const MAX_CONNECTIONS: usize = 8_192;

/// How long a caller may take to send a request's headers, and how long an unused connection is kept. Clients
/// dial again.
const HEADERS_WITHIN: Duration = Duration::from_mins(1);

/// After a refused `accept`, most likely for want of file descriptors.
const BREATH: Duration = Duration::from_millis(200);

/// Answers until the drain; connections finish the request they are in and are closed when aborted.
pub(crate) async fn serve(listener: TcpListener, router: Router, life: Lifecycle) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let draining = life.draining().clone();
    loop {
        let slot = tokio::select! {
            () = draining.cancelled() => return,
            slot = Arc::clone(&slots).acquire_owned() => slot.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = draining.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, of_connection) = (router.clone(), life.clone());
                life.spawn(async move {
                    connection(stream, router, &of_connection).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "a connection was not accepted");
                // Mostly no file descriptor is free; at once it would fail again, in a busy loop.
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

/// One connection, to its end.
async fn connection(stream: TcpStream, router: Router, life: &Lifecycle) {
    // Small frames and events are wanted now, not with the next packet.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "no TCP_NODELAY");
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    let service = TowerToHyperService::new(router);
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = serving.as_mut() => Some(ended),
        () = life.draining().cancelled() => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        serving.as_mut().graceful_shutdown();
        tokio::select! {
            ended = serving.as_mut() => ended,
            () = life.aborting().cancelled() => return,
        }
    };
    if let Err(error) = ended {
        // A caller that went away in the middle is everyday.
        tracing::debug!(error = %error, "a connection broke off");
    }
}
