//! The images that end-to-end tests run in.

use std::{fs, sync::OnceLock};

use test_support::{
    image::{self, LABEL, docker},
    repo::Repository,
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
