//! Where a provider's events go, marked as scripted when no model made them.

use std::sync::Arc;

use protocol::event::Event;
use tokio::sync::mpsc;

use crate::secrets::Secrets;

#[derive(Debug, Clone)]
pub(crate) struct Feed {
    events: mpsc::Sender<Event>,
    secrets: Arc<Secrets>,
}

impl Feed {
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Self {
        Self { events, secrets: Arc::default() }
    }

    /// The same, which keeps these to itself.
    pub(crate) fn hiding(self, secrets: Secrets) -> Self {
        Self { secrets: Arc::new(secrets), ..self }
    }

    /// Hands one event on, and waits while nobody takes it. A receiver that is gone takes nothing more;
    /// the provider goes on without witnesses until it is told to stop.
    pub(crate) async fn send(&self, event: Event) {
        let _ = self.events.send(self.secrets.hide_in(event)).await;
    }
}
