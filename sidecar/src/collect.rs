//! What a run leaves behind: patches, files, pull requests. An unprivileged child looks for them, because
//! everything it looks at was made by the provider; the supervisor only numbers what the child says.

mod files;
mod git_patch;
#[cfg(feature = "gix")]
mod gitless_diff;
#[cfg(feature = "gix")]
mod gitless_patch;
pub(crate) mod job;
mod links;
pub(crate) mod pattern;
mod send;
mod start;

use std::time::Duration;

use harness::{
    failure::Failure,
    lines::{LineReader, Piece},
};
use nix::sys::signal::Signal;
use protocol::{
    event::Event, failure::FailureReason, limits::MAX_SIDECAR_LINE_BYTES, sidecar::FromHarness,
};
use tokio::io::AsyncWriteExt;

use crate::{clone::Cloned, context::Context};
pub(crate) use job::Job;
pub(crate) use links::Links;

/// How long the child may look; then what it found is all there is.
const COLLECT_TIMEOUT: Duration = Duration::from_mins(5);

/// The same once the run is stopped, or its time is over: the worker gives 30 s, and the exit event must be heard.
const HURRIED_TIMEOUT: Duration = Duration::from_secs(20);

/// # Errors
/// The child could not be run to its end. What it found until then is recorded.
pub(crate) async fn run(context: &Context, cloned: &[Cloned], links: Links) -> Result<(), Failure> {
    let told = |why: String| Failure::new(FailureReason::Unknown, why);
    if context.drop {
        let places = context.places.clone();
        // Set-up may have failed before the hand-over, and leaves files of root.
        let handed = tokio::task::spawn_blocking(move || places.hand_over()).await;
        handed
            .map_err(|error| told(error.to_string()))?
            .map_err(|error| told(error.to_string()))?;
    }
    let job = Job::new(context, cloned, links);
    let job = serde_json::to_string(&job).expect("a job is plain data");
    let mut child = context
        .reaper
        .spawn(&mut context.agent("collect"))
        .map_err(|error| told(format!("start it: {error}")))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let work = async {
        let tell = async {
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(job.as_bytes()).await;
            }
        };
        let listen = async {
            let Some(stdout) = stdout else { return };
            let mut reader = LineReader::new(stdout, MAX_SIDECAR_LINE_BYTES);
            while let Ok(Some(Piece::Line(line))) = reader.next().await {
                match FromHarness::parse(&String::from_utf8_lossy(&line)) {
                    Ok(FromHarness::Event(event)) if may_say(&event) => {
                        context.recorder.record(event).await;
                    }
                    _ => crate::say::say("the collector said what it may not say"),
                }
            }
        };
        tokio::join!(tell, listen);
    };
    let limit = async {
        tokio::select! {
            () = tokio::time::sleep(COLLECT_TIMEOUT) => {}
            () = async {
                context.stop.wait().await;
                tokio::time::sleep(HURRIED_TIMEOUT).await;
            } => {}
        }
    };
    let pid = child.pid;
    let ended = tokio::select! {
        status = async {
            work.await;
            child.wait().await
        } => Some(status),
        () = limit => None,
    };
    match ended {
        Some(Ok(status)) if status.success() => Ok(()),
        Some(Ok(status)) => Err(told(format!("it ended with {status}"))),
        Some(Err(error)) => Err(told(error.to_string())),
        None => {
            harness::process::signal_group(pid, Signal::SIGKILL);
            Err(told("it took too long".to_owned()))
        }
    }
}

fn may_say(event: &Event) -> bool {
    matches!(
        event,
        Event::ArtifactPart { .. }
            | Event::Artifact(_)
            | Event::Notice { .. }
            | Event::Truncated { .. }
    )
}
