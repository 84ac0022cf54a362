//! How long a run waits when its worker is lost: workers that vanish, black-holed or closed without a word, by the
//! plane's default settings, until another worker has their runs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    database::Database,
    link::{Assigned, Heard, Link},
    load::{Seen, ask, finishers},
    plane::{Ground, Plane},
    stats::Spread,
};
use crate::{failure::Failure, term::Term};

/// Workers lost in each of the two ways.
const LOST: u32 = 10;
const LOST_QUICKLY: u32 = 3;

/// No lost run takes so long.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug, Serialize)]
pub(crate) struct Requeue {
    pub(crate) lease_ms: u64,
    pub(crate) heartbeat_ms: u64,
    /// The socket stays open and nothing is said any more, as behind a cut cable.
    pub(crate) silent: Spread,
    /// The socket is closed by the kernel, as after a SIGKILL.
    pub(crate) closed: Spread,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Silent,
    Closed,
}

pub(crate) async fn measure(
    ground: &Ground<'_>,
    database: &Database,
    term: &mut Term,
) -> Result<Requeue, Failure> {
    let each = if ground.quick { LOST_QUICKLY } else { LOST };
    let count = each * 2;
    let plane = Plane::start(ground, database)?;
    let mut links = Vec::new();
    for i in 0..count {
        links.push(plane.worker(&format!("lost-{i}"), 1).await?);
    }
    let (lease_ms, heartbeat_ms) = (links[0].lease_ms, links[0].heartbeat_ms);
    let token = plane.tenant("bench").await?;
    let mut http = plane.http(&token).await?;
    for _ in 0..count {
        ask(&mut http).await?;
    }
    // Each worker has room for one run, so each gets one; then it beats until it is lost.
    let mut holders = Vec::new();
    for (link, i) in links.into_iter().zip(0..) {
        let way = if i < each { Way::Silent } else { Way::Closed };
        // At every point between two heartbeats, and after the first.
        let beat = Duration::from_millis(heartbeat_ms);
        let after = beat + beat * (i % each) / each;
        holders.push(plane.life.spawn(hold(link, way, after)));
    }
    term.status(&format!("{}: losing {count} workers", database.name()));
    let mut lost = Vec::new();
    for holder in holders {
        let held = holder.await.map_err(|error| Failure::platform(error.to_string()))?;
        lost.push(held.ok_or_else(|| Failure::platform("a worker got no run to lose"))?);
    }
    let seen = Arc::new(Seen::default());
    finishers(&plane, 1, count, &seen, || {}).await?;
    term.status(&format!("{}: waiting for {count} lost runs", database.name()));
    tokio::time::timeout(PATIENCE, seen.all_reported(u64::from(count)))
        .await
        .unwrap_or_else(|_| Err(Failure::platform("lost runs did not come back")))?;
    let arrived = seen.take();
    let of = |wanted: Way| {
        let waits = lost.iter().filter(|lost| lost.way == wanted);
        let waits = waits.filter_map(|lost| Some(*arrived.get(&lost.run)? - lost.at));
        Spread::of(waits.collect())
    };
    let (silent, closed) = (of(Way::Silent), of(Way::Closed));
    drop(lost);
    plane.stop().await;
    Ok(Requeue { lease_ms, heartbeat_ms, silent, closed })
}

/// A run whose worker is gone.
struct Lost {
    run: String,
    at: Instant,
    way: Way,
    /// The socket of a silent one stays open until the end.
    _socket: Option<Link>,
}

/// Takes a run, claims it, beats, and vanishes `after` that time.
async fn hold(mut link: Link, way: Way, after: Duration) -> Option<Lost> {
    let Assigned { run, .. } = loop {
        match link.next().await {
            Heard::Assigned(assigned) => {
                link.claim(&assigned).await;
                break assigned;
            }
            Heard::Closed => return None,
            _ => {}
        }
    };
    let vanishing = tokio::time::sleep(after);
    tokio::pin!(vanishing);
    loop {
        tokio::select! {
            () = &mut vanishing => break,
            heard = link.next() => if matches!(heard, Heard::Closed) { return None },
        }
    }
    let socket = (way == Way::Silent).then_some(link);
    Some(Lost { run, at: Instant::now(), way, _socket: socket })
}
