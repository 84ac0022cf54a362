//! Going on with a conversation: which run was its last, who answered, and which worker keeps what it left.

use protocol::{
    ids::RunId,
    spec::{HarnessSpec, ProviderKind, SessionSpec},
};

use super::{NewRun, RunServers, Snapshot, SubmitError};
use crate::{
    core::Core,
    environments::{Servers, open_sealed},
    link,
    scope::Scope,
    store::{Kept, Run, StoreError, from_json},
};

/// A conversation that somebody wants to go on with.
#[derive(Debug)]
pub(crate) struct GoingOn {
    pub(crate) id: RunId,
    pub(crate) last: Run,
    /// Who answered in it, as the last run asked.
    pub(crate) harness: HarnessSpec,
    /// The last run's own MCP servers, without its environment's.
    pub(crate) servers: Servers,
    /// Where its workspace is; `None` where no run of it came far enough to have one.
    pub(crate) kept: Option<Kept>,
    session: Option<SessionSpec>,
}

/// The newest run of a conversation that is named by any of its runs.
///
/// # Errors
/// `UnknownConversation`: not there, or not the caller's to see.
pub async fn last_run(core: &Core, scope: &Scope, id: &RunId) -> Result<Run, SubmitError> {
    let unknown = |error| match error {
        StoreError::NotFound => SubmitError::UnknownConversation,
        other => SubmitError::Store(other),
    };
    // Its first run may be deleted already, and the name may be that of a later one.
    let some = core.store.last_run(id).await.map_err(unknown)?;
    let some = core.store.run(scope, &some).await.map_err(unknown)?;
    let last = core.store.last_run(&some.conversation_id).await.map_err(unknown)?;
    core.store.run(scope, &last).await.map_err(unknown)
}

pub(super) async fn go_on(core: &Core, scope: &Scope, id: &RunId) -> Result<GoingOn, SubmitError> {
    let last = last_run(core, scope, id).await?;
    if last.owner != *scope.owner() {
        return Err(SubmitError::ForeignConversation);
    }
    let text = core.store.snapshot(scope, &last.id).await?;
    let Snapshot { spec, session } = from_json(&text, "run snapshot")?;
    let sealed = core.store.mcp_sealed(&last.id).await?;
    let servers: RunServers = open_sealed(&core.sealer, last.id.as_str(), sealed.as_deref())?;
    let kept = core.store.kept(&last.conversation_id).await?;
    Ok(GoingOn {
        id: last.conversation_id.clone(),
        harness: spec.harness,
        servers: servers.run,
        last,
        kept,
        session,
    })
}

impl GoingOn {
    /// Whether this run can go on with it now; the store has the last word on what is under way.
    pub(super) async fn check(&self, core: &Core, new: &NewRun) -> Result<(), SubmitError> {
        if !self.last.state.is_terminal() {
            return Err(SubmitError::ConversationBusy(self.last.id.clone()));
        }
        let provider = self.harness.provider;
        if let Some(asked) = new.provider.filter(|asked| *asked != provider) {
            let (was, asked) = (provider.as_str(), asked.as_str());
            return Err(SubmitError::OtherProvider { was, asked });
        }
        if provider == ProviderKind::Command {
            return Err(SubmitError::NothingKept("a command has no conversation"));
        }
        let Some(kept) = &self.kept else { return Ok(()) };
        if self.session.is_none() {
            return Err(SubmitError::NothingKept("keep_sessions is off"));
        }
        if new.worker_host.as_deref().is_some_and(|host| host != kept.worker_id.as_str()) {
            return Err(SubmitError::OtherWorker(kept.worker_id.clone()));
        }
        let seen_since = core.now() - link::SEEN_FOR_MS;
        if !core.store.is_connected(&kept.worker_id, seen_since).await? {
            return Err(SubmitError::WorkerAway(kept.worker_id.clone()));
        }
        Ok(())
    }
}
