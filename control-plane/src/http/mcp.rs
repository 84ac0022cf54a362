//! MCP servers of a run or an environment: from a body, and back without what is secret in it.

use std::collections::BTreeMap;

use protocol::{
    api::{config::McpServerBody, environments::REDACTED},
    secret::Secret,
    spec::McpServer,
};

use super::{error::ApiError, forms};
use crate::environments::{Servers, secrets};

// Together these stay far below a frame of the link, which carries two sets of them.
const MAX_SERVERS: usize = 32;
const MAX_NAME_BYTES: usize = 64;
const MAX_ARGS: usize = 100;
const MAX_VALUES: usize = 100;
const MAX_KEY_BYTES: usize = 128;
const MAX_TEXT_BYTES: usize = 32 << 10;
/// All of one set, in bytes.
const MAX_BYTES: usize = 256 << 10;

/// Whether a value may be [`REDACTED`]: what is kept already is meant by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hidden {
    Known,
    Refused,
}

/// Checks names, forms and bounds; `field` is where they stand.
pub(super) fn servers(
    field: &str,
    given: BTreeMap<String, McpServerBody>,
    hidden: Hidden,
) -> Result<Servers, ApiError> {
    if given.len() > MAX_SERVERS {
        return Err(ApiError::invalid(field, format!("at most {MAX_SERVERS} servers")));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let (mut servers, mut bytes) = (Servers::new(), 0);
    for (name, body) in given {
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(plain) {
            let rule = format!("names are 1 to {MAX_NAME_BYTES} of A-Z, a-z, 0-9, '_' and '-'");
            return Err(ApiError::invalid(field, rule));
        }
        let field = format!("{field}.{name}");
        let server = server(&field, body, hidden)?;
        bytes += name.len() + size(&server);
        servers.insert(name, server);
    }
    if bytes > MAX_BYTES {
        return Err(ApiError::invalid(field, format!("at most {MAX_BYTES} bytes together")));
    }
    Ok(servers)
}

fn server(field: &str, body: McpServerBody, hidden: Hidden) -> Result<McpServer, ApiError> {
    let McpServerBody { command, args, env, url, headers, kind, cwd, disabled, warp_id } = body;
    let filled = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    if filled(warp_id).is_some() {
        let rule = "is a server of the hosted service, which this plane does not have; give command or url";
        return Err(ApiError::unsupported(format!("{field}.warp_id"), rule));
    }
    if filled(cwd).is_some() {
        let rule = "is not supported: a server is started in the workspace";
        return Err(ApiError::unsupported(format!("{field}.cwd"), rule));
    }
    if disabled == Some(true) {
        let rule = "is not supported: leave the server out";
        return Err(ApiError::unsupported(format!("{field}.disabled"), rule));
    }
    let known = ["", "stdio", "http", "streamable-http", "streamable_http", "streamableHttp"];
    if let Some(kind) = kind.filter(|kind| !known.contains(&kind.as_str())) {
        let rule = format!("{kind:.40?} is not supported; stdio and http are");
        return Err(ApiError::unsupported(format!("{field}.type"), rule));
    }
    let only = |name: &str, empty: bool, of: &str| {
        let rule = format!("is for a server with {of} only");
        if empty { Ok(()) } else { Err(ApiError::invalid(format!("{field}.{name}"), rule)) }
    };
    match (filled(command), filled(url)) {
        (Some(command), None) => {
            only("headers", headers.is_empty(), "url")?;
            forms::text(&format!("{field}.command"), &command, MAX_TEXT_BYTES)?;
            if args.len() > MAX_ARGS {
                let rule = format!("at most {MAX_ARGS} arguments");
                return Err(ApiError::invalid(format!("{field}.args"), rule));
            }
            for (at, arg) in args.iter().enumerate() {
                forms::text(&format!("{field}.args[{at}]"), arg, MAX_TEXT_BYTES)?;
            }
            let rule = "names are A-Z, a-z, 0-9 and _, no digit first";
            values(&format!("{field}.env"), &env, hidden, forms::is_variable, rule)?;
            Ok(McpServer::Stdio { command, args, env })
        }
        (None, Some(url)) => {
            only("args", args.is_empty(), "command")?;
            only("env", env.is_empty(), "command")?;
            address(&format!("{field}.url"), &url)?;
            let rule = "names are those of HTTP headers";
            values(&format!("{field}.headers"), &headers, hidden, is_header, rule)?;
            for (key, value) in &headers {
                if value.expose().contains(|c: char| c.is_control() && c != '\t') {
                    let rule = "must be one line without control characters";
                    return Err(ApiError::invalid(format!("{field}.headers.{key}"), rule));
                }
            }
            Ok(McpServer::Http { url, headers })
        }
        _ => Err(ApiError::invalid(field, "must have exactly one of command and url")),
    }
}

fn address(field: &str, url: &str) -> Result<(), ApiError> {
    forms::text(field, url, MAX_TEXT_BYTES)?;
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if host.is_empty() || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(ApiError::invalid(field, "must be an address of http:// or https://"));
    }
    if host.contains('@') {
        let rule = "must not hold a name or password: addresses are shown; use headers";
        return Err(ApiError::invalid(field, rule));
    }
    Ok(())
}

fn values(
    field: &str,
    values: &BTreeMap<String, Secret>,
    hidden: Hidden,
    is_name: fn(&str) -> bool,
    rule: &str,
) -> Result<(), ApiError> {
    if values.len() > MAX_VALUES {
        return Err(ApiError::invalid(field, format!("at most {MAX_VALUES} values")));
    }
    for (key, value) in values {
        if key.len() > MAX_KEY_BYTES || !is_name(key) {
            return Err(ApiError::invalid(field, rule));
        }
        let field = format!("{field}.{key}");
        forms::text(&field, value.expose(), MAX_TEXT_BYTES)?;
        if hidden == Hidden::Refused && value.expose() == REDACTED {
            let rule = "is what stands for a hidden value; send the value itself";
            return Err(ApiError::invalid(field, rule));
        }
    }
    Ok(())
}

/// The name of an HTTP header (RFC 9110, 5.6.2).
fn is_header(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(plain)
}

fn size(server: &McpServer) -> usize {
    let texts = match server {
        McpServer::Stdio { command, args, .. } => {
            command.len() + args.iter().map(String::len).sum::<usize>()
        }
        McpServer::Http { url, .. } => url.len(),
    };
    let each = secrets(server).iter().map(|(key, value)| key.len() + value.expose().len());
    texts + each.sum::<usize>()
}

/// As they are shown to everybody: values are hidden.
pub(super) fn shown(servers: &Servers) -> BTreeMap<String, McpServerBody> {
    let hide = |values: &BTreeMap<String, Secret>| {
        values.keys().map(|key| (key.clone(), Secret::new(REDACTED))).collect()
    };
    let body = |server: &McpServer| match server {
        McpServer::Stdio { command, args, env } => McpServerBody {
            command: Some(command.clone()),
            args: args.clone(),
            env: hide(env),
            ..McpServerBody::default()
        },
        McpServer::Http { url, headers } => McpServerBody {
            url: Some(url.clone()),
            headers: hide(headers),
            ..McpServerBody::default()
        },
    };
    servers.iter().map(|(name, server)| (name.clone(), body(server))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(name: &str, body: &Value) -> Result<Servers, ApiError> {
        let body = serde_json::from_value(json!({ name: body })).unwrap();
        servers("mcp", body, Hidden::Refused)
    }

    #[test]
    fn a_server_is_a_program_or_an_address() {
        let stdio = json!({"command": "npx", "args": ["-y"], "env": {"KEY": "hunter2"}});
        let both = checked("a-1_B", &stdio).unwrap();
        let http = json!({"url": "https://h/mcp", "headers": {"X-Key": "hunter2"}, "type": "http"});
        assert!(checked("b", &http).is_ok());
        let text = serde_json::to_string(&shown(&both)).unwrap();
        assert!(!text.contains("hunter2") && text.contains(r#""KEY":"<redacted>""#), "{text}");
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_field() {
        for (name, body, field) in [
            ("a b", json!({"command": "x"}), "mcp"),
            ("a", json!({}), "mcp.a"),
            ("a", json!({"command": "x", "url": "http://h"}), "mcp.a"),
            ("a", json!({"command": "x", "headers": {"A": "b"}}), "mcp.a.headers"),
            ("a", json!({"url": "http://h", "env": {"A": "b"}}), "mcp.a.env"),
            ("a", json!({"url": "ftp://h"}), "mcp.a.url"),
            ("a", json!({"url": "http://u:p@h/"}), "mcp.a.url"),
            ("a", json!({"command": "x", "env": {"A=": "b"}}), "mcp.a.env"),
            ("a", json!({"command": "x", "env": {"A": "<redacted>"}}), "mcp.a.env.A"),
            ("a", json!({"url": "http://h", "headers": {"A": "b\nc"}}), "mcp.a.headers.A"),
            ("a", json!({"command": "x\u{0}"}), "mcp.a.command"),
            ("a", json!({"warp_id": "w"}), "mcp.a.warp_id"),
            ("a", json!({"url": "http://h", "type": "sse"}), "mcp.a.type"),
            ("a", json!({"url": "http://h", "disabled": true}), "mcp.a.disabled"),
            ("a", json!({"command": "x", "cwd": "/srv"}), "mcp.a.cwd"),
        ] {
            let said = body.to_string();
            match checked(name, &body).unwrap_err() {
                ApiError::Invalid { field: Some(at), .. }
                | ApiError::Unsupported { field: at, .. } => {
                    assert_eq!(at, field, "{said}");
                }
                other => panic!("{said}: {other:?}"),
            }
        }
    }
}
