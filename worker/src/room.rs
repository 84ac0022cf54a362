//! Measures what a worker's executions take of its disks, and makes room: nothing new is taken while there is none,
//! and images that nobody uses go first, then conversations.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{backend::Usage, executions::Executions, home::Home, leftovers, tree::bytes_below};

/// A measurement takes at most a tenth of the time: the engine walks through whole containers for it.
const AT_MOST: u32 = 10;

/// Measures again and again; never returns.
pub(crate) async fn watch(executions: Arc<Executions>) {
    let context = &executions.context;
    let disk = &context.disk;
    loop {
        let begun = Instant::now();
        if let Err(error) = measure(&executions).await {
            tracing::debug!(error = format!("{error:#}"), "the disk could not be measured");
        }
        tokio::time::sleep(disk.every.max(begun.elapsed() * AT_MOST)).await;
    }
}

async fn measure(executions: &Executions) -> anyhow::Result<()> {
    let context = &executions.context;
    let disk = &context.disk;
    let mut is_full = disk.note(&usage(executions).await?);
    // What is beyond its own bound goes by itself, and takes what it wrote along.
    if is_full && !disk.is_any_beyond() {
        // What goes wrong is said, and changes nothing about what was measured.
        if let Err(error) = remove_images(executions, &mut is_full).await {
            tracing::warn!(error = format!("{error:#}"), "no more images make room");
        }
        if let Err(error) = remove_sessions(executions, &mut is_full).await {
            tracing::warn!(error = format!("{error:#}"), "no more conversations make room");
        }
    }
    if is_full != context.gate.is_disk_full() {
        let (used, free) = (disk.used_bytes() >> 20, disk.free_bytes() >> 20);
        if is_full {
            tracing::warn!(
                "the disk is full (used {used} MiB, free {free} MiB); nothing new is taken until there is room"
            );
        } else {
            tracing::info!("there is room on the disk again (used {used} MiB, free {free} MiB)");
        }
    }
    context.gate.disk_is_full(is_full);
    executions.measured(disk.taken());
    Ok(())
}

async fn remove_images(executions: &Executions, is_full: &mut bool) -> anyhow::Result<()> {
    let context = &executions.context;
    while *is_full {
        let Some(image) = context.backend.remove_an_image().await? else { break };
        context.metrics.image_removed();
        tracing::info!("image {image}, which nothing uses, made room on the disk");
        *is_full = context.disk.note(&usage(executions).await?);
    }
    Ok(())
}

async fn remove_sessions(executions: &Executions, is_full: &mut bool) -> anyhow::Result<()> {
    if !*is_full {
        return Ok(());
    }
    let context = &executions.context;
    for conversation in leftovers::unused_sessions(executions).await? {
        match leftovers::remove_session(executions, &conversation).await {
            Ok(true) => *is_full = context.disk.note(&usage(executions).await?),
            Ok(false) => {}
            Err(error) => {
                context.metrics.cleanup_failed();
                tracing::warn!(error = format!("{error:#}"), "a conversation makes no room");
            }
        }
        if !*is_full {
            break;
        }
    }
    Ok(())
}

/// What the backend counts, and the folders.
async fn usage(executions: &Executions) -> anyhow::Result<Usage> {
    let context = &executions.context;
    let mut usage = context.backend.usage().await?;
    let homes = Home::ids(&context.state_dir)?;
    let count = move || {
        let sizes = homes.into_iter().map(|(home, id)| (id, bytes_below(home.path())));
        sizes.collect::<Vec<_>>()
    };
    for (id, bytes) in tokio::task::spawn_blocking(count).await? {
        usage.add(id, bytes);
    }
    context.sessions.measured(usage.sessions.clone());
    // While an execution works on one, it is what that execution takes.
    for held in executions.all() {
        if let Some(bytes) = held.conversation().and_then(|id| usage.sessions.remove(id)) {
            usage.add(held.execution_id.clone(), bytes);
        }
    }
    Ok(usage)
}
