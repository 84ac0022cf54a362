//! A file of tool servers, in the form that other programs write theirs: `{"mcpServers": {NAME: …}}` or just the
//! servers by name.

use std::{collections::BTreeMap, path::Path};

use protocol::{api::config::McpServerBody, spec::McpServer};
use serde_json::Value;

use crate::{failure::Failure, files};

/// A larger file is refused.
const MAX_BYTES: u64 = 1 << 20;

/// The servers of a file, as run configurations write them.
///
/// # Errors
/// The file cannot be read or is no JSON object of servers.
pub(crate) fn read(path: &Path) -> Result<Value, Failure> {
    let read = || -> anyhow::Result<Value> {
        let mut value: Value = serde_json::from_str(&files::text(path, MAX_BYTES)?)?;
        let servers = value.get_mut("mcpServers").map(Value::take).unwrap_or(value);
        anyhow::ensure!(servers.is_object(), "it is no object of servers by name");
        Ok(servers)
    };
    read().map_err(|error| {
        Failure::usage(format!("cannot read the servers of {}: {error:#}", path.display()))
    })
}

/// The same as the harness takes them.
///
/// # Errors
/// As [`read`]; also a server that has neither a command nor an address, or both, or is spoken to in another way.
pub(crate) fn servers(path: &Path) -> Result<BTreeMap<String, McpServer>, Failure> {
    let Value::Object(bodies) = read(path)? else { return Ok(BTreeMap::new()) };
    let server = |(name, body): (String, Value)| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err(Failure::usage(format!(
                "the server name {name:?} must be 1 to 64 letters, digits, '-' and '_'"
            )));
        }
        // The error of serde may show what it read, a secret among it.
        let body: McpServerBody = serde_json::from_value(body).map_err(|_| {
            Failure::usage(format!(
                "the server {name} must be an object with command, args and env, or with url and headers, all texts"
            ))
        })?;
        if let Some(kind) = body.kind.filter(|kind| !matches!(kind.as_str(), "stdio" | "http")) {
            return Err(Failure::usage(format!(
                "the server {name} has the type {kind:?}, which must be stdio or http"
            )));
        }
        if body.cwd.is_some() || body.disabled == Some(true) {
            return Err(Failure::usage(format!(
                "the server {name} says cwd or disabled, which change what runs and are not known here"
            ))
            .hint("leave a disabled server out; a command can change its folder itself"));
        }
        let server = match (body.command, body.url) {
            (Some(command), None) => McpServer::Stdio { command, args: body.args, env: body.env },
            (None, Some(url)) => McpServer::Http { url, headers: body.headers },
            _ => {
                let wrong = format!("the server {name} must have either a command or a url");
                return Err(Failure::usage(wrong));
            }
        };
        Ok((name, server))
    };
    bodies.into_iter().map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_taken_in_both_forms_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mcp.json");
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            servers(&path)
        };
        let one = of(r#"{"mcpServers": {"a": {"command": "x", "args": ["y"]}}}"#).unwrap();
        assert_eq!(one, of(r#"{"a": {"command": "x", "args": ["y"]}}"#).unwrap());
        let http = of(r#"{"b": {"type": "http", "url": "http://x", "headers": {"k": "v"}}}"#);
        assert!(
            matches!(&http.unwrap()["b"], McpServer::Http { headers, .. } if headers.len() == 1)
        );
        for wrong in [
            "[]",
            "{",
            r#"{"a": {}}"#,
            r#"{"a b": {"command": "x"}}"#,
            r#"{"a": 1}"#,
            r#"{"a": {"type": "sse", "url": "http://x"}}"#,
            r#"{"a": {"command": "x", "disabled": true}}"#,
        ] {
            assert_eq!(of(wrong).unwrap_err().exit_code, 2, "{wrong}");
        }
        for secret in
            [r#"{"a": {"url": "x", "headers": "hunter2"}}"#, r#"{"a": {"env": ["hunter2"]}}"#]
        {
            assert!(!of(secret).unwrap_err().message.contains("hunter2"), "{secret}");
        }
    }
}
