//! Stopping in two steps: first no new work, then no work at all; and waiting for what was started.

use std::{future::Future, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The life of one process. Clones are handles to the same life.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    draining: CancellationToken,
    aborting: CancellationToken,
    tasks: TaskTracker,
}

impl Lifecycle {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when nothing new is to be begun.
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Cancelled when even work in progress has to end.
    pub fn aborting(&self) -> &CancellationToken {
        &self.aborting
    }

    /// Starts a task that a stop waits for.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.tasks.track_future(task))
    }

    /// Starts a task the process cannot live without: should it end or panic before a stop, the process drains.
    pub fn spawn_essential<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let inner = self.spawn(task);
        let draining = self.draining.clone();
        self.spawn(async move {
            let ended = inner.await;
            if !draining.is_cancelled() {
                match ended {
                    Ok(()) => tracing::error!("{name} ended on its own; stopping"),
                    Err(error) => {
                        tracing::error!(error = %error, "{name} panicked; stopping");
                    }
                }
                draining.cancel();
            }
        });
    }

    /// Begins the stop without waiting for it.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Drains, then aborts after `grace` or at the second signal, then waits for every task.
    pub async fn stop(&self, grace: Duration, second_signal: impl Future<Output = ()>) {
        self.draining.cancel();
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => return,
            () = tokio::time::sleep(grace) => tracing::warn!("grace period over"),
            () = second_signal => tracing::warn!("second signal"),
        }
        self.aborting.cancel();
        self.tasks.wait().await;
    }

    /// Runs until a signal, or until something calls [`drain`](Self::drain), then stops.
    ///
    /// # Errors
    /// The process may not listen to signals.
    pub async fn run_until_stopped(&self, grace: Duration) -> anyhow::Result<()> {
        let mut signals = Signals::new()?;
        tokio::select! {
            () = signals.next() => tracing::info!("stopping: finishing what is begun"),
            () = self.draining.cancelled() => {}
        }
        self.stop(grace, signals.next()).await;
        Ok(())
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_drains_is_waited_for() {
        let life = Lifecycle::new();
        let draining = life.draining().clone();
        let task = life.spawn(async move { draining.cancelled().await });
        life.stop(Duration::from_secs(5), std::future::pending()).await;
        assert!(task.is_finished());
        assert!(!life.aborting().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_is_aborted_after_the_grace() {
        let life = Lifecycle::new();
        let aborting = life.aborting().clone();
        let task = life.spawn(async move { aborting.cancelled().await });
        life.stop(Duration::from_secs(5), std::future::pending()).await;
        assert!(task.is_finished());
    }

    #[tokio::test]
    async fn an_essential_task_takes_the_process_along() {
        let life = Lifecycle::new();
        life.spawn_essential("the test's task", async {});
        life.draining().cancelled().await;
    }
}
