//! Why the run is to stop before its end, if it is: the first cause stands.

use std::time::Duration;

use protocol::{event::Phase, failure::FailureReason, sidecar::StopCause};
use tokio::sync::watch;

/// From the interrupt to the kill when nobody names a grace, in milliseconds.
const DEFAULT_GRACE_MS: u64 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    cause: StopCause,
    pub(crate) grace: Duration,
    /// What the exit event says.
    pub(crate) message: String,
}

impl Order {
    /// From the worker.
    pub(crate) fn of_worker(cause: StopCause, grace_ms: u64) -> Self {
        let message = match cause {
            StopCause::Cancelled => "the run was cancelled",
            StopCause::Timeout => "the run's time was over",
            StopCause::Shutdown => "the worker is going",
        };
        Self { cause, grace: Duration::from_millis(grace_ms), message: message.to_owned() }
    }

    /// From a signal to this process: an engine that stops the container, or a set-up command. No user asked
    /// for it.
    pub(crate) fn of_signal() -> Self {
        let order = Self::of_worker(StopCause::Shutdown, DEFAULT_GRACE_MS);
        let message = "the container was told to stop, and not by its worker".to_owned();
        Self { message, ..order }
    }

    pub(crate) fn reason(&self) -> FailureReason {
        match self.cause {
            StopCause::Cancelled => FailureReason::TaskCancelled,
            StopCause::Timeout => FailureReason::TaskTimeout,
            StopCause::Shutdown => FailureReason::GracefulShutdown,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Stop {
    order: watch::Sender<Option<Order>>,
    phase: watch::Sender<Option<Phase>>,
}

impl Stop {
    pub(crate) fn new() -> Self {
        Self { order: watch::Sender::new(None), phase: watch::Sender::new(None) }
    }

    /// Orders the stop, unless one was ordered before.
    pub(crate) fn order(&self, order: Order) {
        self.order.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(order);
            }
            first
        });
    }

    pub(crate) fn ordered(&self) -> Option<Order> {
        self.order.borrow().clone()
    }

    /// Returns when a stop is ordered.
    pub(crate) async fn wait(&self) -> Order {
        let mut order = self.order.subscribe();
        match order.wait_for(Option::is_some).await.map(|order| order.clone()) {
            Ok(Some(order)) => order,
            // Not while `self` holds the sender.
            _ => std::future::pending().await,
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(Some(phase));
    }

    /// Orders the stop when `secs` are over while the run is in one of `phases`, naming the phase.
    pub(crate) async fn after(&self, secs: u64, what: &str, phases: &[Phase]) {
        tokio::time::sleep(Duration::from_secs(secs)).await;
        let phase = *self.phase.borrow();
        if let Some(phase) = phase.filter(|phase| phases.contains(phase)) {
            self.order(Order {
                cause: StopCause::Timeout,
                grace: Duration::from_millis(DEFAULT_GRACE_MS),
                message: format!("the {what} of {secs} s was over in phase {}", phase.as_str()),
            });
        }
    }
}
