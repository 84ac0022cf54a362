//! The images that end-to-end tests run in.

use std::{fs, process::Command, sync::OnceLock};

use tempfile::TempDir;
use test_support::{
    image::{self, LABEL, docker},
    process::Process,
    repo::Repository,
    wait::eventually,
};

/// The shop's only file that matters, before a run changes it.
pub(crate) const PRICES: &str = "tea 250\nbun 120\n";

/// Busybox alone: a shell and its tools.
pub(crate) fn busybox() -> &'static str {
    image::busybox()
}

/// Busybox with a repository at `/srv/shop.git`.
pub(crate) fn shop() -> &'static str {
    const NAME: &str = "ozma-test:shop";
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("srv")).unwrap();
        Repository::with_files(&[("prices.txt", PRICES), ("README.md", "# Shop\n")])
            .bare(&folder.path().join("srv/shop.git"));
        image::with_files(busybox(), folder.path(), NAME);
    });
    NAME
}

/// An address of this machine that containers reach: where the engine's own bridge leads.
pub(crate) fn host() -> String {
    static HOST: OnceLock<String> = OnceLock::new();
    let asked = HOST.get_or_init(|| {
        let routes = docker(&["run", "--rm", "--label", LABEL, busybox(), "ip", "route"], &[]);
        routes
            .lines()
            .find_map(|line| line.strip_prefix("default via ")?.split(' ').next())
            .unwrap_or_else(|| panic!("the engine's bridge leads nowhere: {routes}"))
            .to_owned()
    });
    asked.clone()
}

/// A Debian with git and Perl, the shop's repository at `/srv/shop.git`, and a workflow server below `/opt/flow`.
pub(crate) fn workshop() -> &'static str {
    const NAME: &str = "ozma-test:workshop";
    const BASE: &str = "ozma-base:bookworm";
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        assert!(image::exists(BASE), "the image {BASE} is missing: scripts/test.sh makes it");
        let folder = tempfile::tempdir().unwrap();
        let flow = folder.path().join("opt/flow");
        fs::create_dir_all(&flow).unwrap();
        fs::write(flow.join("flow.pl"), FLOW).unwrap();
        let manifest = r#"{"name": "flow", "command": "perl", "args": ["flow.pl"]}"#;
        fs::write(flow.join("server.json"), manifest).unwrap();
        fs::create_dir(folder.path().join("srv")).unwrap();
        Repository::with_files(&[("prices.txt", PRICES), ("README.md", "# Shop\n")])
            .bare(&folder.path().join("srv/shop.git"));
        image::with_files(BASE, folder.path(), NAME);
    });
    NAME
}

const FLOW: &str = include_str!("../../../test-support/mcp/flow.pl");

/// The workflow server over HTTP, on this machine, where containers reach it; ended when dropped.
pub(crate) struct Flow {
    process: Process,
    folder: TempDir,
}

impl Flow {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("python3");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../test-support/mcp/flow.py");
        command.args([script, "--http"]).arg(folder.path().join("port")).arg(host());
        let flow = Self { process: Process::start("the workflow server", command), folder };
        eventually("the workflow server listens", async || flow.port().map(drop)).await;
        flow
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}:{}/", host(), self.port().unwrap())
    }

    fn port(&self) -> Option<String> {
        fs::read_to_string(self.folder.path().join("port")).ok()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.process.kill();
    }
}
