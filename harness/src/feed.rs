//! Where a provider's events go, marked as scripted when no model made them.

use protocol::event::Event;
use tokio::sync::mpsc;

#[derive(Debug, Clone)]
pub(crate) struct Feed {
    events: mpsc::Sender<Event>,
}

impl Feed {
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Self {
        Self { events }
    }

    /// Hands one event on, and waits while nobody takes it. A receiver that is gone takes nothing more;
    /// the provider goes on without witnesses until it is told to stop.
    pub(crate) async fn send(&self, event: Event) {
        let _ = self.events.send(event).await;
    }
}
