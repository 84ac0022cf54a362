//! Looking for servers in a folder: their manifests are read, each server is started, and what was found is written
//! down, for the runs that come after.

mod written;

use std::{
    collections::{BTreeMap, btree_map::Entry::Vacant},
    fs,
    path::{Path, PathBuf},
};

use protocol::{secret::Secret, spec::McpServer};
use serde::Deserialize;

use super::files::text;
use crate::agent::mcp::Servers;

pub(super) use self::written::{REGISTRY, read, write};

/// The folder that is looked into where none is named.
const DEFAULT_FOLDER: &str = "servers";

/// How deep below the folder manifests are looked for.
const MAX_DEPTH: usize = 3;

/// Most files and folders looked at in one scan; the rest is left out, and the result says so.
const MAX_FILES: usize = 1_000;

/// Largest manifest, in bytes; a larger file is none.
const MAX_MANIFEST_BYTES: u64 = 256 << 10;

/// Most servers of one scan.
const MAX_SERVERS: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    #[serde(default)]
    folder: Option<String>,
}

/// What a scan found, or an earlier one did.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) servers: BTreeMap<String, McpServer>,
    /// Where each was found.
    manifests: BTreeMap<String, PathBuf>,
    /// Files that look like manifests and are none, and servers that are not taken, with the reason.
    pub(super) skipped: Vec<String>,
}

/// A manifest: one server with a name, or several in the form that MCP clients share.
#[derive(Deserialize)]
#[serde(untagged)]
enum Manifest {
    Many {
        #[serde(rename = "mcpServers", alias = "servers")]
        servers: BTreeMap<String, Entry>,
    },
    One {
        name: String,
        #[serde(flatten)]
        entry: Entry,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Stdio {
        command: String,
        #[serde(default)]
        args: Vec<String>,
        #[serde(default)]
        env: BTreeMap<String, Secret>,
    },
    Http {
        url: String,
        #[serde(default)]
        headers: BTreeMap<String, Secret>,
    },
}

impl Entry {
    /// A program named by a path is meant from where its manifest stands.
    fn server(self, folder: &Path) -> McpServer {
        match self {
            Self::Stdio { command, args, env } => {
                let here = |text: String| {
                    let path = folder.join(&text);
                    if text.contains('/') && path.exists() {
                        path.display().to_string()
                    } else {
                        text
                    }
                };
                let beside = |arg: String| {
                    let path = folder.join(&arg);
                    if path.is_file() { path.display().to_string() } else { arg }
                };
                let args = args.into_iter().map(beside).collect();
                McpServer::Stdio { command: here(command), args, env }
            }
            Self::Http { url, headers } => McpServer::Http { url, headers },
        }
    }
}

pub(super) fn scan(directory: &Path, input: &Input) -> Result<Found, String> {
    let folder = directory.join(input.folder.as_deref().unwrap_or(DEFAULT_FOLDER));
    if !folder.is_dir() {
        return Err(format!("{} is no folder", folder.display()));
    }
    let mut found = Found::default();
    let (mut files, mut seen) = (Vec::new(), 0);
    manifests(&folder, 0, &mut files, &mut seen);
    if seen >= MAX_FILES {
        found.skipped.push(format!("more than {MAX_FILES} files; the rest was not looked at"));
    }
    for file in files {
        if let Err(why) = found.add(&file) {
            found.skipped.push(format!("{}: {why}", file.display()));
        }
    }
    Ok(found)
}

/// JSON files, in the order of their names.
fn manifests(folder: &Path, depth: usize, files: &mut Vec<PathBuf>, seen: &mut usize) {
    let left = MAX_FILES.saturating_sub(*seen);
    let mut entries: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().take(left).collect();
    *seen += entries.len();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (Ok(kind), path) = (entry.file_type(), entry.path()) else { continue };
        if kind.is_dir() && depth < MAX_DEPTH {
            manifests(&path, depth + 1, files, seen);
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
}

impl Found {
    fn add(&mut self, file: &Path) -> Result<(), String> {
        let folder = file.parent().unwrap_or(Path::new("."));
        for (name, entry) in entries(file)? {
            self.has_room_for(&name)?;
            if let Vacant(place) = self.servers.entry(name.clone()) {
                place.insert(entry.server(folder));
                self.manifests.insert(name, file.to_owned());
            }
        }
        Ok(())
    }

    fn has_room_for(&self, name: &str) -> Result<(), String> {
        if !is_name(name) {
            let end = name.floor_char_boundary(64);
            let name = &name[..end];
            return Err(format!("{name:?} is no name: letters, digits, - and _, at most 32"));
        }
        if self.servers.len() >= MAX_SERVERS {
            return Err(format!("more than {MAX_SERVERS} servers"));
        }
        Ok(())
    }

    /// Leaves out what has a name of the run's own servers.
    pub(super) fn without(&mut self, own: &BTreeMap<String, McpServer>) {
        for name in own.keys() {
            if self.servers.remove(name).is_some() {
                self.skipped.push(format!("{name}: the run has a server of its own by this name"));
            }
        }
    }
}

/// The servers of a manifest.
fn entries(file: &Path) -> Result<BTreeMap<String, Entry>, String> {
    let text = text(file, MAX_MANIFEST_BYTES).map_err(|error| error.to_string())?;
    let manifest = serde_json::from_str(&text)
        .map_err(|_| "is no manifest: name and command or url, or mcpServers".to_owned())?;
    Ok(match manifest {
        Manifest::Many { servers } => servers,
        Manifest::One { name, entry } => BTreeMap::from([(name, entry)]),
    })
}

fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

pub(super) fn report(
    written: &Path,
    servers: &Servers,
    skipped: &[String],
    failures: &[String],
) -> String {
    let tools: Vec<_> = servers.tools().into_iter().map(|tool| tool.name).collect();
    let mut lines = vec![format!("{} tools: {}", tools.len(), tools.join(", "))];
    lines.push(format!("written to {}", written.display()));
    lines.extend(skipped.iter().map(|text| format!("skipped: {text}")));
    lines.extend(failures.iter().cloned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_of_both_forms_are_found_and_others_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let servers = folder.path().join("servers");
        fs::create_dir_all(servers.join("a")).unwrap();
        fs::write(servers.join("a/server.py"), "").unwrap();
        let one = r#"{"name": "flow", "command": "python3", "args": ["server.py", "-v"]}"#;
        fs::write(servers.join("a/server.json"), one).unwrap();
        let many = r#"{"mcpServers": {"web": {"url": "http://127.0.0.1:1/mcp"}}}"#;
        fs::write(servers.join("mcp.json"), many).unwrap();
        fs::write(servers.join("other.json"), "[1]").unwrap();
        fs::write(servers.join("bad.json"), r#"{"name": "a/b", "command": "x"}"#).unwrap();
        let found = scan(folder.path(), &Input { folder: None }).unwrap();
        let McpServer::Stdio { args, .. } = &found.servers["flow"] else { panic!() };
        assert_eq!(args[0], servers.join("a/server.py").display().to_string());
        assert_eq!(args[1], "-v");
        assert!(matches!(found.servers["web"], McpServer::Http { .. }));
        assert_eq!(found.skipped.len(), 2, "{:?}", found.skipped);
        assert!(scan(folder.path(), &Input { folder: Some("nowhere".to_owned()) }).is_err());
    }
}
