//! The way to the worker: dial, say hello, send what it does not hold, dial again when the link breaks.
//! Losing the link interrupts nothing; the journal keeps what happens meanwhile.

pub(crate) mod session;

use std::{sync::Arc, time::Duration};

use tokio::{net::UnixStream, sync::mpsc, time::Instant};

pub(crate) use self::session::Command;
use self::session::Session;
use crate::{args, record::Recorder};

/// The first wait before dialling again; each later one is twice as long, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A link this long up counts as a success, and the next wait starts small again.
const FORGET_AFTER: Duration = Duration::from_secs(10);

pub(crate) struct Link {
    session: Session,
}

impl Link {
    pub(crate) fn new(recorder: Arc<Recorder>, commands: mpsc::Sender<Command>) -> Self {
        Self { session: Session::new(recorder, commands) }
    }

    /// Stays connected, for ever. Standard input and output cannot be dialled again: when they end, nobody
    /// hears this sidecar any more, and the journal is what is left of it.
    pub(crate) async fn run(mut self, way: args::Link) {
        match way {
            args::Link::Stdio => {
                let (input, output) = (tokio::io::stdin(), tokio::io::stdout());
                if let Err(error) = self.session.run(input, output).await {
                    crate::say::say(&format!("the link ended: {error}"));
                }
            }
            args::Link::Socket(path) => {
                let mut wait = FIRST_WAIT;
                loop {
                    let since = Instant::now();
                    if let Ok(socket) = UnixStream::connect(&path).await {
                        let (input, output) = socket.into_split();
                        if let Err(error) = self.session.run(input, output).await {
                            crate::say::say(&format!("the link broke: {error}"));
                        }
                    }
                    if since.elapsed() > FORGET_AFTER {
                        wait = FIRST_WAIT;
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }
}
