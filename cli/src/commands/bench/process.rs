//! Processes that are measured: children that end with their value, and what the kernel says of them.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::{
    param::clock_ticks_per_second,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{failure::Failure, surroundings::Surroundings};

/// Sockets and files of a process beside the connections that are measured.
const OWN_FILES: u64 = 256;

/// A process that ends with this value.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    /// Starts a command of this binary's, or of the one at `binary`, with little of the environment.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn ozma(
        binary: &Path,
        args: &[&str],
        folder: &Path,
        around: &Surroundings,
        variables: &[(&str, &str)],
        stdout: Stdio,
    ) -> Result<Self, Failure> {
        let mut command = Command::new(binary);
        command.args(args).current_dir(folder).env_clear().env("HOME", folder);
        for name in ["DOCKER_HOST", "PATH"] {
            if let Some(value) = around.var(name) {
                command.env(name, value);
            }
        }
        command.envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
        Self::start(command)
    }

    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(mut command: Command) -> Result<Self, Failure> {
        use std::os::unix::process::CommandExt;
        // A Ctrl-C at the terminal is for us; we then end what we started, in order.
        command.process_group(0);
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn();
        Ok(Self(child.map_err(|error| Failure::platform(format!("start {name}: {error}")))?))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Ends it now.
    pub(crate) fn kill(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub(crate) fn lives(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `VmRSS` of a process, in bytes; `None` when it is gone.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Processor time of a process so far, all its threads, user and system; zero when it is gone.
pub(crate) fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    ticks(stat_fields(&stat).map_or(0, |fields| fields.own))
}

/// Processor time of a process and of its children, also of those that have ended.
pub(crate) fn family_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat_fields(&stat).map_or(0, |fields| fields.own + fields.of_ended);
    let children: u64 = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .filter_map(|stat| stat_fields(&stat))
        .filter(|fields| fields.parent == pid)
        .map(|fields| fields.own)
        .sum();
    ticks(parent + children)
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1_000 / clock_ticks_per_second().max(1))
}

struct Stat {
    parent: u32,
    own: u64,
    of_ended: u64,
}

/// What stands behind the name, which may hold anything: parent is field 4, the times are 14 to 17.
fn stat_fields(stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(4)?).ok()?,
        own: number(14)? + number(15)?,
        of_ended: number(16)? + number(17)?,
    })
}

/// Lets this process, and those it starts, have as many files as they may; says how many connections that allows.
pub(crate) fn most_connections() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where it is refused, the old limit holds.
    let _ = setrlimit(Resource::Nofile, raised);
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    allowed.saturating_sub(OWN_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_memory_and_time() {
        let pid = std::process::id();
        assert!(resident(pid).unwrap() > 100_000);
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        assert_ne!(stat_fields(&stat).unwrap().parent, 0);
        assert!(most_connections() > 0);
    }

    #[test]
    fn a_hostile_name_does_not_move_the_fields() {
        let stat = "7 (a) b (c)) S 3 7 7 0 -1 4194560 1 0 0 0 250 50 4 6 20 0";
        let fields = stat_fields(stat).unwrap();
        assert_eq!((fields.parent, fields.own, fields.of_ended), (3, 300, 10));
    }
}
