//! The file in which a scan writes down what it found, and from which a later run in the same folder starts the same
//! servers. It lies in the workspace: whoever can write there may have written it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use super::{BTreeMap, Entry, Found, McpServer, Secret, Servers, entries, text};
use serde::Deserialize;
use serde_json::{Value, json};

/// Where it is, below the working directory.
pub(in crate::agent::tools) const REGISTRY: &str = ".workbench/registry/mcp.json";

/// Its largest size, in bytes; a larger file is not read.
const MAX_BYTES: u64 = 4 << 20;

#[derive(Deserialize)]
struct Written {
    #[serde(rename = "mcpServers")]
    servers: BTreeMap<String, Line>,
}

/// One server. Values are not written down, for they may be secret: its manifest has them.
#[derive(Deserialize)]
struct Line {
    manifest: Option<PathBuf>,
    #[serde(flatten)]
    how: How,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum How {
    Stdio {
        command: String,
        #[serde(default)]
        args: Vec<String>,
        #[serde(default)]
        env: Vec<String>,
    },
    Http {
        url: String,
        #[serde(default)]
        headers: Vec<String>,
    },
}

/// Writes down the servers that answered, with their tools.
pub(in crate::agent::tools) fn write(
    directory: &Path,
    found: &Found,
    servers: &Servers,
) -> Result<PathBuf, String> {
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
        if let Some(manifest) = found.manifests.get(name) {
            entry["manifest"] = json!(manifest.strip_prefix(directory).unwrap_or(manifest));
        }
        entry["tools"] = tools.into();
        Some((name.clone(), entry))
    };
    let listed: serde_json::Map<String, Value> = found.servers.iter().filter_map(entry).collect();
    let path = directory.join(REGISTRY);
    let text = serde_json::to_string_pretty(&json!({"mcpServers": listed})).unwrap_or_default();
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(directory))?;
        // Whole or not at all, for a run may be killed at any time, and never through a link that lay there.
        let new = path.with_extension("new");
        let _ = fs::remove_file(&new);
        fs::File::create_new(&new)?.write_all((text + "\n").as_bytes())?;
        fs::rename(new, &path)
    };
    write().map_err(|error| format!("could not write {}: {error}", path.display()))?;
    Ok(path)
}

/// What was written down, if it was.
///
/// # Errors
/// The file is none of these, or cannot be read.
pub(in crate::agent::tools) fn read(directory: &Path) -> Result<Found, String> {
    let text = match text(&directory.join(REGISTRY), MAX_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::default()),
        Err(error) => return Err(error.to_string()),
    };
    // The error would show some of it, which may be anything.
    let written: Written =
        serde_json::from_str(&text).map_err(|_| "it is not as a scan writes it".to_owned())?;
    let mut found = Found::default();
    for (name, line) in written.servers {
        match found.has_room_for(&name) {
            Ok(()) => {
                let server = line.server(directory, &name);
                found.servers.insert(name, server);
            }
            Err(why) => {
                found.skipped.push(why);
                if found.skipped.len() == super::MAX_SERVERS {
                    break;
                }
            }
        }
    }
    Ok(found)
}

impl Line {
    fn server(self, directory: &Path, name: &str) -> McpServer {
        let manifest = self.manifest.map(|path| directory.join(path));
        let entry = manifest.and_then(|path| entries(&path).ok()?.remove(name));
        let given = match entry {
            Some(Entry::Stdio { env, .. }) => env,
            Some(Entry::Http { headers, .. }) => headers,
            None => BTreeMap::new(),
        };
        // One that is not given there may be among the run's own, which every server has.
        let given = |names: Vec<String>| -> BTreeMap<String, Secret> {
            given.into_iter().filter(|(name, _)| names.contains(name)).collect()
        };
        match self.how {
            How::Stdio { command, args, env } => {
                McpServer::Stdio { command, args, env: given(env) }
            }
            How::Http { url, headers } => McpServer::Http { url, headers: given(headers) },
        }
    }
}
