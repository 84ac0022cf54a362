//! How Codex is called. It is given a home of its own, made of the user's configuration and ours; sessions are kept
//! there.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use protocol::{
    secret::Secret,
    sidecar::Launch,
    spec::{HttpEndpoint, McpServer},
};

use super::{home, plan::Plan};
use crate::dialect::codex::Used;

/// What its model provider is called in the configuration.
const NAME: &str = "ozma";

/// The variable its key comes in.
const KEY: &str = "OZMA_MODEL_KEY";

/// The model where nobody names one.
const MODEL: &str = "gpt-5.5";

/// How many entries are looked at for the file of a session.
const MAX_ENTRIES: usize = 10_000;

/// How much of that file is read, from its end.
const LAST_BYTES: u64 = 1 << 20;

pub(super) fn plan(launch: &Launch, endpoint: &HttpEndpoint) -> Result<Plan, String> {
    let harness = &launch.harness;
    let mut plan = Plan::new("codex", home::own(launch));
    plan.args(&["exec"]);
    if harness.resume.is_some() {
        plan.args(&["resume"]);
    }
    plan.args(&["--json", "--dangerously-bypass-approvals-and-sandbox", "--skip-git-repo-check"]);
    let model = if endpoint.model.is_empty() { MODEL } else { &endpoint.model };
    plan.args(&["-m", model]);
    if let Some(session) = &harness.resume {
        plan.args(&["--", session, "-"]);
    } else {
        plan.args(&["--", "-"]);
    }
    let codex_home = home::own(launch);
    let users = home::variable(launch, "CODEX_HOME")
        .map_or_else(|| home::user(launch).join(".codex"), PathBuf::from);
    let own = home::read(&users.join("config.toml"));
    for (name, path) in home::present(&users, &["AGENTS.md", "prompts", "rules", "skills"]) {
        plan.links.push((codex_home.join(name), path));
    }
    plan.keep(codex_home.join("sessions"), home::sessions(launch).join("sessions"));
    let config = config(launch, endpoint, own.as_deref())?;
    plan.files.push((codex_home.join("config.toml"), config));
    plan.env("CODEX_HOME", codex_home.display().to_string());
    if let Some(key) = &endpoint.api_key {
        plan.env(KEY, key.expose());
    }
    Ok(plan)
}

/// What a session had used before this run, by the last count in the file Codex keeps of it: the counts it tells go
/// over all of a session. None where there is no such file, or none that is understood.
pub(super) fn used(sessions: &Path, session: &str) -> Used {
    let ending = format!("-{session}.jsonl");
    let mut found = None;
    // A folder each for year, month and day.
    let mut folders = vec![(sessions.join("sessions"), 0)];
    let mut looked_at = 0;
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            looked_at += 1;
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth < 4 {
                folders.push((entry.path(), depth + 1));
            } else if kind.is_file() && entry.file_name().to_string_lossy().ends_with(&ending) {
                found = Some(entry.path());
            }
        }
        if found.is_some() || looked_at > MAX_ENTRIES {
            break;
        }
    }
    found.and_then(|file| last_count(&file)).unwrap_or_default()
}

fn last_count(file: &Path) -> Option<Used> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(file).ok()?;
    let end = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(end.saturating_sub(LAST_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(LAST_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let total = line.pointer("/payload/info/total_token_usage")?;
        let count = |name: &str| total[name].as_u64();
        Some(Used {
            input: count("input_tokens")?,
            cached: count("cached_input_tokens").unwrap_or_default(),
            output: count("output_tokens")?,
        })
    })
}

fn config(launch: &Launch, endpoint: &HttpEndpoint, own: Option<&str>) -> Result<String, String> {
    let ours = ours(launch, endpoint);
    let mut config: toml::Table = match own {
        Some(own) => own.parse().map_err(not_read)?,
        None => toml::Table::new(),
    };
    let ours: toml::Table =
        ours.parse().map_err(|error| format!("the configuration made for it: {error}"))?;
    merge(&mut config, ours);
    Ok(config.to_string())
}

/// Without the passage it speaks of, which may hold a secret.
#[expect(clippy::needless_pass_by_value, reason = "what map_err wants")]
fn not_read(error: toml::de::Error) -> String {
    format!("~/.codex/config.toml cannot be read: {}", error.message())
}

fn merge(under: &mut toml::Table, over: toml::Table) {
    for (name, value) in over {
        match (under.get_mut(&name), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(name, value);
            }
        }
    }
}

fn ours(launch: &Launch, endpoint: &HttpEndpoint) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    line("check_for_update_on_startup = false".to_owned());
    line(format!("model_provider = {}", quoted(NAME)));
    if let Some(base) = launch.harness.base_prompt.as_deref().filter(|base| !base.is_empty()) {
        line(format!("developer_instructions = {}", quoted(base)));
    }
    line("[analytics]\nenabled = false".to_owned());
    line("[features]\nplugins = false\nremote_plugin = false\napps = false".to_owned());
    // Otherwise a refused connection is tried for ever.
    line("unbounded_connection_retries = false".to_owned());
    line(format!("[model_providers.{NAME}]\nname = {}", quoted(NAME)));
    line(format!("base_url = {}\nwire_api = \"responses\"", quoted(&endpoint.base_url)));
    line("request_max_retries = 3\nstream_max_retries = 3".to_owned());
    if endpoint.api_key.is_some() {
        line(format!("env_key = {}", quoted(KEY)));
    }
    if !endpoint.headers.is_empty() {
        line(format!("http_headers = {}", table(&endpoint.headers)));
    }
    for (name, server) in &launch.harness.mcp_servers {
        line(format!("[mcp_servers.{}]", quoted(name)));
        match server {
            McpServer::Stdio { command, args, env } => {
                let args: Vec<_> = args.iter().map(|arg| quoted(arg)).collect();
                line(format!("command = {}\nargs = [{}]", quoted(command), args.join(", ")));
                line(format!("env = {}", table(env)));
            }
            McpServer::Http { url, headers } => {
                line(format!("url = {}\nhttp_headers = {}", quoted(url), table(headers)));
            }
        }
    }
    text
}

fn table(values: &std::collections::BTreeMap<String, Secret>) -> String {
    let pairs: Vec<_> = values
        .iter()
        .map(|(name, value)| format!("{} = {}", quoted(name), quoted(value.expose())))
        .collect();
    format!("{{ {} }}", pairs.join(", "))
}

/// A TOML text.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_own_settings_stay_and_ours_win() {
        let launch = Launch {
            prompt: String::new(),
            directory: "/".to_owned(),
            state_directory: "/s".to_owned(),
            registry: false,
            session_directory: String::new(),
            env: std::collections::BTreeMap::new(),
            harness: protocol::spec::HarnessSpec {
                base_prompt: Some("be \"kind\"\nand brief".to_owned()),
                mcp_servers: [(
                    "a".to_owned(),
                    McpServer::Stdio {
                        command: "x".to_owned(),
                        args: vec!["it's \"1\"".to_owned()],
                        env: [("K".to_owned(), Secret::new("v"))].into(),
                    },
                )]
                .into(),
                ..protocol::spec::HarnessSpec::default()
            },
        };
        let endpoint = HttpEndpoint {
            base_url: "http://h/v1".to_owned(),
            api_key: Some(Secret::new("sk")),
            ..HttpEndpoint::default()
        };
        let own = "model_provider = \"mine\"\n[features]\nx = true\n";
        let text = config(&launch, &endpoint, Some(own)).unwrap();
        assert!(!text.contains("sk"), "the key is a variable: {text}");
        let config: toml::Table = text.parse().unwrap();
        assert_eq!(config["model_provider"].as_str(), Some(NAME));
        assert_eq!(config["features"]["x"].as_bool(), Some(true));
        assert_eq!(config["features"]["apps"].as_bool(), Some(false));
        assert_eq!(config["mcp_servers"]["a"]["args"][0].as_str(), Some("it's \"1\""));
        assert_eq!(config["mcp_servers"]["a"]["env"]["K"].as_str(), Some("v"));
        let broken = super::config(&launch, &endpoint, Some("token = 'sk-marked' x")).unwrap_err();
        assert!(!broken.contains("marked"), "{broken}");
    }

    #[test]
    fn what_a_session_used_is_its_last_count() {
        let folder = tempfile::tempdir().unwrap();
        let day = folder.path().join("sessions/2026/11/21");
        std::fs::create_dir_all(&day).unwrap();
        let count = |n| {
            format!(
                r#"{{"type":"event_msg","payload":{{"type":"token_count","info":{{"total_token_usage":{{"input_tokens":{n},"cached_input_tokens":1,"output_tokens":2}}}}}}}}"#
            )
        };
        let text = format!("{}\n{}\n{{\"payload\":{{\"info\":null}}}}\nhalf", count(5), count(9));
        std::fs::write(day.join("rollout-2026-11-21T06-25-44-the-id.jsonl"), text).unwrap();
        assert_eq!(used(folder.path(), "the-id"), Used { input: 9, cached: 1, output: 2 });
        assert_eq!(used(folder.path(), "another"), Used::default());
    }
}
