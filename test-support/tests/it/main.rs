//! The shape of the house, checked: who depends on whom, and how long its files are.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod dependencies;
mod files;

/// The workspace's root.
fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a member has a workspace above it")
        .to_owned()
}
