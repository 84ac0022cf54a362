//! Following a run: the store is read, never a buffer, so that nothing is missed and nothing comes twice.

use std::sync::Arc;

use futures_util::Stream;
use protocol::ids::RunId;

use crate::{
    core::Core,
    scope::Scope,
    store::{RunEvent, StoreError},
};

/// The most events of one page; asking for more gives this many.
pub const MAX_PAGE: u32 = 1_000;

/// A page of events.
#[derive(Debug, Clone)]
pub struct EventPage {
    pub events: Vec<RunEvent>,
    /// There are more right now; ask again after the last one's number.
    pub more: bool,
    /// The run is over and this page ends with its last event: there will be no more.
    pub complete: bool,
    /// There was an event after the one asked for, and it is kept no longer.
    pub gone: bool,
}

/// Events after number `after`, from 0; at most `limit`, and no more than about 4 MiB of them.
pub async fn events_page(
    core: &Core,
    scope: &Scope,
    run: &RunId,
    after: u64,
    limit: u32,
) -> Result<EventPage, StoreError> {
    // The run is read first: what the events read after it lack, its number shows.
    let (state, last_seq) = core.store.progress(scope, run).await?;
    let events = core.store.events_after(run, after, limit.clamp(1, MAX_PAGE)).await?;
    let last = events.last().map_or(after, |event| event.seq);
    let more = last < last_seq;
    // A run's numbers have no gaps, but for what retention took, which begins with the oldest.
    let gone = match events.first() {
        Some(first) => first.seq != after.saturating_add(1),
        None => more,
    };
    Ok(EventPage { events, more, complete: state.is_terminal() && !more, gone })
}

/// Every event after number `after` as it comes, in batches that are not empty. Ends after the event of the
/// run's end, with the first error, or when the plane drains.
///
/// # Errors
/// At once when the run is not there or not the caller's; later ones end the stream.
pub async fn follow(
    core: Arc<Core>,
    scope: Scope,
    run: RunId,
    after: u64,
) -> Result<impl Stream<Item = Result<Vec<RunEvent>, StoreError>> + Send + use<>, StoreError> {
    core.store.progress(&scope, &run).await?;
    Ok(async_stream::stream! {
        let mut seen = after;
        let mut changed = core.wake.on_run(&run);
        loop {
            // Marked before the read: what is stored from here on wakes us below.
            changed.borrow_and_update();
            let page = match events_page(&core, &scope, &run, seen, MAX_PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    yield Err(error);
                    return;
                }
            };
            if page.gone {
                // Taken while somebody read: whoever asks again is told.
                return;
            }
            if let Some(last) = page.events.last() {
                seen = last.seq;
                yield Ok(page.events);
            }
            if page.complete {
                return;
            }
            if page.more {
                continue;
            }
            tokio::select! {
                () = core.life.draining().cancelled() => return,
                // Another plane's word may be lost; looking now and then makes up for it.
                () = tokio::time::sleep(core.settings.poll * 4) => {}
                _ = changed.changed() => {}
            }
        }
    })
}
