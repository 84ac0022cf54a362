//! The run's MCP servers: started, asked for their tools, and called, many at once. One that does not start, hangs or
//! dies is a tool error for the model to read, and never the end of the run.

mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use futures_util::future::join_all;
use protocol::{secret::Secret, spec::McpServer};

pub(super) use self::server::Bounds;
use self::server::{Server, Setting};
use crate::agent::{text::cut, tool::Tool};

/// Most tools offered of all servers together; the rest is left out, and a notice says so.
const MAX_TOOLS: usize = 256;

/// Largest size of what the model is told of them, in bytes; what is over it is left out in the same way.
const MAX_TOOLS_BYTES: usize = 512 << 10;

/// Longest reason for a server that did not start, in bytes: some of it is the server's own word.
const MAX_REASON_BYTES: usize = 2 << 10;

/// Longest name of a tool that endpoints take.
const MAX_WIRE_NAME: usize = 64;

pub(super) struct Servers {
    setting: Setting,
    running: BTreeMap<String, Server>,
}

impl Servers {
    pub(super) fn new(directory: PathBuf, env: BTreeMap<String, Secret>) -> Self {
        let setting = Setting { directory, env, bounds: Bounds::default() };
        Self { setting, running: BTreeMap::new() }
    }

    #[cfg(test)]
    pub(super) fn bound(&mut self, bounds: Bounds) {
        self.setting.bounds = bounds;
    }

    /// Starts, side by side, those that do not run yet, or not as they are wanted. What did not go well, in sentences.
    pub(super) async fn start(&mut self, wanted: &BTreeMap<String, McpServer>) -> Vec<String> {
        let starts = wanted
            .iter()
            .filter(|(name, how)| !self.runs(name, how))
            .map(async |(name, how)| (name, Server::start(how, &self.setting).await));
        let mut failures = Vec::new();
        for (name, started) in join_all(starts).await {
            match started {
                Ok(server) => {
                    self.running.insert(name.clone(), server);
                }
                Err(why) => {
                    self.running.remove(name);
                    let (why, _) = cut(why, MAX_REASON_BYTES);
                    failures.push(format!("the MCP server {name} did not start: {why}"));
                }
            }
        }
        let all: usize = self.running.values().map(|server| server.tools().len()).sum();
        let offered = self.tools().len();
        if all > offered {
            failures.push(format!("the MCP servers have {all} tools; {offered} are offered"));
        }
        failures
    }

    /// Every tool as the model is told of it.
    pub(super) fn tools(&self) -> Vec<Tool> {
        let mut left = MAX_TOOLS_BYTES;
        let mut names = BTreeSet::new();
        let mut tools = Vec::new();
        for (name, server) in &self.running {
            for tool in server.tools() {
                let wire_name = wire_name(name, &tool.name);
                let size = tool.description.len() + tool.input_schema.to_string().len();
                if tools.len() < MAX_TOOLS && size <= left && names.insert(wire_name.clone()) {
                    left -= size;
                    tools.push(Tool {
                        name: format!("{name}.{}", tool.name),
                        wire_name,
                        description: tool.description.clone(),
                        input_schema: tool.input_schema.clone(),
                    });
                }
            }
        }
        tools
    }

    /// Whether a server of this name runs, and is this one.
    fn runs(&self, name: &str, how: &McpServer) -> bool {
        self.running.get(name).is_some_and(|server| server.how() == how)
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
        let called = server.call(tool, arguments, &self.setting).await;
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
        let distinct: BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        for name in &names {
            assert!(name.len() <= MAX_WIRE_NAME, "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
        }
    }
}
