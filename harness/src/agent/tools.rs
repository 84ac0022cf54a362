//! The agent's tools. They run as the agent's own user in its own container, which is the only boundary there is:
//! what a path may reach is the kernel's to say.

mod files;
mod result;
mod shell;

use std::{collections::BTreeMap, path::PathBuf};

use protocol::secret::Secret;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::credentials::PROVIDER_CREDENTIALS;
pub(super) use result::Result;

pub(super) struct Tools {
    directory: PathBuf,
    shell: shell::Shell,
}

impl Tools {
    /// Commands get `env` without the provider's credentials.
    pub(super) fn new(directory: &str, mut env: BTreeMap<String, Secret>) -> Self {
        env.retain(|name, _| !PROVIDER_CREDENTIALS.contains(&name.as_str()));
        let directory = PathBuf::from(directory);
        Self { shell: shell::Shell::new(directory.clone(), env), directory }
    }

    /// Runs one call to its end.
    pub(super) async fn run(&mut self, name: &str, arguments: &str) -> Result {
        match name {
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
            other => Result::new(
                false,
                format!("no tool {other:?}; there are shell, read_file, write_file, edit_file"),
            ),
        }
    }

    /// Interrupts a command that is running.
    pub(super) fn interrupt(&self) {
        self.shell.interrupt();
    }
}

fn read<T: DeserializeOwned>(arguments: &str) -> std::result::Result<T, String> {
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
    serde_json::from_str(arguments).map_err(|error| format!("the arguments do not fit: {error}"))
}

/// What the model is told of the tools.
pub(super) fn declarations() -> Value {
    let text = |what: &str| json!({"type": "string", "description": what});
    let number = |what: &str| json!({"type": "integer", "description": what});
    json!([
        declaration(
            "shell",
            "Run a command line with /bin/sh -c in the working directory. Gives back its output, both streams \
             together, and its exit code. It has no input.",
            &json!({
                "command": text("The command line."),
                "timeout_secs": number("Seconds until it is killed; 120 without it, at most 1800."),
            }),
            &["command"],
        ),
        declaration(
            "read_file",
            "Read a text file, or some of its lines.",
            &json!({
                "path": text("The file."),
                "start_line": number("First line, from 1."),
                "end_line": number("Last line, included."),
            }),
            &["path"],
        ),
        declaration(
            "write_file",
            "Write a file whole, and make the folders it needs.",
            &json!({"path": text("The file."), "content": text("All of its new content.")}),
            &["path", "content"],
        ),
        declaration(
            "edit_file",
            "Replace a passage of a file. The passage must stand in it exactly once.",
            &json!({
                "path": text("The file."),
                "old_text": text("The passage, exactly as it stands."),
                "new_text": text("What stands there afterwards."),
            }),
            &["path", "old_text", "new_text"],
        ),
    ])
}

fn declaration(name: &str, description: &str, properties: &Value, required: &[&str]) -> Value {
    json!({
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {"type": "object", "properties": properties, "required": required},
        },
    })
}
