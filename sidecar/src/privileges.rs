//! Becoming the unprivileged user, for good. Called in a child before it has a second thread.

use caps::CapSet;
use nix::{
    sys::prctl,
    unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid},
};
use protocol::sidecar::AGENT_UID;

/// Whether this process may become another user.
pub(crate) fn can_drop() -> bool {
    geteuid().is_root()
}

/// Gives up groups, capabilities with their bounding set, and the user itself.
/// The process can then not be traced by others of that user: it holds the model's key.
pub(crate) fn drop_all() -> Result<(), String> {
    let told = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    // Needs CAP_SETPCAP. Without it the set stays as it is, and no-new-privileges keeps it out of reach.
    for capability in caps::runtime::thread_all_supported() {
        let _ = caps::drop(None, CapSet::Bounding, capability);
    }
    let _ = caps::clear(None, CapSet::Ambient);
    let (uid, gid) = (Uid::from_raw(AGENT_UID), Gid::from_raw(AGENT_UID));
    setgroups(&[]).map_err(told("drop the groups"))?;
    setresgid(gid, gid, gid).map_err(told("become the agent's group"))?;
    setresuid(uid, uid, uid).map_err(told("become the agent's user"))?;
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(|error| format!("drop capabilities: {error}"))?;
    }
    prctl::set_no_new_privs().map_err(told("set no-new-privileges"))?;
    protect()
}

/// Keeps other processes of the same user out of this one's memory and descriptors.
pub(crate) fn protect() -> Result<(), String> {
    prctl::set_dumpable(false).map_err(|error| format!("become untraceable: {error}"))
}
