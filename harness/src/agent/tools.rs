//! The agent's tools. They run as the agent's own user in its own container, which is the only boundary there is:
//! what a path may reach is the kernel's to say.

mod files;
mod registry;
mod result;
mod shell;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf};

use protocol::{event::Event, secret::Secret, spec::McpServer};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::registry::{Found, REGISTRY};
use crate::{
    agent::{mcp::Servers, tool::Tool},
    credentials::is_credential,
    feed::Feed,
};
pub(super) use result::Result;

/// The tool that looks for servers in a folder of the workspace.
const SCAN: &str = "workbench.registry.scan";

pub(super) struct Tools {
    directory: PathBuf,
    shell: shell::Shell,
    /// The run's own servers, whose names nobody else takes.
    own: BTreeMap<String, McpServer>,
    /// Whether what an earlier scan wrote down is started.
    registry: bool,
    servers: Servers,
    offered: Vec<Tool>,
}

impl Tools {
    /// Commands and servers get `env` without the provider's credentials.
    pub(super) fn new(
        directory: &str,
        mut env: BTreeMap<String, Secret>,
        own: BTreeMap<String, McpServer>,
        registry: bool,
    ) -> Self {
        env.retain(|name, _| !is_credential(name));
        let directory = PathBuf::from(directory);
        Self {
            servers: Servers::new(directory.clone(), env.clone()),
            shell: shell::Shell::new(directory.clone(), env),
            own,
            registry,
            directory,
            offered: declarations(),
        }
    }

    /// Starts the run's servers, and those that a scan once found in this folder, and offers their tools. What does
    /// not start is told of, and left out.
    pub(super) async fn connect(&mut self, feed: &Feed) {
        let mut notices = Vec::new();
        let written = if self.registry {
            registry::read(&self.directory)
        } else if self.directory.join(REGISTRY).exists() {
            Err("nobody vouches for what it starts (`ozma exec --registry` does)".to_owned())
        } else {
            Ok(Found::default())
        };
        let mut found = written.unwrap_or_else(|why| {
            notices.push(format!("{REGISTRY} is not used: {why}"));
            Found::default()
        });
        found.without(&self.own);
        notices.extend(found.skipped.iter().map(|why| format!("{REGISTRY}: {why}")));
        if !found.servers.is_empty() {
            let names: Vec<_> = found.servers.keys().map(String::as_str).collect();
            notices
                .push(format!("{REGISTRY} names servers, which are started: {}", names.join(", ")));
        }
        found.servers.extend(self.own.clone());
        notices.extend(self.start(&found.servers).await);
        for text in notices {
            feed.send(Event::Notice { text }).await;
        }
    }

    async fn start(&mut self, wanted: &BTreeMap<String, McpServer>) -> Vec<String> {
        let failures = self.servers.start(wanted).await;
        self.offered = declarations();
        self.offered.extend(self.servers.tools());
        failures
    }

    pub(super) fn offered(&self) -> &[Tool] {
        &self.offered
    }

    /// The name that people read, of a tool the model calls by its wire name.
    pub(super) fn shown_name<'a>(&'a self, wire_name: &'a str) -> &'a str {
        let tool = self.offered.iter().find(|tool| tool.wire_name == wire_name);
        tool.map_or(wire_name, |tool| tool.name.as_str())
    }

    /// Runs one call to its end.
    pub(super) async fn run(&mut self, wire_name: &str, arguments: &str) -> Result {
        let name = self.shown_name(wire_name).to_owned();
        match name.as_str() {
            "shell" => match read(arguments) {
                Ok(input) => self.shell.run(input).await,
                Err(why) => Result::new(false, why),
            },
            "read_file" => {
                read(arguments).and_then(|input| files::read(&self.directory, &input)).into()
            }
            "write_file" => {
                read(arguments).and_then(|input| files::write(&self.directory, &input)).into()
            }
            "edit_file" => {
                read(arguments).and_then(|input| files::edit(&self.directory, &input)).into()
            }
            SCAN => match read(arguments) {
                Ok(input) => self.scan(&input).await.into(),
                Err(why) => Result::new(false, why),
            },
            other => {
                if let Some(result) = self.servers.call(other, arguments).await {
                    return result.into();
                }
                let names: Vec<_> = self.offered.iter().map(|tool| tool.name.as_str()).collect();
                Result::new(false, format!("no tool {other:?}; there are {}", names.join(", ")))
            }
        }
    }

    async fn scan(&mut self, input: &registry::Input) -> std::result::Result<String, String> {
        let mut found = registry::scan(&self.directory, input)?;
        found.without(&self.own);
        let failures = self.start(&found.servers).await;
        let written = registry::write(&self.directory, &found, &self.servers)?;
        Ok(registry::report(&written, &self.servers, &found.skipped, &failures))
    }

    /// The command that will be running.
    pub(super) fn running(&self) -> shell::Running {
        self.shell.running()
    }
}

fn read<T: DeserializeOwned>(arguments: &str) -> std::result::Result<T, String> {
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
    serde_json::from_str(arguments).map_err(|error| format!("the arguments do not fit: {error}"))
}

/// What the model is told of the agent's own tools.
fn declarations() -> Vec<Tool> {
    let text = |what: &str| json!({"type": "string", "description": what});
    let number = |what: &str| json!({"type": "integer", "description": what});
    vec![
        own(
            "shell",
            "Run a command line with /bin/sh -c in the working directory. Gives back its output, both streams \
             together, and its exit code. It has no input.",
            &json!({
                "command": text("The command line."),
                "timeout_secs": number("Seconds until it is killed; 120 without it, at most 1800."),
            }),
            &["command"],
        ),
        own(
            "read_file",
            "Read a text file, or some of its lines.",
            &json!({
                "path": text("The file."),
                "start_line": number("First line, from 1."),
                "end_line": number("Last line, included."),
            }),
            &["path"],
        ),
        own(
            "write_file",
            "Write a file whole, and make the folders it needs.",
            &json!({"path": text("The file."), "content": text("All of its new content.")}),
            &["path", "content"],
        ),
        own(
            "edit_file",
            "Replace a passage of a file. The passage must stand in it exactly once.",
            &json!({
                "path": text("The file."),
                "old_text": text("The passage, exactly as it stands."),
                "new_text": text("What stands there afterwards."),
            }),
            &["path", "old_text", "new_text"],
        ),
        own(
            SCAN,
            "Look for manifests of MCP servers in a folder, start each server found, and offer its tools as \
             server.tool from then on.",
            &json!({"folder": text("The folder; servers without it.")}),
            &[],
        ),
    ]
}

fn own(name: &str, description: &str, properties: &Value, required: &[&str]) -> Tool {
    Tool {
        name: name.to_owned(),
        wire_name: name.replace('.', "_"),
        description: description.to_owned(),
        input_schema: json!({"type": "object", "properties": properties, "required": required}),
    }
}
