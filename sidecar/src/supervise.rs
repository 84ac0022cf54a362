//! The supervisor: waits for its assignment, runs it, says how it ended, and goes when everything was heard.

use std::{io, sync::Arc, time::Duration};

use harness::failure::Failure;
use protocol::{
    event::{Event, Exit},
    failure::FailureReason,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
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
    let told = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    // Before anything of the task runs: set-up commands are root as we are, and our memory holds the link's key
    // and the model's.
    privileges::protect()?;
    // An image in which there is no place for us is the run's failure, and is told as one.
    let room = Places::prepare(&options)
        .and_then(|places| Ok((Journal::create(&places.journal)?, places)));
    let (journal, places) = match room {
        Ok((journal, places)) => (journal, Ok(places)),
        Err(error) => (Journal::in_memory().map_err(told("make a journal"))?, Err(error)),
    };
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
    let exit = match places {
        Ok(places) => {
            let drop = privileges::can_drop() && (!options.unisolated || places.reachable());
            let context = Context {
                spec: *spec,
                places,
                vars,
                recorder: Arc::clone(&recorder),
                reaper,
                stop: Arc::new(Stop::new()),
                drop,
                unisolated: options.unisolated,
                held: Held::default(),
            };
            execute(context, &mut commands, &mut terminate, &mut interrupt).await
        }
        Err(error) => {
            // What the image has in the place of our folders, it has every time.
            let reason = match error.kind() {
                io::ErrorKind::NotADirectory => FailureReason::AgentInvocation,
                _ => FailureReason::WorkspaceSetup,
            };
            Failure::new(reason, format!("make folders: {error}")).exit()
        }
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

/// Runs the execution to its end, obeying meanwhile.
async fn execute(
    context: Context,
    commands: &mut mpsc::Receiver<Command>,
    terminate: &mut Signal,
    interrupt: &mut Signal,
) -> Exit {
    let (stop, recorder) = (Arc::clone(&context.stop), Arc::clone(&context.recorder));
    let execution = Execution::new(context);
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
    tokio::select! {
        exit = execution.run() => exit,
        () = obey => unreachable!("it obeys for ever"),
    }
}
