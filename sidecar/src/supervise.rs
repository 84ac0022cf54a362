//! The supervisor: waits for its assignment, runs it, says how it ended, and goes when everything was heard.

use std::{sync::Arc, time::Duration};

use protocol::event::Event;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    args::Options,
    context::{Context, Held},
    environment::Variables,
    execution::Execution,
    journal::Journal,
    link::{Command, Link},
    places::Places,
    privileges,
    reaper::Reaper,
    record::Recorder,
    stop::{Order, Stop},
};

/// How long everything may take to be acknowledged after the exit event; then the journal is what is left.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Exit code for a SIGTERM before any assignment, as a shell gives it.
const TERMINATED: u8 = 143;

/// # Errors
/// The folders, the journal or the signals cannot be had; nothing was run.
pub(crate) fn run(options: Options, vars: Variables) -> Result<u8, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("start the runtime: {error}"))?;
    let code = runtime.block_on(supervise(options, vars));
    // A thread that reads standard input cannot be interrupted; nobody waits for it.
    runtime.shutdown_background();
    code
}

async fn supervise(options: Options, vars: Variables) -> Result<u8, String> {
    let told = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    // Before anything of the task runs: set-up commands are root as we are, and our memory holds the link's key
    // and the model's.
    privileges::protect()?;
    let places =
        Places::prepare(&options.root, options.unisolated).map_err(told("make folders"))?;
    let journal = Journal::create(&places.journal).map_err(told("make the journal"))?;
    let recorder = Arc::new(Recorder::new(journal));
    let reaper = Arc::new(Reaper::new().map_err(told("become the reaper"))?);
    let mut terminate = signal(SignalKind::terminate()).map_err(told("listen to SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(told("listen to SIGINT"))?;

    let (sender, mut commands) = mpsc::channel(16);
    let mut tasks = JoinSet::new();
    tasks.spawn(Link::new(Arc::clone(&recorder), sender).run(options.link));
    let reaping = Arc::clone(&reaper);
    tasks.spawn(async move {
        if let Err(error) = reaping.run().await {
            crate::say::say(&format!("children are not waited for: {error}"));
        }
    });

    let spec = loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Assign(spec)) => break spec,
                // There is nothing to stop or to tell yet.
                Some(Command::Cancel(_) | Command::Message) => {}
                None => return Err("the link ended before an assignment".to_owned()),
            },
            _ = terminate.recv() => return Ok(TERMINATED),
            _ = interrupt.recv() => return Ok(TERMINATED),
        }
    };
    let stop = Arc::new(Stop::new());
    let drop = privileges::can_drop() && (!options.unisolated || places.reachable());
    let execution = Execution::new(Context {
        spec: *spec,
        places,
        vars,
        recorder: Arc::clone(&recorder),
        reaper,
        stop: Arc::clone(&stop),
        drop,
        unisolated: options.unisolated,
        held: Held::default(),
    });
    let obey = async {
        loop {
            tokio::select! {
                Some(command) = commands.recv() => match command {
                    Command::Cancel(cancel) => {
                        stop.order(Order::of_worker(cancel.cause, cancel.grace_ms));
                    }
                    Command::Message => recorder.note(&Event::Notice {
                        text: "a message came, but this provider takes none".to_owned(),
                    }),
                    Command::Assign(_) => {}
                },
                _ = terminate.recv() => stop.order(Order::of_signal()),
                _ = interrupt.recv() => stop.order(Order::of_signal()),
            }
        }
    };
    let exit = tokio::select! {
        exit = execution.run() => exit,
        () = obey => unreachable!("it obeys for ever"),
    };
    let code = match (exit.success, exit.exit_code) {
        (true, _) => 0,
        (false, Some(code)) => u8::try_from(code).ok().filter(|code| *code != 0).unwrap_or(1),
        (false, None) => 1,
    };
    recorder.note(&Event::Exit(exit));
    let last = recorder.last_seq();
    if tokio::time::timeout(LAST_WORDS, recorder.wait_acked(last)).await.is_err() {
        crate::say::say("not everything was acknowledged; the rest is in the journal");
    }
    tasks.abort_all();
    Ok(code)
}
