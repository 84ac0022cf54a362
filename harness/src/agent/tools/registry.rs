//! Looking for servers in a folder: their manifests are read, each server is started, and what was found is written
//! down in `.workbench/registry/mcp.json`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use protocol::spec::McpServer;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::agent::mcp::Servers;

/// Where the result of a scan is written, below the working directory.
const REGISTRY: &str = ".workbench/registry/mcp.json";

/// The folder that is looked into where none is named.
const DEFAULT_FOLDER: &str = "servers";

/// How deep below the folder manifests are looked for.
const MAX_DEPTH: usize = 3;

/// Most files looked at in one scan; the rest is left out, and the result says so.
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

/// What a scan found.
pub(super) struct Found {
    pub(super) servers: BTreeMap<String, McpServer>,
    /// Files that look like manifests and are none, with the reason.
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
        env: BTreeMap<String, protocol::secret::Secret>,
    },
    Http {
        url: String,
        #[serde(default)]
        headers: BTreeMap<String, protocol::secret::Secret>,
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
    let mut found = Found { servers: BTreeMap::new(), skipped: Vec::new() };
    let mut files = Vec::new();
    manifests(&folder, 0, &mut files);
    if files.len() >= MAX_FILES {
        found.skipped.push(format!("more than {MAX_FILES} files; the rest was not looked at"));
    }
    for file in files {
        if let Err(why) = read(&file, &mut found.servers) {
            found.skipped.push(format!("{}: {why}", file.display()));
        }
    }
    Ok(found)
}

/// JSON files, in the order of their names.
fn manifests(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (Ok(kind), path) = (entry.file_type(), entry.path()) else { continue };
        if kind.is_dir() && depth < MAX_DEPTH {
            manifests(&path, depth + 1, files);
        } else if kind.is_file()
            && path.extension().is_some_and(|extension| extension == "json")
            && files.len() < MAX_FILES
        {
            files.push(path);
        }
    }
}

fn read(file: &Path, servers: &mut BTreeMap<String, McpServer>) -> Result<(), String> {
    let size = fs::metadata(file).map_err(|error| error.to_string())?.len();
    if size > MAX_MANIFEST_BYTES {
        return Err(format!("has {size} bytes; {MAX_MANIFEST_BYTES} is the most"));
    }
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    let manifest = serde_json::from_str(&text)
        .map_err(|_| "is no manifest: name and command or url, or mcpServers".to_owned())?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let entries = match manifest {
        Manifest::Many { servers } => servers,
        Manifest::One { name, entry } => BTreeMap::from([(name, entry)]),
    };
    for (name, entry) in entries {
        if !is_name(&name) {
            return Err(format!("{name:?} is no name: letters, digits, - and _, at most 32"));
        }
        if servers.len() >= MAX_SERVERS {
            return Err(format!("more than {MAX_SERVERS} servers"));
        }
        servers.entry(name).or_insert_with(|| entry.server(folder));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Writes down the servers that answered, with their tools.
pub(super) fn write(directory: &Path, found: &Found, servers: &Servers) -> Result<PathBuf, String> {
    let entry = |(name, server): (&String, &McpServer)| {
        let tools = servers.tools_of(name)?;
        let mut entry = match server {
            McpServer::Stdio { command, args, env } => json!({
                "command": command, "args": args, "env": env.keys().collect::<Vec<_>>(),
            }),
            McpServer::Http { url, headers } => {
                json!({"url": url, "headers": headers.keys().collect::<Vec<_>>()})
            }
        };
        entry["tools"] = tools.into();
        Some((name.clone(), entry))
    };
    let listed: serde_json::Map<String, Value> = found.servers.iter().filter_map(entry).collect();
    let path = directory.join(REGISTRY);
    let text = serde_json::to_string_pretty(&json!({"mcpServers": listed})).unwrap_or_default();
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(directory))?;
        fs::write(&path, text + "\n")
    };
    write().map_err(|error| format!("could not write {}: {error}", path.display()))?;
    Ok(path)
}

pub(super) fn report(
    written: &Path,
    servers: &Servers,
    skipped: &[String],
    failures: &[String],
) -> String {
    let tools: Vec<_> = servers.tools().map(|tool| tool.name).collect();
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
