//! How Claude Code is called.

use std::path::PathBuf;

use protocol::{
    sidecar::Launch,
    spec::{Auth, HttpEndpoint},
};
use serde_json::json;

use super::{
    home,
    plan::{Plan, header_lines, mcp},
};

/// How often it asks its endpoint again; its own ten take three minutes, for a wrong key too.
const RETRIES: &str = "3";

pub(super) fn plan(launch: &Launch, endpoint: &HttpEndpoint) -> Plan {
    let harness = &launch.harness;
    let mut plan = Plan::new("claude", home::own(launch));
    plan.args(&["-p", "--output-format", "stream-json", "--verbose"]);
    plan.args(&["--dangerously-skip-permissions"]);
    if !endpoint.model.is_empty() {
        plan.args(&["--model", &endpoint.model]);
    }
    if let Some(base) = harness.base_prompt.as_deref().filter(|base| !base.is_empty()) {
        plan.args(&["--append-system-prompt", base]);
    }
    plan.args(&["--max-turns", &harness.bounds.max_turns.to_string()]);
    if let Some(session) = &harness.resume {
        plan.args(&["--resume", session]);
    }
    if !harness.mcp_servers.is_empty() {
        let mut servers = mcp(
            &harness.mcp_servers,
            |command, args, env| json!({"type": "stdio", "command": command, "args": args, "env": env}),
            |url, headers| json!({"type": "http", "url": url, "headers": headers}),
        );
        plan.guard(&mut servers, "${", str::to_owned);
        let file = home::own(launch).join("mcp.json");
        plan.args(&["--mcp-config", &file.display().to_string(), "--strict-mcp-config"]);
        plan.files.push((file, json!({"mcpServers": servers}).to_string()));
    }
    if !launch.session_directory.is_empty() {
        keep_sessions(launch, &mut plan);
    }
    plan.env("ANTHROPIC_BASE_URL", &endpoint.base_url);
    if let Some(key) = &endpoint.api_key {
        let name = match endpoint.auth {
            Auth::ApiKey => "ANTHROPIC_API_KEY",
            Auth::Bearer => "ANTHROPIC_AUTH_TOKEN",
            Auth::Oauth => "CLAUDE_CODE_OAUTH_TOKEN",
        };
        plan.env(name, key.expose());
    }
    if !endpoint.headers.is_empty() {
        plan.env("ANTHROPIC_CUSTOM_HEADERS", header_lines(&endpoint.headers));
    }
    for name in [
        "DISABLE_AUTOUPDATER",
        "DISABLE_TELEMETRY",
        "DISABLE_ERROR_REPORTING",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        // The container is the sandbox; without this it refuses to work as root, which the unisolated backend may be.
        "IS_SANDBOX",
    ] {
        plan.env(name, "1");
    }
    if !launch.env.contains_key("CLAUDE_CODE_MAX_RETRIES") {
        plan.env("CLAUDE_CODE_MAX_RETRIES", RETRIES);
    }
    plan
}

/// What a user may have configured, below the folder for it. A login is not among it: the endpoint is this run's.
const OF_THE_USER: [&str; 10] = [
    "CLAUDE.md",
    "agents",
    "commands",
    "hooks",
    "output-styles",
    "plugins",
    "rules",
    "settings.json",
    "skills",
    "workflows",
];

/// Gives it a configuration folder in which the user's own settings are seen and the sessions are kept.
fn keep_sessions(launch: &Launch, plan: &mut Plan) {
    const SESSIONS: &str = "projects";
    let folder = home::own(launch).join("home");
    let users = home::variable(launch, "CLAUDE_CONFIG_DIR")
        .map_or_else(|| home::user(launch).join(".claude"), PathBuf::from);
    for (name, path) in home::present(&users, &OF_THE_USER) {
        plan.links.push((folder.join(name), path));
    }
    plan.keep(folder.join(SESSIONS), home::sessions(launch).join(SESSIONS));
    plan.env("CLAUDE_CONFIG_DIR", folder.display().to_string());
}
