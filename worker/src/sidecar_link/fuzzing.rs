//! A connection with everything it needs, for bytes that may be anything.

use std::sync::{Arc, Mutex, atomic::AtomicU64};

use protocol::{
    event::Exit,
    link::{Events, FromWorker},
    spec::RunSpec,
};
use service::clock::Clock;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    connection::{Way, talk},
    shared::Shared,
};
use crate::{
    held::Held,
    home::{Home, Record},
};

/// What came of a connection.
pub(crate) struct Outcome {
    /// Numbers of the events handed on, in order.
    pub(crate) numbers: Vec<u64>,
    pub(crate) kinds: Vec<String>,
    pub(crate) received: u64,
    pub(crate) exit: Option<Exit>,
    /// What is on disk of it.
    pub(crate) saved: Option<Exit>,
}

const SPEC: &str = r#"{"run_id":"r","execution_id":"e","tenant_id":"t","attempt":1,"title":"","prompt":"p","image":"i"}"#;

/// Reads `bytes` as a sidecar's side of a connection: dialled, attached to at its start, or in the middle. The word
/// `KEY` in it stands for the execution's key.
pub(crate) fn hear(state_dir: &std::path::Path, way: u8, bytes: &[u8]) -> anyhow::Result<Outcome> {
    let spec: RunSpec = serde_json::from_str(SPEC)?;
    let record = Record {
        run_id: spec.run_id.clone(),
        execution_id: spec.execution_id.clone(),
        tenant_id: spec.tenant_id.clone(),
        run_secs: 1,
        started_ms: 0,
        memory_bytes: None,
        started: None,
        stdio: false,
        conversation: None,
    };
    let home = Home::at(state_dir, &record.execution_id);
    home.create(&record, 0o700)?;
    let key = home.key()?;
    let text = bytes.to_vec();
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.replace("KEY", key.expose()).into_bytes(),
        Err(_) => text,
    };
    let wake = Arc::new(Notify::new());
    let held = Held::new(record.run_id, record.execution_id, Clock::system(), wake, None);
    let shared = Shared {
        held: Arc::new(held),
        home: home.clone(),
        key,
        assignment: Mutex::new(Some(Box::new(spec))),
        contact: watch::Sender::default(),
        exit: watch::Sender::new(None),
        cancel: watch::Sender::new(None),
        bytes: AtomicU64::new(0),
        newest: watch::Sender::new(0),
    };
    let way = [Way::Dialled, Way::First, Way::Again][usize::from(way % 3)];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    // However it ends, what it handed on stands.
    let _ = runtime.block_on(talk(&text[..], tokio::io::sink(), way, &shared));
    let (mut numbers, mut kinds) = (Vec::new(), Vec::new());
    while let Some(frame) = shared.held.outbox.next(Instant::now()) {
        if let FromWorker::Events(Events { events, .. }) = frame {
            numbers.extend(events.iter().map(|line| line.seq));
            kinds.extend(events.into_iter().map(|line| line.kind));
        }
    }
    let exit = shared.exit.borrow().clone();
    let saved = home.exit()?;
    crate::home::remove_tree(home.path())?;
    Ok(Outcome { numbers, kinds, received: shared.held.outbox.sidecar_received(), exit, saved })
}
