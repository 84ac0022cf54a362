//! Following a run to its end: its events as they come, resumed after a break, and Ctrl-C.

mod view;

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use protocol::{
    api::{events::EventView, why::WhyView},
    event::Event,
    run::RunState,
};
use service::backoff::Backoff;

use crate::{
    client::{
        Client,
        sse::{Message, Parser},
    },
    failure::{Failure, code},
    interrupts::Interrupts,
    render,
    term::Term,
};
use view::View;

/// The plane sends at least a comment every 15 s; silence for this long is a broken connection.
const SILENCE: Duration = Duration::from_secs(45);

/// How long a plane may be away before following gives up; the run goes on without us.
const AWAY: Duration = Duration::from_mins(5);

/// How often the status line moves.
const TICK: Duration = Duration::from_millis(250);

/// How long a cancel is tried while the run is being handed over (409).
const CANCEL_PATIENCE: Duration = Duration::from_secs(30);

/// How the events are shown, and what Ctrl-C means.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// One JSON object a line rather than text for people.
    pub json: bool,
    /// The first Ctrl-C cancels the run; without it, it leaves.
    pub cancels: bool,
}

/// Shows the events of `run` from the first on until its end; its last state.
///
/// # Errors
/// The plane refuses or stays away, or the user leaves (130).
pub(crate) async fn follow(
    client: &Client,
    run: &str,
    options: Options,
    interrupts: &mut Interrupts,
    term: &mut Term,
) -> Result<RunState, Failure> {
    let path = format!("/api/v1/agent/runs/{run}/events");
    let mut following = Following { view: View::new(Instant::now()), last: 0, options };
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
    let mut cancelling = false;
    let mut heard = Instant::now();
    loop {
        let up = Instant::now();
        let broken = tokio::select! {
            end = stream(client, &path, &mut following, &mut heard, term) => match end? {
                End::Terminal(state) => {
                    term.end_status();
                    return Ok(state);
                }
                End::Broken(why) => why,
            },
            () = interrupts.next() => {
                if !options.cancels || cancelling {
                    return Err(left(run, cancelling));
                }
                term.note(&format!("cancelling run {run}; Ctrl-C again leaves without waiting"));
                cancelling = true;
                tokio::select! {
                    cancelled = cancel(client, run) => match cancelled {
                        // It ended between the key and the request; its last event says how.
                        Err(failure) if failure.status == Some(400) => {}
                        cancelled => cancelled?,
                    },
                    () = interrupts.next() => return Err(left(run, true)),
                }
                continue;
            }
        };
        if let Some(failure) = broken {
            if heard.elapsed() > AWAY {
                let hint = format!("the run goes on; `ozma runs logs -f {run}` follows it again");
                return Err(failure.hint(hint));
            }
            term.status("the plane does not answer; trying again");
        }
        tokio::select! {
            // Dialling again, jittered and growing; given up after a while, above.
            () = tokio::time::sleep(backoff.next(up.elapsed())) => {}
            () = interrupts.next() => return Err(left(run, cancelling)),
        }
    }
}

/// Asks for the run to stop; one that is being handed over right now (409) is asked again.
///
/// # Errors
/// The plane refuses: it has ended already (400), or is not the caller's.
pub(crate) async fn cancel(client: &Client, run: &str) -> Result<(), Failure> {
    let since = Instant::now();
    loop {
        match client.post_empty(&format!("/api/v1/agent/runs/{run}/cancel")).await {
            Ok(_) => return Ok(()),
            Err(failure) if failure.status == Some(409) && since.elapsed() < CANCEL_PATIENCE => {
                // On its way to a worker, which takes milliseconds; the plane says to ask again.
                tokio::time::sleep(TICK).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn left(run: &str, cancelled: bool) -> Failure {
    let mut failure = Failure::quiet(code::CANCELLED);
    failure.message = if cancelled {
        format!("left before run {run} had stopped")
    } else {
        format!("left; run {run} goes on")
    };
    failure.hint(format!("`ozma runs show {run}` says how it went"))
}

struct Following {
    view: View,
    /// The highest event number that was shown.
    last: u64,
    options: Options,
}

/// How one connection ended.
enum End {
    /// With the run.
    Terminal(RunState),
    /// Before it; with the reason where the plane could not be reached.
    Broken(Option<Failure>),
}

/// Shows what one connection brings.
async fn stream(
    client: &Client,
    path: &str,
    following: &mut Following,
    heard: &mut Instant,
    term: &mut Term,
) -> Result<End, Failure> {
    let mut answer = match client.events(path, following.last).await {
        Ok(answer) => answer,
        Err(failure) if failure.passing() => return Ok(End::Broken(Some(failure))),
        Err(failure) => return Err(failure),
    };
    let mut parser = Parser::default();
    let mut asking: Option<Asking<'_>> = None;
    let mut tick = tokio::time::interval(TICK);
    *heard = Instant::now();
    loop {
        let chunk = tokio::select! {
            chunk = answer.chunk() => chunk,
            message = answered(&mut asking) => {
                asking = None;
                if let Some(message) = message {
                    following.view.waits_for(&message);
                }
                continue;
            }
            _ = tick.tick() => {
                if heard.elapsed() > SILENCE {
                    return Ok(End::Broken(None));
                }
                if !following.options.json {
                    let now = Instant::now();
                    if asking.is_none() && following.view.asks_why(now) {
                        asking = Some(Box::pin(why(client, path)));
                    }
                    term.status(&following.view.status(now));
                }
                continue;
            }
        };
        let Ok(Some(chunk)) = chunk else { return Ok(End::Broken(None)) };
        *heard = Instant::now();
        let messages = parser.push(&chunk).map_err(|error| Failure::platform(error.to_string()))?;
        for message in messages {
            if let Some(state) = following.take(&message, term)? {
                return Ok(End::Terminal(state));
            }
        }
    }
}

/// A question to the plane while its events are listened to.
type Asking<'a> = Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>>;

/// What the run waits for; nothing when the plane does not say, as an older one.
async fn why(client: &Client, events: &str) -> Option<String> {
    let path = format!("{}/why", events.strip_suffix("/events")?);
    client.get::<WhyView>(&path, &[]).await.ok().map(|view| view.message)
}

async fn answered(asking: &mut Option<Asking<'_>>) -> Option<String> {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

impl Following {
    /// Shows one message; the state if it is a run's last.
    fn take(&mut self, message: &Message, term: &mut Term) -> Result<Option<RunState>, Failure> {
        // What this build cannot read is no event of a run: skipped, as the next may be one.
        let Ok(view) = serde_json::from_str::<EventView>(&message.data) else { return Ok(None) };
        if view.seq <= self.last {
            return Ok(None);
        }
        self.last = view.seq;
        let event = view.event();
        if self.options.json {
            term.json(&view)?;
        } else if let Some(event) = &event {
            self.view.take(event, Instant::now());
            for line in render::lines(term, event) {
                term.line(&line)?;
            }
        }
        match event {
            Some(Event::State { state, .. }) if state.is_terminal() => Ok(Some(state)),
            _ => Ok(None),
        }
    }
}
