//! The dependency table of `docs/ARCHITECTURE.md`, as cargo sees it.

use std::{fs, process::Command};

use serde_json::Value;

/// Each part and the parts it may use. What is not here may not be.
///
/// `cli` speaks the plane's API as any client does, so it uses `protocol` for the bodies and `service` for its
/// own life besides the two processes it starts.
const TABLE: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("service", &[]),
    ("harness", &["protocol"]),
    ("control-plane", &["harness", "protocol", "service"]),
    ("worker", &["protocol", "service"]),
    ("sidecar", &["harness", "protocol"]),
    ("cli", &["control-plane", "harness", "protocol", "service", "worker"]),
    ("test-support", &["control-plane", "harness", "protocol", "service", "worker"]),
];

/// Crates from outside that only these parts may know, in tests as well.
const KNOWN_TO: &[(&str, &[&str])] = &[
    ("axum", &["control-plane"]),
    ("bollard", &["worker", "test-support"]),
    ("sqlx", &["control-plane", "test-support"]),
    ("utoipa", &["control-plane", "protocol"]),
];

/// What `protocol` may not know besides: it does no IO and reads no clock.
const NOT_IN_PROTOCOL: &[&str] = &["axum", "bollard", "reqwest", "sqlx", "tokio"];

/// What nobody may bring in, however indirectly: a second TLS stack that needs the machine's libraries.
const NOWHERE: &[&str] = &["openssl-sys", "openssl", "native-tls"];

struct Dependency {
    of: String,
    on: String,
    /// Used by the part's own code, not only by its tests or its build.
    normal: bool,
}

#[test]
fn every_part_uses_only_what_the_table_allows() {
    let parts: Vec<&str> = TABLE.iter().map(|(part, _)| *part).collect();
    for Dependency { of, on, normal } in dependencies() {
        let Some((_, allowed)) = TABLE.iter().find(|(part, _)| *part == of) else {
            panic!("{of} is not in the table: say there what it may use");
        };
        if normal && parts.contains(&on.as_str()) {
            assert!(allowed.contains(&on.as_str()), "{of} may not depend on {on}");
        }
    }
}

#[test]
fn what_belongs_to_one_part_is_known_to_no_other() {
    for Dependency { of, on, .. } in dependencies() {
        if let Some((_, parts)) = KNOWN_TO.iter().find(|(name, _)| *name == on) {
            assert!(parts.contains(&of.as_str()), "{of} may not depend on {on}");
        }
        if of == "protocol" {
            assert!(!NOT_IN_PROTOCOL.contains(&on.as_str()), "protocol may not depend on {on}");
        }
    }
}

#[test]
fn no_second_tls_stack_comes_in() {
    let lock = fs::read_to_string(super::root().join("Cargo.lock")).unwrap();
    for name in NOWHERE {
        assert!(!lock.contains(&format!("name = \"{name}\"\n")), "{name} is in Cargo.lock");
    }
}

/// Every direct dependency of every part.
fn dependencies() -> Vec<Dependency> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(super::root())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo's answer is JSON");
    let packages = metadata["packages"].as_array().expect("cargo lists packages");
    packages
        .iter()
        .flat_map(|package| {
            let of = text(&package["name"]);
            package["dependencies"].as_array().expect("a package lists dependencies").iter().map(
                move |dependency| Dependency {
                    of: of.clone(),
                    on: text(&dependency["name"]),
                    normal: dependency["kind"].is_null(),
                },
            )
        })
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
