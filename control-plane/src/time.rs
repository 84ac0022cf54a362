//! What time it is for all planes of one database. Leases are compared across planes, whose clocks differ: so each
//! goes by the database server's. Where the database is a file there is one plane, and its clock is the time.

use std::{sync::atomic::Ordering, time::Duration};

use service::clock::Moment;

use crate::{
    core::Core,
    store::{StoreError, millis},
};

/// How often the two clocks are compared, and by how much they may part before anything is done about it.
const EVERY: Duration = Duration::from_secs(10);
const TOLERANCE_MS: i64 = 100;

/// A clock this far off is told to the operator.
const WORTH_TELLING_MS: i64 = 1_000;

/// An answer that took longer says too little about when it was given.
const QUICK: Duration = Duration::from_millis(500);

impl Core {
    /// From now on it is `now_ms`, by the database. A difference nobody would notice changes nothing.
    pub fn agree(&self, now_ms: i64) {
        let (ahead, before) = (now_ms.saturating_sub(self.clock.now_ms()), self.agreed.ahead_ms());
        if ahead.abs_diff(before) <= TOLERANCE_MS.unsigned_abs() {
            return;
        }
        if ahead.abs() > WORTH_TELLING_MS {
            tracing::warn!(
                ahead_ms = ahead,
                "this machine's clock and the database's are {} ms apart; the database's is taken",
                ahead.abs()
            );
        }
        self.agreed.ahead_ms.store(ahead, Ordering::Relaxed);
    }

    /// Asks the database for the time.
    ///
    /// # Errors
    /// The database is away.
    pub(crate) async fn ask_for_the_time(&self) -> Result<(), StoreError> {
        if self.clock.is_by_hand() {
            return Ok(());
        }
        let asked = self.clock.moment();
        let Some(said) = self.store.time().await? else { return Ok(()) };
        let took = self.clock.passed_since(asked);
        if took < QUICK {
            self.agree(said.saturating_add(millis(took / 2)));
        }
        Ok(())
    }

    /// Steps ahead since the start: so much older than it is may something seem that began before.
    pub(crate) fn stepped_ms(&self) -> i64 {
        self.agreed.stepped_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn stepped_ahead(&self, by_ms: i64) {
        self.agreed.stepped_ms.fetch_add(by_ms.max(0), Ordering::Relaxed);
    }
}

/// Notices when the agreed time is set.
#[derive(Debug)]
pub(crate) struct Steps {
    seen: Moment,
    ahead_ms: i64,
    asked: Moment,
}

impl Steps {
    pub(crate) fn new(core: &Core) -> Self {
        let now = core.clock.moment();
        Self { seen: now, ahead_ms: core.agreed.ahead_ms(), asked: now }
    }

    /// How long the last look is ago, and by how much the agreed time was set since, in milliseconds. A machine
    /// whose own clock is set asks the database, and goes on as if nothing had been.
    ///
    /// # Errors
    /// The database is away; the next look tells the same step.
    pub(crate) async fn look(&mut self, core: &Core) -> Result<(Duration, i64), StoreError> {
        let own = core.clock.jump_since(self.seen);
        if own.abs() > TOLERANCE_MS || core.clock.passed_since(self.asked) >= EVERY {
            core.ask_for_the_time().await?;
            self.asked = core.clock.moment();
        }
        let (passed, own) = (core.clock.passed_since(self.seen), core.clock.jump_since(self.seen));
        let step = own.saturating_add(core.agreed.ahead_ms() - self.ahead_ms);
        (self.seen, self.ahead_ms) = (core.clock.moment(), core.agreed.ahead_ms());
        core.stepped_ahead(step);
        Ok((passed, step))
    }
}
