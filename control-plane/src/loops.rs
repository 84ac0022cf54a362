//! Starts what a plane does on its own: dispatch, the reaper, and the wake-ups between planes.

use std::sync::Arc;

use crate::{core::Core, dispatch, planes, reaper, retention};

/// Starts every loop on the core's life. The process does not outlive one of them.
pub fn start(core: &Arc<Core>) {
    let life = &core.life;
    life.spawn_essential("dispatch", dispatch::run(Arc::clone(core), life.clone()));
    life.spawn_essential("the reaper", reaper::run(Arc::clone(core), life.clone()));
    life.spawn_essential("retention", retention::run(Arc::clone(core), life.clone()));
    life.spawn_essential("wake-ups between planes", planes::run(Arc::clone(core), life.clone()));
}
