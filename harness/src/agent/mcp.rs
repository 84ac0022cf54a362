//! The run's MCP servers: started, asked for their tools, and called, many at once. One that does not start, hangs or
//! dies is a tool error for the model to read, and never the end of the run.

mod server;

use std::{collections::BTreeMap, path::PathBuf};

use futures_util::future::join_all;
use protocol::{secret::Secret, spec::McpServer};

use self::server::Server;
use crate::agent::tools::Tool;

/// Most tools offered of all servers together; the rest is left out, and a notice says so.
const MAX_TOOLS: usize = 256;

/// Longest name of a tool that endpoints take.
const MAX_WIRE_NAME: usize = 64;

pub(super) struct Servers {
    directory: PathBuf,
    env: BTreeMap<String, Secret>,
    running: BTreeMap<String, Server>,
}

impl Servers {
    pub(super) fn new(directory: PathBuf, env: BTreeMap<String, Secret>) -> Self {
        Self { directory, env, running: BTreeMap::new() }
    }

    /// Starts those that do not run yet, side by side. What did not go well, in sentences.
    pub(super) async fn start(&mut self, wanted: &BTreeMap<String, McpServer>) -> Vec<String> {
        let (directory, env) = (&self.directory, &self.env);
        let starts = wanted
            .iter()
            .filter(|(name, _)| !self.running.contains_key(*name))
            .map(async |(name, how)| (name, Server::start(how, directory, env).await));
        let mut failures = Vec::new();
        for (name, started) in join_all(starts).await {
            match started {
                Ok(server) => {
                    self.running.insert(name.clone(), server);
                }
                Err(why) => failures.push(format!("the MCP server {name} did not start: {why}")),
            }
        }
        let tools: usize = self.running.values().map(|server| server.tools().len()).sum();
        if tools > MAX_TOOLS {
            failures.push(format!("the MCP servers have {tools} tools; {MAX_TOOLS} are offered"));
        }
        failures
    }

    /// Every tool as the model is told of it.
    pub(super) fn tools(&self) -> impl Iterator<Item = Tool> {
        let all = self.running.iter().flat_map(|(name, server)| {
            server.tools().iter().map(move |tool| Tool {
                name: format!("{name}.{}", tool.name),
                wire_name: wire_name(name, &tool.name),
                description: tool.description.clone(),
                input_schema: tool.input_schema.clone(),
            })
        });
        all.take(MAX_TOOLS)
    }

    /// The names of a server's tools; `None` when it does not run.
    pub(super) fn tools_of(&self, name: &str) -> Option<Vec<String>> {
        let server = self.running.get(name)?;
        Some(server.tools().iter().map(|tool| tool.name.clone()).collect())
    }

    /// Calls `server.tool`; `None` when there is no such server.
    pub(super) async fn call(
        &mut self,
        name: &str,
        arguments: &str,
    ) -> Option<Result<String, String>> {
        let (server_name, tool) = name.split_once('.')?;
        let server = self.running.get_mut(server_name)?;
        if !server.tools().iter().any(|known| known.name == tool) {
            return None;
        }
        let called = server.call(tool, arguments, &self.directory, &self.env).await;
        Some(called.map_err(|why| format!("the MCP server {server_name}: {why}")))
    }
}

/// `server__tool`, in the letters endpoints take; a long one is cut and told apart by a number made of all of it.
fn wire_name(server: &str, tool: &str) -> String {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let full = format!("{server}__{tool}");
    let mut name: String = full.chars().map(plain).collect();
    if name.len() > MAX_WIRE_NAME || name != full {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&full);
        name.truncate(MAX_WIRE_NAME - 9);
        name = format!("{name}_{:08x}", hash & 0xffff_ffff);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_endpoints_take_and_stays_its_own() {
        assert_eq!(wire_name("flow", "upload"), "flow__upload");
        let names = [
            wire_name("a", "b.c"),
            wire_name("a", "b_c"),
            wire_name("a", "b c"),
            wire_name("a", &"x".repeat(200)),
            wire_name("a", &"x".repeat(201)),
            wire_name("a", "é"),
        ];
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        for name in &names {
            assert!(name.len() <= MAX_WIRE_NAME, "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
        }
    }
}
