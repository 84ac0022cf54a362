//! What the numbers were measured on, as far as the machine says it itself.

use std::{
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use protocol::api::time::Timestamp;
use serde::Serialize;
use service::clock::Clock;

use super::stats::Spread;
use crate::failure::Failure;

/// Writes that are waited for, to know what a durable commit costs at least.
const SYNCS: usize = 100;

#[derive(Debug, Default, Serialize)]
pub(crate) struct Machine {
    pub(crate) at: String,
    pub(crate) ozma: &'static str,
    /// A build without optimisation is slower.
    pub(crate) optimised: bool,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    /// The folder is in memory: commits cost nothing, and no number with a database means anything.
    pub(crate) in_memory: bool,
    /// Median time of 4 KiB written and synced in the folder of the databases.
    pub(crate) sync_micros: f64,
}

impl Machine {
    /// # Errors
    /// The folder cannot be written to.
    pub(crate) fn look(folder: &Path) -> Result<Self, Failure> {
        let line = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let memory = line("/proc/meminfo");
        let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        let at = Timestamp(Clock::system().now_ms());
        Ok(Self {
            at: at.to_string(),
            ozma: env!("CARGO_PKG_VERSION"),
            optimised: !cfg!(debug_assertions),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kib.unwrap_or(0) >> 20,
            kernel: line("/proc/sys/kernel/osrelease").trim().to_owned(),
            // The kernel's number of its file system in memory.
            in_memory: rustix::fs::statfs(folder).is_ok_and(|stat| stat.f_type == 0x0102_1994),
            sync_micros: sync_micros(folder)?,
        })
    }

    /// In a sentence.
    pub(crate) fn describe(&self) -> String {
        let Self { at, ozma, cores, memory_gib, kernel, sync_micros, .. } = self;
        let build = if self.optimised { "optimised" } else { "NOT optimised" };
        let disk = if self.in_memory { " (IN MEMORY: choose another --folder)" } else { "" };
        format!(
            "ozma {ozma}, {build} build; {cores} cores, {memory_gib} GiB, Linux {kernel}; \
             {sync_micros:.0} µs for 4 KiB written and synced{disk}; {at}"
        )
    }
}

fn sync_micros(folder: &Path) -> Result<f64, Failure> {
    let mut file = fs::File::create(folder.join("sync"))?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[0; 4 << 10])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    let spread: Vec<Duration> = times;
    Ok(Spread::of(spread).p50_ms * 1_000.0)
}
