//! What the kernel says of the container's memory, under cgroup version 1 and 2.

use std::{fs, path::Path};

/// One look at the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) peak_bytes: Option<u64>,
    pub(crate) limit_bytes: Option<u64>,
    /// Processes killed for want of memory, so far.
    pub(crate) oom_kills: u64,
}

/// Limits above this are the kernel's way to say that there is none.
const NO_LIMIT: u64 = 1 << 60;

impl Memory {
    /// Of the container this process is in.
    pub(crate) fn of_container() -> Self {
        Self::read(Path::new("/sys/fs/cgroup"))
    }

    fn read(root: &Path) -> Self {
        let number = |path: &str| fs::read_to_string(root.join(path)).ok()?.trim().parse().ok();
        let kills = |path: &str| {
            let text = fs::read_to_string(root.join(path)).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        };
        let of = |peak, limit, events| {
            Some(Self {
                oom_kills: kills(events)?,
                peak_bytes: number(peak),
                limit_bytes: number(limit).filter(|limit| *limit < NO_LIMIT),
            })
        };
        of("memory.peak", "memory.max", "memory.events")
            .or_else(|| {
                of(
                    "memory/memory.max_usage_in_bytes",
                    "memory/memory.limit_in_bytes",
                    "memory/memory.oom_control",
                )
            })
            .unwrap_or_default()
    }
}

/// Makes the kernel choose this process's child `pid` before PID 1 when memory is short.
pub(crate) fn prefer_to_kill(pid: u32) {
    // A process that is gone already needs no preference.
    let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), "1000");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Memory::read(folder.path()), Memory::default());
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        fs::create_dir(folder.path().join("memory")).unwrap();
        write("memory/memory.max_usage_in_bytes", "5\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
        let v1 = Memory { peak_bytes: Some(5), limit_bytes: None, oom_kills: 2 };
        assert_eq!(Memory::read(folder.path()), v1);
        write("memory.peak", "7\n");
        write("memory.max", "max\n");
        write("memory.events", "low 0\noom 3\noom_kill 1\noom_group_kill 0\n");
        let v2 = Memory { peak_bytes: Some(7), limit_bytes: None, oom_kills: 1 };
        assert_eq!(Memory::read(folder.path()), v2);
    }
}
