//! How `OpenCode` is called: everything in one variable, above the project's own configuration.

use protocol::{
    sidecar::Launch,
    spec::{Auth, Endpoint, HttpEndpoint},
};
use serde_json::{Value, json};

use super::{
    home,
    plan::{Plan, exposed, mcp},
};

/// What its model provider is called in the configuration.
const NAME: &str = "ozma";

/// The variable its key comes in.
const KEY: &str = "OZMA_MODEL_KEY";

/// Stands for the variable's place while the configuration is put together.
const OUR_KEY: &str = "\u{0}the key";

pub(super) fn plan(
    launch: &Launch,
    endpoint: &Endpoint,
    http: &HttpEndpoint,
) -> Result<Plan, String> {
    let harness = &launch.harness;
    if http.model.is_empty() {
        return Err("it has no model of its own: name one in config.model_id".to_owned());
    }
    // A vendor in front of the name is how its users write it.
    let model = http.model.split_once('/').map_or(http.model.as_str(), |(vendor, model)| {
        if matches!(vendor, "anthropic" | "openai" | "google") { model } else { &http.model }
    });
    let mut plan = Plan::new("opencode", home::own(launch));
    plan.args(&["run", "--format", "json", "-m", &format!("{NAME}/{model}")]);
    if let Some(session) = &harness.resume {
        plan.args(&["-s", session]);
    }
    let mut config = json!({
        "autoupdate": false,
        "share": "disabled",
        "provider": {NAME: provider(endpoint, http, model)},
        "mcp": mcp(
            &harness.mcp_servers,
            |command, args, env| {
                let command: Vec<_> = std::iter::once(command).chain(args.iter().map(String::as_str)).collect();
                json!({"type": "local", "command": command, "environment": env, "enabled": true})
            },
            |url, headers| json!({"type": "remote", "url": url, "headers": headers, "enabled": true, "oauth": false}),
        ),
    });
    if let Some(base) = harness.base_prompt.as_deref().filter(|base| !base.is_empty()) {
        let file = home::own(launch).join("base-prompt.md");
        config["instructions"] = json!([file.display().to_string()]);
        plan.files.push((file, base.to_owned()));
    }
    // Its sessions are a data base, at a place of its own: its other data stays where the user's programs look for it.
    let sessions = home::sessions(launch);
    plan.env("OPENCODE_DB", sessions.join("opencode.db").display().to_string());
    plan.folders.push(sessions);
    // It puts variables and files into its configuration wherever these signs stand; only ours are to.
    let content =
        config.to_string().replace("{env:", r"\u007benv:").replace("{file:", r"\u007bfile:");
    let our_key = json!(OUR_KEY).to_string();
    let content = content.replace(our_key.trim_matches('"'), &format!("{{env:{KEY}}}"));
    plan.env("OPENCODE_CONFIG_CONTENT", content);
    for name in [
        "OPENCODE_DISABLE_MODELS_FETCH",
        "OPENCODE_DISABLE_AUTOUPDATE",
        "OPENCODE_DISABLE_LSP_DOWNLOAD",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS",
    ] {
        plan.env(name, "1");
    }
    if let Some(key) = &http.api_key {
        plan.env(KEY, key.expose());
    }
    Ok(plan)
}

fn provider(endpoint: &Endpoint, http: &HttpEndpoint, model: &str) -> Value {
    let (package, base_url) = match endpoint {
        Endpoint::Anthropic(_) => ("@ai-sdk/anthropic", format!("{}/v1", http.base_url)),
        Endpoint::Gemini(_) => ("@ai-sdk/google", format!("{}/v1beta", http.base_url)),
        Endpoint::OpenaiResponses(_) => ("@ai-sdk/openai", http.base_url.clone()),
        Endpoint::OpenaiChat(_) | Endpoint::Scripted { .. } => {
            ("@ai-sdk/openai-compatible", http.base_url.clone())
        }
    };
    let mut options = json!({"baseURL": base_url});
    if !http.headers.is_empty() {
        options["headers"] = exposed(&http.headers);
    }
    // What speaks OpenAI's dialects sends any key as a bearer.
    let bearer = http.auth != Auth::ApiKey;
    match endpoint {
        _ if http.api_key.is_none() => {}
        Endpoint::Anthropic(_) if bearer => options["authToken"] = json!(OUR_KEY),
        Endpoint::Gemini(_) if bearer => {
            // It wants a key as well, and sends it beside.
            options["apiKey"] = json!(OUR_KEY);
            options["headers"]["Authorization"] = json!(format!("Bearer {OUR_KEY}"));
        }
        _ => options["apiKey"] = json!(OUR_KEY),
    }
    json!({
        "npm": package,
        "name": NAME,
        "options": options,
        "models": {model: {"name": model, "tool_call": true}},
    })
}
