//! Files that one can hold in one's head.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Half of all files are at most this long, in lines.
const MEDIAN: usize = 150;

/// No file is longer, unless its first lines say why: "in one file because …".
const LONGEST: usize = 480;

#[test]
fn files_are_short() {
    let mut sizes: Vec<(usize, PathBuf)> = Vec::new();
    for part in ["protocol", "service", "harness", "control-plane", "worker", "sidecar", "cli"] {
        collect(&super::root().join(part), &mut sizes);
    }
    collect(&super::root().join("test-support"), &mut sizes);
    sizes.sort();
    let long: Vec<String> = sizes
        .iter()
        .filter(|(lines, path)| *lines > LONGEST && !says_why(path))
        .map(|(lines, path)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "split by topic, or say why not: {long:#?}");
    let median = sizes[sizes.len() / 2].0;
    assert!(median <= MEDIAN, "half of the files have more than {median} lines");
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut sizes = Vec::new();
    collect(&super::root(), &mut sizes);
    let silent: Vec<PathBuf> = sizes
        .into_iter()
        .map(|(_, path)| path)
        .filter(|path| !fs::read_to_string(path).unwrap().trim_start().starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "no `//!` on the first line: {silent:#?}");
}

/// Every Rust file below `folder`, with its lines.
fn collect(folder: &Path, sizes: &mut Vec<(usize, PathBuf)>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type().unwrap().is_dir() {
            // Cargo's folder, other projects' clones, and everything hidden.
            if name != "target" && name != "clients" && !name.to_string_lossy().starts_with('.') {
                collect(&path, sizes);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sizes.push((fs::read_to_string(&path).unwrap().lines().count(), path));
        }
    }
}

fn says_why(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap();
    text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains("because"))
}
