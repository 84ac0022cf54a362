//! Watching a container that runs: its sidecar's words, its end, its time, and the orders to stop it.

use std::{sync::Arc, time::Duration};

use protocol::{event::Exit, failure::FailureReason, sidecar::StopCause};
use tokio::time::Instant;

use super::{
    end::{End, last_word, superseded},
    journal,
    known::{Known, died},
};
use crate::{
    backend::{Ended, Failure},
    context::Context,
    held::{Held, Stop},
    home::{Home, Record},
    sidecar_link::SidecarLink,
};

/// From the container's start to the sidecar's first word.
const CONTACT_WITHIN: Duration = Duration::from_mins(1);

/// What a sidecar may take, beyond the grace, to end by itself after an order or when its time is over:
/// it still collects.
const COLLECT_WITHIN: Duration = Duration::from_secs(30);

/// From the container's end to the last byte of its connection.
const READ_REST_WITHIN: Duration = Duration::from_secs(10);

/// From a kill to the container's end.
const ENDED_WITHIN: Duration = Duration::from_secs(20);

pub(super) struct Watch<'a> {
    context: &'a Context,
    held: &'a Arc<Held>,
    home: &'a Home,
    link: Arc<SidecarLink>,
    known: Known,
    contact_by: Option<Instant>,
    /// The worker's own end to the run's time; the sidecar's comes earlier.
    backstop: Instant,
    kill_by: Option<Instant>,
}

impl<'a> Watch<'a> {
    pub(super) fn begun(
        context: &'a Context,
        held: &'a Arc<Held>,
        home: &'a Home,
        link: Arc<SidecarLink>,
        record: &Record,
    ) -> Self {
        let grace = Duration::from_millis(context.grace_ms);
        let passed = context.clock.now_ms().saturating_sub(record.started_ms);
        let passed = Duration::from_millis(u64::try_from(passed).unwrap_or(0));
        let time = Duration::from_secs(record.run_secs).saturating_sub(passed);
        let known = Known { memory_bytes: record.memory_bytes, ..Known::default() };
        Self {
            known,
            contact_by: Some(Instant::now() + CONTACT_WITHIN),
            backstop: Instant::now() + time + grace + COLLECT_WITHIN,
            kill_by: None,
            context,
            held,
            home,
            link,
        }
    }

    pub(super) fn adopted(
        context: &'a Context,
        held: &'a Arc<Held>,
        home: &'a Home,
        link: Arc<SidecarLink>,
        record: &Record,
    ) -> Self {
        let mut watch = Self::begun(context, held, home, link, record);
        watch.known.adopted = true;
        watch
    }

    /// To be kept until the end is reported: the sidecar goes once it hears that everything was stored.
    pub(super) fn link(&self) -> Arc<SidecarLink> {
        self.link.clone()
    }

    pub(super) async fn outcome(mut self) -> End {
        let backend = &self.context.backend;
        let (home, id) = (self.home, &self.held.execution_id);
        let mut ended = std::pin::pin!(backend.ended(home, id));
        let mut exit = self.link.exit();
        let mut contact = self.link.contact();
        // A sidecar is often there before the engine says that its container started.
        contact.mark_changed();
        loop {
            let deadline = [self.contact_by, self.kill_by].into_iter().flatten().min();
            let deadline = deadline.unwrap_or(self.backstop).min(self.backstop);
            tokio::select! {
                exit = exit_said(&mut exit) => {
                    self.known.exit = Some(exit);
                    return self.after_exit(ended.as_mut()).await;
                }
                ended = &mut ended => return match ended {
                    Ok(ended) => self.after_end(ended).await,
                    Err(failure) => self.without_end(failure),
                },
                stop = self.held.stopped(self.known.stop) => {
                    if stop == Stop::Superseded {
                        return End::Superseded;
                    }
                    self.known.stop = Some(stop);
                    self.interrupt(match stop {
                        Stop::Shutdown => StopCause::Shutdown,
                        _ => StopCause::Cancelled,
                    });
                }
                changed = contact.changed() => {
                    let seen = *contact.borrow_and_update();
                    if seen.stranded {
                        self.kill_for(FailureReason::WorkerLost, "the worker was restarted before the sidecar had its assignment").await;
                    } else if seen.flooding {
                        let message = "the sidecar said more than a run may say";
                        self.kill_for(FailureReason::SidecarLost, message).await;
                    } else if seen.ever || changed.is_err() {
                        self.contact_by = None;
                    }
                }
                () = tokio::time::sleep_until(deadline) => self.overdue().await,
            }
        }
    }

    /// Asks the sidecar to stop, and sets the time at which it is made to.
    fn interrupt(&mut self, cause: StopCause) {
        self.link.cancel(cause, self.context.grace_ms);
        let patience = if self.known.adopted || self.link.contact().borrow().ever {
            Duration::from_millis(self.context.grace_ms) + COLLECT_WITHIN
        } else {
            // Nothing runs that could be asked.
            Duration::ZERO
        };
        let by = Instant::now() + patience;
        self.kill_by = Some(self.kill_by.map_or(by, |earlier| earlier.min(by)));
    }

    async fn overdue(&mut self) {
        let now = Instant::now();
        if self.kill_by.is_some_and(|by| by <= now) {
            let message = "the sidecar did not stop when told to, and was killed";
            self.kill_for(FailureReason::SidecarLost, message).await;
        } else if self.contact_by.is_some_and(|by| by <= now) {
            let message = format!("no word of the sidecar for {} s", CONTACT_WITHIN.as_secs());
            self.kill_for(FailureReason::SidecarLost, message).await;
        } else if self.backstop <= now {
            let message = "the run's time was over, and its sidecar did not end it";
            self.known.killed = Some((FailureReason::TaskTimeout, message.to_owned()));
            self.backstop = now + Duration::from_millis(self.context.grace_ms) + 2 * COLLECT_WITHIN;
            self.interrupt(StopCause::Timeout);
        }
    }

    async fn kill_for(&mut self, reason: FailureReason, message: impl Into<String>) {
        // The first cause stays; a kill that did not help is tried again.
        self.known.killed.get_or_insert_with(|| (reason, message.into()));
        self.contact_by = None;
        self.kill_by = Some(Instant::now() + ENDED_WITHIN);
        self.context.backend.kill(self.home, &self.held.execution_id).await;
    }

    /// The sidecar has said its last word. Whether it was memory, only the ended container tells.
    async fn after_exit(
        mut self,
        ended: std::pin::Pin<&mut impl Future<Output = Result<Ended, Failure>>>,
    ) -> End {
        let memory =
            self.known.exit.as_ref().is_some_and(|exit| {
                !exit.success && !exit.oom_killed && exit.reason.is_none_or(died)
            });
        if memory {
            self.context.backend.kill(self.home, &self.held.execution_id).await;
            if let Ok(Ok(ended)) = tokio::time::timeout(ENDED_WITHIN, ended).await {
                self.known.ended = Some(ended);
            }
        }
        self.close()
    }

    /// The container ended first: its last words are in the socket still, or in its journal.
    async fn after_end(mut self, ended: Ended) -> End {
        self.known.ended = Some(ended);
        let mut contact = self.link.contact();
        let rest = async {
            // Bytes the kernel still holds are read to their end before the connection counts as gone.
            let _ = contact.wait_for(|contact| !contact.now).await;
        };
        let _ = tokio::time::timeout(READ_REST_WITHIN, rest).await;
        self.held.container_ended(false);
        if (self.known.adopted || self.link.exit().borrow().is_none()) && ended.began {
            tokio::select! {
                () = journal::read(self.context, self.held, self.home, &self.link) => {}
                () = superseded(self.held) => return End::Superseded,
                // With the plane away there may be no room for it; the next life reads it again.
                () = last_word(self.context) => {}
            }
        }
        self.close()
    }

    fn without_end(mut self, failure: Failure) -> End {
        self.known.exit = self.exit();
        if self.known.exit.is_some() { self.close() } else { failure.into() }
    }

    /// The sidecar's last word, should it be only from an earlier life of the worker: then what the plane
    /// missed of the events before it has been read by now, or is gone.
    fn exit(&self) -> Option<Exit> {
        let said = self.link.exit().borrow().clone();
        said.or_else(|| self.home.exit().ok().flatten())
    }

    fn close(mut self) -> End {
        if self.known.exit.is_none() {
            self.known.exit = self.exit();
        }
        self.held.container_ended(self.known.exit.is_some());
        if let Some(stop) = self.held.stop_now() {
            if stop == Stop::Superseded {
                return End::Superseded;
            }
            self.known.stop = Some(stop);
        }
        End::Report(self.known.report())
    }
}

async fn exit_said(exit: &mut tokio::sync::watch::Receiver<Option<Exit>>) -> Exit {
    match exit.wait_for(Option::is_some).await.map(|exit| exit.clone()) {
        Ok(Some(exit)) => exit,
        // The sender lives in the link, which the watcher owns.
        _ => std::future::pending().await,
    }
}
