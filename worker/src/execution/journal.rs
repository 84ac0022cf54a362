//! Taking up what a sidecar wrote and could not send, once its container has ended.

use protocol::{
    event::{Event, EventLine},
    limits::MAX_SIDECAR_LINE_BYTES,
};

use crate::{
    context::Context, held::Held, home::Home, lines::next_line, output::Pushed,
    sidecar_link::SidecarLink,
};

/// Reads as far as the journal is sound. May be dropped and begun anew: what is known already is passed over.
pub(super) async fn read(context: &Context, held: &Held, home: &Home, sidecar: &SidecarLink) {
    let id = &held.execution_id;
    let Some(mut journal) = context.backend.journal(home, id).await else { return };
    let mut line = Vec::new();
    let mut taken = 0_u64;
    loop {
        match next_line(&mut journal, &mut line, MAX_SIDECAR_LINE_BYTES).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                tracing::warn!(execution.id = %id, error = %error, "the journal of {id} breaks off");
                break;
            }
        }
        let Ok(event) = serde_json::from_slice::<EventLine>(&line) else {
            tracing::warn!(execution.id = %id, "the journal of {id} holds something else than events");
            break;
        };
        let exit = match event.event() {
            Some(Event::Exit(exit)) => Some(exit),
            _ => None,
        };
        match held.outbox.forward(event).await {
            Pushed::Known => {}
            Pushed::Taken => taken += 1,
            Pushed::Gap => {
                tracing::warn!(execution.id = %id, "the journal of {id} begins too late");
                break;
            }
        }
        if let Some(exit) = exit {
            sidecar.ended(exit);
        }
    }
    tracing::info!(execution.id = %id, "{taken} events of {id} taken from its journal");
}
