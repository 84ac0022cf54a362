//! One execution, from its assignment to the acknowledgement of its report. Whatever happens on the way, it
//! ends with exactly one report, or with none because the plane believes it no longer.

mod end;
mod journal;
mod known;
mod watch;

use std::{sync::Arc, time::Duration};

use protocol::{
    event::Phase,
    failure::FailureReason,
    spec::{RunSpec, SessionSpec},
};
use service::backoff::Backoff;
use tokio::time::Instant;

use self::{
    end::{End, last_word, superseded},
    watch::Watch,
};
use crate::{
    backend::Failure,
    context::Context,
    held::{Held, Stop},
    home::{Home, Record},
    output::Notes,
    report::Report,
    sidecar_link::SidecarLink,
};

/// Tries to remove what is left, before the sweeper takes over.
const REMOVE_TRIES: u32 = 4;

/// How long the end of an earlier attempt is waited for, whose container uses what the conversation keeps.
const SESSION_WITHIN: Duration = Duration::from_secs(30);

/// Runs what was assigned.
pub(crate) async fn run(context: &Context, held: Arc<Held>, spec: RunSpec) {
    let home = Home::at(&context.state_dir, &held.execution_id);
    let (_link, end) = match begin(context, &held, &home, spec).await {
        Ok(watch) => (Some(watch.link()), watch.outcome().await),
        Err(end) => (None, end),
    };
    finish(context, &held, &home, end).await;
}

/// Takes up what an earlier life of the worker began.
pub(crate) async fn adopt(context: &Context, held: Arc<Held>, record: Record) {
    let home = Home::at(&context.state_dir, &held.execution_id);
    recall(&held, &home);
    let (_link, end) = tokio::select! {
        biased; // a verdict to stop says more than one to go on
        stop = held.stopped(None) => match stop {
            // Not heard of the plane, and going already: it runs on for the next life to take up.
            Stop::Shutdown => return,
            stop => (None, End::from(stop)),
        },
        () = held.confirmed() => {
            tracing::info!(run.id = %held.run_id, execution.id = %held.execution_id, "execution {} taken up again", held.execution_id);
            let attach = context.backend.attach(&held.execution_id, record.stdio);
            let life = &context.life;
            match SidecarLink::open(life, held.clone(), home.clone(), None, attach).await {
                Ok(link) => {
                    let link = Arc::new(link);
                    let watch = Watch::adopted(context, &held, &home, link.clone(), &record);
                    (Some(link), watch.outcome().await)
                }
                Err(error) => (None, lost(&error)),
            }
        }
    };
    // Of what had not come to a container.
    held.container_ended(false);
    finish(context, &held, &home, end).await;
}

fn lost(error: &anyhow::Error) -> End {
    let message = format!("the worker could not take the run up again: {error:#}");
    End::Report(Report::failed(FailureReason::WorkerLost, message))
}

/// What is said from now on is noted for the next life, and what an earlier one noted is said.
fn recall(held: &Held, home: &Home) {
    match Notes::open(&home.said()) {
        Ok((notes, lines)) => held.recall(notes, lines),
        Err(error) => {
            tracing::warn!(execution.id = %held.execution_id, error = %error, "the worker's events of {} are not noted; a restart now would lose them", held.execution_id);
        }
    }
}

/// Up to a started container.
async fn begin<'a>(
    context: &'a Context,
    held: &'a Arc<Held>,
    home: &'a Home,
    mut spec: RunSpec,
) -> Result<Watch<'a>, End> {
    // Before anything looks at the provider: what is mounted is for the one that will run.
    spec.harness.redirect_to_claude_code(&spec.env);
    context.endpoints.fill(&mut spec.harness);
    let mut record = Record::new(&spec, &context.backend, context.clock.now_ms());
    home.create(&record, context.backend.home_mode()).map_err(|error| {
        Failure::new(FailureReason::WorkspaceSetup, format!("could not begin: {error:#}"))
    })?;

    recall(held, home);

    if let Some(session) = &spec.session {
        tokio::select! {
            had = have_session(context, &spec, session) => had?,
            stop = held.stopped(None) => return Err(stop.into()),
        }
    }

    // Until it has a container.
    let _using = context.backend.using(&spec.image);
    let image = held.phase_begins(Phase::Image);
    let within = Duration::from_secs(spec.timeouts.image_secs);
    let prepared = tokio::select! {
        prepared = tokio::time::timeout(within, context.backend.prepare(&spec, held)) => {
            prepared.unwrap_or_else(|_| Err(Failure::new(
                FailureReason::ImagePull,
                format!("image {} was not there after {} s", spec.image, within.as_secs()),
            )))
        }
        stop = held.stopped(None) => {
            held.phase_ended(image, false);
            return Err(stop.into());
        }
    };
    held.phase_ended(image, prepared.is_ok());
    prepared?;

    // The run's time does not count the image's.
    record.starts(context.clock.now_ms());
    home.save(&record).map_err(|error| {
        Failure::new(FailureReason::WorkspaceSetup, format!("could not begin: {error:#}"))
    })?;
    held.container_begins();
    match start(context, held, home, spec, record.stdio).await {
        Ok(link) => Ok(Watch::begun(context, held, home, Arc::new(link), &record)),
        Err(end) => {
            held.container_ended(false);
            Err(end)
        }
    }
}

/// Waits, within bounds, for the end of an earlier attempt that uses the conversation still. Others have their turn
/// meanwhile.
async fn have_session(
    context: &Context,
    spec: &RunSpec,
    session: &SessionSpec,
) -> Result<(), Failure> {
    let deadline = Instant::now() + SESSION_WITHIN;
    loop {
        {
            let _nothing_is_removed = context.sessions.turn().await;
            if context.backend.session(spec, session).await? {
                return Ok(());
            }
        }
        if Instant::now() >= deadline {
            let (id, secs) = (&session.conversation_id, SESSION_WITHIN.as_secs());
            let text = format!("a container used conversation {id} still after {secs} s");
            return Err(Failure::new(FailureReason::WorkspaceSetup, text));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn start(
    context: &Context,
    held: &Arc<Held>,
    home: &Home,
    spec: RunSpec,
    over_stdio: bool,
) -> Result<SidecarLink, End> {
    let _turn = tokio::select! {
        turn = context.starts.acquire() => turn,
        stop = held.stopped(None) => return Err(stop.into()),
    };
    // Not dropped half way, even by a stop: a container must not appear after its removal.
    context.backend.create(&spec, home).await?;
    let attach = context.backend.attach(&held.execution_id, over_stdio);
    let (life, assignment) = (&context.life, Some(spec.clone()));
    let link = SidecarLink::open(life, held.clone(), home.clone(), assignment, attach).await;
    let link = link.map_err(|error| {
        Failure::new(FailureReason::SidecarPrep, format!("could not begin: {error:#}"))
    })?;
    context.backend.start(&spec, home).await?;
    match held.stop_now() {
        Some(stop) => Err(stop.into()),
        None => Ok(link),
    }
}

/// Ends what a fault of our own broke off.
pub(crate) async fn give_up(context: &Context, held: &Held) {
    let home = Home::at(&context.state_dir, &held.execution_id);
    let message = "the worker failed while it looked after the run; its log says more";
    let report = Report::failed(FailureReason::Unknown, message);
    finish(context, held, &home, End::Report(report)).await;
}

/// Reports, waits until the report is stored, and removes what is left.
async fn finish(context: &Context, held: &Held, home: &Home, end: End) {
    if let End::Report(report) = end {
        report.log(held);
        context.metrics.ended(&report, held.lasted());
        held.outbox.report(report.into_frame(held));
        let said_its_last = home.exit().is_ok_and(|exit| exit.is_some());
        if !said_its_last {
            // Whatever still runs of it is of no use to anybody.
            context.backend.kill(home, &held.execution_id).await;
        }
        tokio::select! {
            () = held.report_acked.cancelled() => {}
            () = superseded(held) => {}
            () = last_word(context) => {
                tracing::warn!(execution.id = %held.execution_id, "the plane did not take the report of {} in time", held.execution_id);
                if said_its_last {
                    // The next life tells it, from the folder and the journal.
                    return;
                }
            }
        }
    }
    remove(context, held, home).await;
}

async fn remove(context: &Context, held: &Held, home: &Home) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
    for attempt in 1..=REMOVE_TRIES {
        match context.backend.remove(home, &held.execution_id).await {
            Ok(()) => break,
            Err(failure) if attempt == REMOVE_TRIES => {
                context.metrics.cleanup_failed();
                tracing::error!(execution.id = %held.execution_id, error = %failure, "what {} left could not be removed; the sweeper tries again", held.execution_id);
            }
            Err(_) => tokio::time::sleep(backoff.next(Duration::ZERO)).await,
        }
    }
    if let Err(error) = home.remove().await {
        tracing::error!(execution.id = %held.execution_id, error = %error, "the folder of {} could not be removed", held.execution_id);
    }
}
