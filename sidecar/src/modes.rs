//! What the sidecar's own children do: drive the provider, collect, clone.

use std::io::{Read, Write};

use protocol::{
    event::Event,
    sidecar::{FromHarness, Launch},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::{collect, privileges};

/// Longest job on standard input.
const MAX_JOB_BYTES: u64 = 32 << 20;

/// Events between the provider and the pipe to the supervisor; when it is full, the provider waits.
const EVENTS_AHEAD: usize = 64;

fn job<T: serde::de::DeserializeOwned>() -> Result<T, String> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(MAX_JOB_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| format!("read the job: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("read the job: {error}"))
}

pub(crate) fn harness(drop: bool) -> Result<u8, String> {
    if drop {
        privileges::drop_all()?;
    } else {
        privileges::protect()?;
    }
    let launch: Launch = job()?;
    let (sender, mut events) = mpsc::channel(EVENTS_AHEAD);
    // Its own thread, because a pipe that nobody reads blocks: that is how the provider is made to wait.
    let writer = std::thread::spawn(move || {
        let mut output = std::io::stdout().lock();
        while let Some(message) = events.blocking_recv() {
            let message: FromHarness = message;
            if writeln!(output, "{}", message.to_json()).and_then(|()| output.flush()).is_err() {
                return;
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("start the runtime: {error}"))?;
    runtime.block_on(drive(launch, sender))?;
    runtime.shutdown_background();
    writer.join().map_err(|_| "the writer of events panicked".to_owned())?;
    Ok(0)
}

async fn drive(launch: Launch, output: mpsc::Sender<FromHarness>) -> Result<(), String> {
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| format!("listen to SIGTERM: {error}"))?;
    let cancel = CancellationToken::new();
    let (events, mut said) = mpsc::channel::<Event>(1);
    let run = harness::run(launch, events, cancel.clone());
    let hand_on = async {
        while let Some(event) = said.recv().await {
            let _ = output.send(FromHarness::Event(event)).await;
        }
    };
    let obey = async {
        terminate.recv().await;
        cancel.cancel();
        std::future::pending::<()>().await;
    };
    let exit = tokio::select! {
        (exit, ()) = async { tokio::join!(run, hand_on) } => exit,
        () = obey => unreachable!("it obeys for ever"),
    };
    let _ = output.send(FromHarness::Exit(exit)).await;
    Ok(())
}

pub(crate) fn collect(drop: bool) -> Result<u8, String> {
    if drop {
        privileges::drop_all()?;
    } else {
        privileges::protect()?;
    }
    let job: collect::Job = job()?;
    collect::job::run(&job, &mut |event| {
        let mut output = std::io::stdout().lock();
        writeln!(output, "{}", FromHarness::Event(event).to_json()).and_then(|()| output.flush())
    })
    .map_err(|error| format!("collect: {error}"))?;
    Ok(0)
}

#[cfg(feature = "gix")]
pub(crate) fn clone() -> Result<u8, String> {
    let job = job()?;
    let commit = crate::clone::gitless::clone(&job)?;
    crate::say::print(&commit);
    Ok(0)
}

#[cfg(not(feature = "gix"))]
pub(crate) fn clone() -> Result<u8, String> {
    Err("the image has no git, and this sidecar has none built in".to_owned())
}
