//! What a run leaves as evidence: all of its events as lines, and one page that sums them up.

use std::sync::Arc;

use futures_util::Stream;
use protocol::{
    event::{Event, EventLine},
    evidence::{Facts, Fold, Summary},
    ids::RunId,
};

use crate::{
    core::Core,
    entry::digest,
    feed::{self, MAX_PAGE},
    runs,
    scope::Scope,
    store::{Run, RunEvent, StoreError},
};

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The run's events are kept no longer.
    #[error("the events of this run are not kept any more; the run itself still is")]
    Gone,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Sums a run up as far as it came.
pub async fn summary(core: &Core, scope: &Scope, id: &RunId) -> Result<Summary, EvidenceError> {
    // The run is read first: what the events read after it lack, it lacks as well.
    let run = runs::get(core, scope, id).await?;
    let harness = runs::spec(core, scope, id).await?.harness;
    let model = harness.mapped_model().map(str::to_owned);
    let mut fold = Fold::new(facts(&run, harness.provider.as_str(), model));
    let mut after = 0;
    while after < run.last_seq {
        let events = core.store.told_events(id, after, run.last_seq, MAX_PAGE).await?;
        after = events.last().ok_or(EvidenceError::Gone)?.seq;
        for RunEvent { seq, execution_id, at_ms, kind, data } in events {
            let event: Option<Event> = EventLine { seq, at_ms, kind, data }.event();
            fold.see(execution_id.as_ref(), at_ms, event.as_ref());
        }
        // Another caller's turn: a long run's events are many to read.
        tokio::task::yield_now().await;
    }
    // Retention takes the oldest first: while the first one is there, none was missing above.
    if feed::events_page(core, scope, id, 0, 1).await?.gone {
        return Err(EvidenceError::Gone);
    }
    Ok(fold.finish(run.state.is_terminal()))
}

fn facts(run: &Run, provider: &str, model: Option<String>) -> Facts {
    Facts {
        run_id: run.id.clone(),
        execution_id: run.execution_id.clone(),
        attempt: run.attempt,
        prompt_sha256: hex::encode(digest(&run.prompt)),
        provider: provider.to_owned(),
        model,
        phases: run.phases.clone(),
    }
}

/// The events a run has now, in batches; what comes later is not waited for. It ends early, with an error, when they
/// are deleted under it.
///
/// # Errors
/// At once when the run is not there or not the caller's, or its events are kept no longer.
pub async fn events(
    core: Arc<Core>,
    scope: Scope,
    id: RunId,
) -> Result<impl Stream<Item = Result<Vec<RunEvent>, EvidenceError>> + Send + use<>, EvidenceError>
{
    let (_, last) = core.store.progress(&scope, &id).await?;
    let first = feed::events_page(&core, &scope, &id, 0, MAX_PAGE).await?;
    if first.gone {
        return Err(EvidenceError::Gone);
    }
    Ok(async_stream::stream! {
        let mut page = first;
        loop {
            page.events.retain(|event| event.seq <= last);
            let Some(after) = page.events.last().map(|event| event.seq) else { return };
            yield Ok(page.events);
            if after >= last {
                return;
            }
            page = match feed::events_page(&core, &scope, &id, after, MAX_PAGE).await {
                Ok(page) if page.gone => {
                    yield Err(EvidenceError::Gone);
                    return;
                }
                Ok(page) => page,
                Err(error) => {
                    yield Err(error.into());
                    return;
                }
            };
        }
    })
}
