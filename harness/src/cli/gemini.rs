//! How Gemini is called. It is given a home of its own, made of the user's settings and ours; sessions are kept there.

use std::{collections::BTreeMap, path::PathBuf};

use protocol::{
    secret::Secret,
    sidecar::Launch,
    spec::{Auth, HttpEndpoint},
};
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
    match endpoint.auth {
        Auth::ApiKey => {}
        Auth::Bearer => {
            plan.env("GEMINI_API_KEY_AUTH_MECHANISM", "bearer");
        }
        Auth::Oauth => {
            return Err("it takes no token of an account from elsewhere (auth = \"oauth\"): an API key, or a token \
                        that goes out as it is (auth = \"bearer\")"
                .to_owned());
        }
    }
    if !endpoint.headers.is_empty() {
        plan.env("GEMINI_CLI_CUSTOM_HEADERS", headers(&endpoint.headers)?);
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

/// `Name: value,Name: value`. It takes a comma for the end of a value where a name and a colon come after it.
fn headers(headers: &BTreeMap<String, Secret>) -> Result<String, String> {
    let mut pairs = Vec::new();
    for (name, value) in headers {
        let value = value.expose();
        if value.split_once(',').is_some_and(|(_, rest)| rest.contains(':')) {
            return Err(format!(
                "it cannot be given the header {name}: its value has a colon after a comma"
            ));
        }
        pairs.push(format!("{name}: {value}"));
    }
    Ok(pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_would_come_apart_is_refused_without_its_value() {
        let one = |value: &str| BTreeMap::from([("x-team".to_owned(), Secret::new(value))]);
        assert_eq!(headers(&one("a, b: c=d")).unwrap_err().matches("b:").count(), 0);
        let mut two = one("a:b, c");
        two.insert("x-z".to_owned(), Secret::new("1,2"));
        assert_eq!(headers(&two).unwrap(), "x-team: a:b, c,x-z: 1,2");
    }
}
