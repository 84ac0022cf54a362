//! How a provider is to be called: program, arguments, variables, files. No secret is ever an argument: what holds
//! one is a variable or a file of the agent's own user, mode 0600. A user's own configuration files are read and
//! never written, so that there is nothing to restore, whatever dies.

use std::{collections::BTreeMap, fs, io, os::unix::fs::OpenOptionsExt, path::PathBuf};

use protocol::{secret::Secret, spec::McpServer};
use serde_json::{Map, Value, json};

use super::home;

/// What a provider must not find of the harness's own variables.
pub(super) const NOT_INHERITED: [&str; 4] =
    ["OZMA_SOCKET", "CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CODEX_SANDBOX"];

/// The environment's values that are put where the provider wants them, under its own names.
pub(super) fn is_ours(name: &str) -> bool {
    crate::credentials::is_credential(name)
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) program: &'static str,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, Secret>,
    /// Where all the files below are: emptied before the start, removed at the end.
    pub(super) folder: PathBuf,
    /// Written before the start.
    pub(super) files: Vec<(PathBuf, String)>,
    /// Made before the start: a folder each.
    pub(super) folders: Vec<PathBuf>,
    /// Made before the start: from where to where.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
    /// What a person should know of it.
    pub(super) notices: Vec<String>,
}

impl Plan {
    pub(super) fn new(program: &'static str, folder: PathBuf) -> Self {
        Self { program, folder, ..Self::default() }
    }

    pub(super) fn args(&mut self, args: &[&str]) -> &mut Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    pub(super) fn env(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.env.insert(name.to_owned(), Secret::new(value.into()));
        self
    }

    /// For a provider that puts variables into its configuration: a value of a server's `env` or `headers` in which
    /// `sign` stands is handed over as a variable itself, written as `write` says, so that it arrives as it is.
    pub(super) fn guard(&mut self, servers: &mut Value, sign: &str, write: fn(&str) -> String) {
        let servers = servers.as_object_mut().into_iter().flat_map(Map::values_mut);
        let tables = servers.flat_map(|server| {
            let fields = server.as_object_mut().into_iter().flatten();
            fields.filter(|(name, _)| matches!(name.as_str(), "env" | "headers"))
        });
        let values = tables.flat_map(|(_, table)| table.as_object_mut().into_iter().flatten());
        for (_, value) in values {
            let Some(text) = value.as_str().filter(|text| text.contains(sign)) else { continue };
            let name = format!("OZMA_SETTING_{}", self.env.len());
            self.env(&name, write(text));
            *value = Value::String(format!("${{{name}}}"));
        }
    }

    /// `path` leads to `kept`, a folder that outlives the run.
    pub(super) fn keep(&mut self, path: PathBuf, kept: PathBuf) -> &mut Self {
        self.folders.push(kept.clone());
        self.links.push((path, kept));
        self
    }

    pub(super) fn write_files(&self) -> io::Result<()> {
        // What a harness that was killed has left here may hold a secret.
        home::clear(&self.folder)?;
        for folder in &self.folders {
            home::make(folder)?;
        }
        for (link, target) in &self.links {
            home::lead(link, target)?;
        }
        for (path, text) in &self.files {
            if let Some(folder) = path.parent() {
                home::make(folder)?;
            }
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            io::Write::write_all(&mut file, text.as_bytes())?;
        }
        Ok(())
    }
}

/// Extra headers as `Name: value` lines.
pub(super) fn header_lines(headers: &BTreeMap<String, Secret>) -> String {
    let lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.expose())).collect();
    lines.join("\n")
}

/// Secrets as plain JSON, for a file or variable of the provider's.
pub(super) fn exposed(values: &BTreeMap<String, Secret>) -> Value {
    values
        .iter()
        .map(|(name, value)| (name.clone(), json!(value.expose())))
        .collect::<Map<_, _>>()
        .into()
}

/// The servers in the form that most providers share, with what `stdio` and `http` add to each.
pub(super) fn mcp(
    servers: &BTreeMap<String, McpServer>,
    stdio: impl Fn(&str, &[String], Value) -> Value,
    http: impl Fn(&str, Value) -> Value,
) -> Value {
    let entry = |server: &McpServer| match server {
        McpServer::Stdio { command, args, env } => stdio(command, args, exposed(env)),
        McpServer::Http { url, headers } => http(url, exposed(headers)),
    };
    servers.iter().map(|(name, server)| (name.clone(), entry(server))).collect::<Map<_, _>>().into()
}

/// Puts `over` over `under`: objects are merged, everything else is replaced.
pub(super) fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                merge(under.entry(name).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_set_stays_beside_what_we_set() {
        let mut own = json!({"a": {"b": 1, "c": [1]}, "d": 2});
        merge(&mut own, json!({"a": {"c": [2], "e": 3}}));
        assert_eq!(own, json!({"a": {"b": 1, "c": [2], "e": 3}, "d": 2}));
    }

    #[test]
    fn a_value_that_would_be_taken_for_a_variable_becomes_one() {
        let mut plan = Plan::new("none", PathBuf::new());
        plan.env("A", "b");
        let mut servers = json!({"s": {"args": ["$X"], "env": {"K": "a$b", "L": "ab"}}, "t": {}});
        plan.guard(&mut servers, "$", |text| text.replace('$', "\\$"));
        let expected = json!({"args": ["$X"], "env": {"K": "${OZMA_SETTING_1}", "L": "ab"}});
        assert_eq!(servers["s"], expected);
        assert_eq!(plan.env["OZMA_SETTING_1"].expose(), "a\\$b");
    }

    #[test]
    fn what_an_earlier_harness_left_is_removed_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (own, kept, ours) =
            (folder.path().join("own"), folder.path().join("kept"), folder.path().join("ours"));
        fs::create_dir_all(kept.join("deep")).unwrap();
        fs::create_dir(&ours).unwrap();
        fs::write(ours.join("left"), "secret").unwrap();
        fs::write(&own, "mine").unwrap();
        std::os::unix::fs::symlink(&own, ours.join("file")).unwrap();
        let mut plan = Plan::new("none", ours.clone());
        plan.files.push((ours.join("file"), "ours".to_owned()));
        plan.keep(ours.join("a/sessions"), kept.clone());
        for _ in 0..2 {
            plan.write_files().unwrap();
            assert_eq!(fs::read_to_string(&own).unwrap(), "mine");
            assert_eq!(fs::read_to_string(ours.join("file")).unwrap(), "ours");
            assert!(!ours.join("left").exists() && ours.join("a/sessions/deep").is_dir());
        }
    }
}
