//! A user's wish that a run stop.

use protocol::{
    failure::FailureReason,
    ids::RunId,
    run::{Fact, RunState},
};

use super::{Store, StoreError, Tx, again, transitions::Change};
use crate::scope::Scope;

/// What became of a wish to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It had not begun, and is over.
    AtOnce,
    /// Its worker has to stop it.
    Asked,
    /// It is being handed to a worker: try again.
    Pending,
    /// It was over before.
    Terminal,
}

impl Store {
    /// The user's wish that it stop.
    pub async fn cancel_run(
        &self,
        scope: &Scope,
        id: &RunId,
        now: i64,
    ) -> Result<Cancelled, StoreError> {
        again(async || {
            let mut tx = self.begin().await?;
            let cancelled = tx.cancel_run(scope, id, now).await?;
            match cancelled {
                Cancelled::AtOnce | Cancelled::Asked => tx.commit().await?,
                Cancelled::Pending | Cancelled::Terminal => tx.roll_back().await?,
            }
            Ok(cancelled)
        })
        .await
    }
}

impl Tx {
    async fn cancel_run(
        &mut self,
        scope: &Scope,
        id: &RunId,
        now: i64,
    ) -> Result<Cancelled, StoreError> {
        let mut head = self.lock_run(id).await?;
        if !scope.is_admin() && head.owner != *scope.owner() {
            return Err(StoreError::NotFound);
        }
        match head.standing.state {
            state if state.is_terminal() => return Ok(Cancelled::Terminal),
            RunState::Pending => return Ok(Cancelled::Pending),
            _ if head.standing.cancelling => return Ok(Cancelled::Asked),
            _ => {}
        }
        let change = Change {
            reason: Some(FailureReason::TaskCancelled),
            message: Some("cancelled by its user".to_owned()),
            ..Change::default()
        };
        self.advance(&mut head, Fact::CancelRequested, &change, now).await?;
        let over = head.standing.state.is_terminal();
        Ok(if over { Cancelled::AtOnce } else { Cancelled::Asked })
    }
}
