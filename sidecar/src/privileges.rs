//! Becoming the unprivileged user, for good.
//!
//! A child that is to hold the model's key is never root, and never traceable: it becomes the agent's user before
//! its binary is loaded, and since that user may execute this binary and not read it (mode 0711), the kernel lets
//! nobody look into the process from its first instruction on.

use std::{os::unix::process::CommandExt, process::Command};

use caps::CapSet;
use nix::{
    sys::prctl,
    unistd::{Gid, Uid, geteuid, getresgid, getresuid},
};
use protocol::sidecar::AGENT_UID;

/// Whether this process may become another user.
pub(crate) fn can_drop() -> bool {
    geteuid().is_root()
}

/// Has `command`, once started by this thread, be the agent's user's from before its binary is loaded, with an empty
/// bounding set. No later child of this thread gets a capability back, whoever it is; our own stay.
pub(crate) fn as_agent(command: &mut Command) {
    // Needs CAP_SETPCAP. Without it the set stays as it is, and no-new-privileges keeps it out of reach.
    for capability in caps::runtime::thread_all_supported() {
        let _ = caps::drop(None, CapSet::Bounding, capability);
    }
    let _ = caps::clear(None, CapSet::Ambient);
    // Started by root, it has no further groups then.
    command.uid(AGENT_UID).gid(AGENT_UID);
}

/// Makes sure of it in the child: the user, and no capability that could come back.
/// The process can then not be traced by others of that user: it holds the model's key.
pub(crate) fn drop_all() -> Result<(), String> {
    let agent = (Uid::from_raw(AGENT_UID), Gid::from_raw(AGENT_UID));
    let (users, groups) = (getresuid(), getresgid());
    let (users, groups) = users
        .and_then(|users| Ok((users, groups?)))
        .map_err(|error| format!("find out who this is: {error}"))?;
    let is_agent = [users.real, users.effective, users.saved].iter().all(|uid| *uid == agent.0)
        && [groups.real, groups.effective, groups.saved].iter().all(|gid| *gid == agent.1);
    if !is_agent {
        return Err("this is not the agent's user".to_owned());
    }
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(|error| format!("drop capabilities: {error}"))?;
    }
    prctl::set_no_new_privs().map_err(|error| format!("set no-new-privileges: {error}"))?;
    protect()
}

/// Keeps other processes of the same user out of this one's memory and descriptors.
pub(crate) fn protect() -> Result<(), String> {
    prctl::set_dumpable(false).map_err(|error| format!("become untraceable: {error}"))
}
