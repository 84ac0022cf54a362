//! Conversations that are kept for a run that goes on with them: how long ago each was used, and which have to go.
//! What is kept stands in the backend; what is noted here may be lost, and only lets a conversation stay longer.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use protocol::ids::RunId;
use serde::{Deserialize, Serialize};
use tokio::{sync::MutexGuard, task::spawn_blocking};

use crate::{boot::Moment, config::Sessions as Bounds, sync::lock};

/// Conversations noted; beyond it those used longest ago go, whatever their age and size.
const MAX_NOTED: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Sessions {
    keep: Duration,
    max_bytes: u64,
    path: PathBuf,
    /// When each was last in use.
    used: Mutex<BTreeMap<RunId, Used>>,
    /// Held while that is written down.
    saving: tokio::sync::Mutex<()>,
    /// What each took of the disk when it was last measured.
    bytes: Mutex<HashMap<RunId, u64>>,
    /// Held while one is looked for and while one is removed: what was found is not removed then.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Used {
    last: Moment,
}

/// A kept conversation as the bounds see it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    conversation: RunId,
    unused: Duration,
    bytes: u64,
    is_live: bool,
}

impl Sessions {
    /// With what an earlier life noted; nothing, should that be unreadable.
    pub(crate) fn open(bounds: &Bounds, state_dir: &Path) -> Self {
        let path = state_dir.join("sessions.json");
        let used = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Self {
            keep: Duration::from_secs(bounds.keep_secs),
            max_bytes: bounds.max_bytes,
            path,
            used: Mutex::new(used.unwrap_or_default()),
            saving: tokio::sync::Mutex::default(),
            bytes: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Waits until nobody looks for a conversation or removes one.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// An execution begins or ends with it: it may be too short for anybody to look at it meanwhile.
    pub(crate) async fn used(&self, conversation: &RunId) {
        lock(&self.used).insert(conversation.clone(), Used { last: Moment::now() });
        self.save().await;
    }

    /// Takes note of what each takes of the disk.
    pub(crate) fn measured(&self, bytes: HashMap<RunId, u64>) {
        *lock(&self.bytes) = bytes;
    }

    /// Those of `kept` that have to go now, in order. What is live counts as used now, and so does what nobody knew
    /// of.
    pub(crate) async fn due(
        &self,
        kept: Vec<RunId>,
        is_live: &(dyn Fn(&RunId) -> bool + Sync),
    ) -> Vec<RunId> {
        due(self.look(kept, is_live).await, self.keep, self.max_bytes)
    }

    /// Those that are not live, in the order in which they have to go.
    pub(crate) async fn unused(
        &self,
        kept: Vec<RunId>,
        is_live: &(dyn Fn(&RunId) -> bool + Sync),
    ) -> Vec<RunId> {
        let mut kept = self.look(kept, is_live).await;
        kept.retain(|kept| !kept.is_live);
        sort(&mut kept, self.max_bytes);
        kept.into_iter().map(|kept| kept.conversation).collect()
    }

    async fn look(&self, kept: Vec<RunId>, is_live: &(dyn Fn(&RunId) -> bool + Sync)) -> Vec<Kept> {
        let (looked, is_news) = self.compare(kept, is_live);
        if is_news {
            self.save().await;
        }
        looked
    }

    /// Each with how long it is unused; whether anything is to be noted of that.
    fn compare(&self, kept: Vec<RunId>, is_live: &dyn Fn(&RunId) -> bool) -> (Vec<Kept>, bool) {
        let mut used = lock(&self.used);
        let bytes = lock(&self.bytes);
        let before = used.clone();
        let mut looked = Vec::new();
        let mut now = BTreeMap::new();
        for conversation in kept {
            let is_live = is_live(&conversation);
            let known = used.remove(&conversation).filter(|_| !is_live);
            // A machine that was started anew does not say how long ago it was: it counts from now on.
            let unused = known.as_ref().and_then(|used| used.last.elapsed());
            let last = match (known, unused) {
                (Some(used), Some(_)) => used,
                _ => Used { last: Moment::now() },
            };
            now.insert(conversation.clone(), last);
            let bytes = bytes.get(&conversation).copied().unwrap_or(0);
            let unused = unused.unwrap_or_default();
            looked.push(Kept { conversation, unused, bytes, is_live });
        }
        *used = now;
        (looked, *used != before)
    }

    /// Writes down what is known by then.
    async fn save(&self) {
        let _alone = self.saving.lock().await;
        let text = serde_json::to_vec(&*lock(&self.used)).unwrap_or_default();
        let (path, fresh) = (self.path.clone(), self.path.with_extension("new"));
        let write =
            move || std::fs::write(&fresh, text).and_then(|()| std::fs::rename(fresh, path));
        if let Err(error) = spawn_blocking(write).await.unwrap_or_else(|error| Err(error.into())) {
            tracing::warn!(error = %error, "when conversations were used could not be noted");
        }
    }
}

/// First what was unused for longest; before all others one that alone is more than all may be, since without it they
/// may stay.
fn sort(kept: &mut [Kept], max_bytes: u64) {
    kept.sort_by_key(|kept| std::cmp::Reverse((kept.bytes > max_bytes, kept.unused)));
}

/// Those that are older than they may be; then, while all together are larger than they may be, the oldest.
fn due(mut kept: Vec<Kept>, keep: Duration, max_bytes: u64) -> Vec<RunId> {
    sort(&mut kept, max_bytes);
    let mut bytes = kept.iter().fold(0_u64, |sum, kept| sum.saturating_add(kept.bytes));
    let mut count = kept.len();
    let mut due = Vec::new();
    for kept in kept.into_iter().filter(|kept| !kept.is_live) {
        if kept.unused >= keep || bytes > max_bytes || count > MAX_NOTED {
            bytes = bytes.saturating_sub(kept.bytes);
            count -= 1;
            due.push(kept.conversation);
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: &str, unused: u64, bytes: u64, is_live: bool) -> Kept {
        let conversation = name.parse().unwrap();
        Kept { conversation, unused: Duration::from_secs(unused), bytes, is_live }
    }

    fn due_of(kept: Vec<Kept>, keep: u64, max_bytes: u64) -> Vec<String> {
        let due = due(kept, Duration::from_secs(keep), max_bytes);
        due.into_iter().map(String::from).collect()
    }

    #[test]
    fn the_oldest_go_first_and_what_is_live_stays() {
        let all = || {
            vec![
                kept("new", 1, 10, false),
                kept("old", 50, 10, false),
                kept("live", 90, 100, true),
                kept("older", 70, 10, false),
            ]
        };
        assert_eq!(due_of(all(), 100, 1_000), Vec::<String>::new());
        assert_eq!(due_of(all(), 60, 1_000), ["older"]);
        assert_eq!(due_of(all(), 100, 115), ["older", "old"]);
        // More than it can be made to hold: everything goes but what is live.
        assert_eq!(due_of(all(), 100, 5), ["older", "old", "new"]);
        assert_eq!(due_of(all(), 0, 1_000), ["older", "old", "new"]);
        let huge = [kept("huge", 5, u64::MAX, false)];
        assert_eq!(due_of(all().into_iter().chain(huge).collect(), 100, 200), ["huge"]);
    }

    #[tokio::test]
    async fn a_conversation_nobody_knew_of_counts_from_now_on() {
        let folder = tempfile::tempdir().unwrap();
        let bounds = Bounds { keep_secs: 3_600, max_bytes: 10 };
        let (one, two): (RunId, RunId) = ("one".parse().unwrap(), "two".parse().unwrap());
        let sessions = Sessions::open(&bounds, folder.path());
        assert!(sessions.due(vec![one.clone(), two.clone()], &|_| false).await.is_empty());
        // Another life knows when; what is gone is forgotten.
        let sessions = Sessions::open(&bounds, folder.path());
        sessions.measured(HashMap::from([(one.clone(), 8), (two.clone(), 8)]));
        assert!(sessions.unused(vec![one.clone()], &|_| true).await.is_empty());
        assert_eq!(lock(&sessions.used).len(), 1);
        let due = sessions.due(vec![one.clone(), two.clone()], &|id| *id == one).await;
        assert_eq!(due, [two]);
    }
}
