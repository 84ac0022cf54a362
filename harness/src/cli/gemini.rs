//! How Gemini is called. It is given a home of its own, made of the user's settings and ours; sessions are kept there.

use std::path::PathBuf;

use protocol::{sidecar::Launch, spec::HttpEndpoint};
use serde_json::{Value, json};

use super::{
    home,
    plan::{Plan, mcp, merge},
};

/// The model where nobody names one: without a name it asks another model for one first.
const MODEL: &str = "gemini-2.5-pro";

/// How often it asks its endpoint in all; it waits at least five seconds in between, and its own ten take four
/// minutes.
const ATTEMPTS: u32 = 3;

pub(super) fn plan(launch: &Launch, endpoint: &HttpEndpoint) -> Result<Plan, String> {
    let harness = &launch.harness;
    let mut plan = Plan::new("gemini", home::own(launch));
    plan.args(&["--output-format", "stream-json", "--yolo", "--skip-trust"]);
    plan.args(&["-m", if endpoint.model.is_empty() { MODEL } else { &endpoint.model }]);
    if let Some(session) = &harness.resume {
        plan.args(&["--resume", session]);
    }
    let own_home = home::own(launch);
    let users = home::variable(launch, "GEMINI_CLI_HOME")
        .map_or_else(|| home::user(launch), PathBuf::from)
        .join(".gemini");
    let mut settings = match home::read(&users.join("settings.json")) {
        Some(own) => serde_json::from_str::<Value>(&own)
            .map_err(|error| format!("~/.gemini/settings.json: {error}"))?,
        None => json!({}),
    };
    let mut ours = ours(launch);
    // It puts variables into its settings, and then once more into what a server is given.
    plan.guard(&mut ours["mcpServers"], "$", |text| text.replace('$', "\\$"));
    merge(&mut settings, ours);
    plan.files.push((own_home.join(".gemini/settings.json"), settings.to_string()));
    let names = ["agents", "commands", "extensions", "policies", "skills"];
    for (name, path) in home::present(&users, &names) {
        plan.links.push((own_home.join(".gemini").join(name), path));
    }
    if let Some(base) = harness.base_prompt.as_deref().filter(|base| !base.is_empty()) {
        // What it reads first of every project; the user's own comes after it.
        let under = home::read(&users.join("GEMINI.md")).unwrap_or_default();
        plan.files.push((own_home.join(".gemini/GEMINI.md"), format!("{base}\n\n{under}")));
    } else if let Some(under) = home::read(&users.join("GEMINI.md")) {
        plan.files.push((own_home.join(".gemini/GEMINI.md"), under));
    }
    plan.keep(own_home.join(".gemini/tmp"), home::sessions(launch).join("tmp"));
    plan.env("GEMINI_CLI_HOME", own_home.display().to_string());
    plan.env("GOOGLE_GEMINI_BASE_URL", &endpoint.base_url);
    if let Some(key) = &endpoint.api_key {
        plan.env("GEMINI_API_KEY", key.expose());
    }
    if !endpoint.headers.is_empty() {
        plan.notices
            .push("gemini takes no further headers for its endpoint: they are left out".to_owned());
    }
    // Otherwise its outer process swallows every signal.
    plan.env("GEMINI_CLI_NO_RELAUNCH", "1").env("NO_COLOR", "1");
    Ok(plan)
}

fn ours(launch: &Launch) -> Value {
    json!({
        "security": {
            "auth": {"selectedType": "gemini-api-key"},
            "folderTrust": {"enabled": false},
        },
        "general": {
            "enableAutoUpdate": false,
            "enableAutoUpdateNotification": false,
            "maxAttempts": ATTEMPTS,
        },
        "privacy": {"usageStatisticsEnabled": false},
        "telemetry": {"enabled": false},
        "model": {"maxSessionTurns": launch.harness.bounds.max_turns},
        "mcpServers": mcp(
            &launch.harness.mcp_servers,
            |command, args, env| json!({"command": command, "args": args, "env": env, "trust": true}),
            |url, headers| json!({"httpUrl": url, "headers": headers, "trust": true}),
        ),
    })
}
