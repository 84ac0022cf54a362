//! Agents as people write them down: Markdown with a front matter, or YAML. Found by name in the project and in the
//! user's configuration.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::Value;

use crate::{failure::Failure, files};

/// A larger file is refused.
const MAX_BYTES: u64 = 1 << 20;

/// Files of a folder that are looked into for an id; further ones are found by their file's name only.
const MAX_FILES: usize = 256;

const ENDINGS: [&str; 3] = ["md", "yaml", "yml"];

/// Fields that mean nothing here and are no mistake.
const FOR_PEOPLE: [&str; 3] = ["id", "name", "description"];

/// Who is to answer, and as what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Agent {
    pub path: PathBuf,
    pub id: Option<String>,
    /// What is put before the prompt, as the system's word.
    pub base_prompt: Option<String>,
    /// A model file's name, or a model.
    pub model: Option<String>,
    pub provider: Option<String>,
    pub variant: Option<String>,
    pub output_format: Option<String>,
    /// Fields that mean nothing here.
    pub ignored: Vec<String>,
}

/// Where agents are looked for: the folder that was named, or else the project's and the user's.
pub(super) fn folders(
    named: Option<&Path>,
    project: &Path,
    config_home: Option<&Path>,
) -> Vec<PathBuf> {
    match named {
        Some(named) => vec![named.to_owned()],
        None => std::iter::once(project.join(".autopilot/agents"))
            .chain(config_home.map(|home| home.join("ozma/agents")))
            .collect(),
    }
}

/// The agent of that name; `None` when there is none.
///
/// # Errors
/// Its file cannot be read or understood.
pub(super) fn find(name: &str, folders: &[PathBuf]) -> Result<Option<Agent>, Failure> {
    if !is_name(name) {
        return Ok(None);
    }
    for folder in folders {
        let files = ENDINGS.map(|ending| folder.join(format!("{name}.{ending}")));
        if let Some(file) = files.iter().find(|file| file.is_file()) {
            return read(file).map(Some);
        }
    }
    for folder in folders {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let mut files: Vec<PathBuf> =
            entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|p| ours(p)).collect();
        files.sort();
        // One that is no file would be waited for; the folder may be a stranger's.
        for file in files.iter().filter(|file| file.is_file()).take(MAX_FILES) {
            // Another agent's file that cannot be read is that agent's trouble.
            if let Ok(agent) = read(file)
                && agent.id.as_deref() == Some(name)
            {
                return Ok(Some(agent));
            }
        }
    }
    Ok(None)
}

/// A name that is one path segment, as files have them.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.bytes().all(plain)
}

fn ours(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
}

/// # Errors
/// The file cannot be read or understood.
pub(super) fn read(path: &Path) -> Result<Agent, Failure> {
    let read = || -> anyhow::Result<Agent> {
        let text = files::text(path, MAX_BYTES)?;
        let markdown = path.extension().is_none_or(|ending| ending != "yaml" && ending != "yml");
        parse(&text, markdown)
    };
    let agent = read().map_err(|error| {
        Failure::usage(format!("cannot read the agent {}: {error:#}", path.display()))
    })?;
    Ok(Agent { path: path.to_owned(), ..agent })
}

fn parse(text: &str, markdown: bool) -> anyhow::Result<Agent> {
    let text = text.trim_start_matches('\u{feff}');
    let (head, body) = if markdown { split(text) } else { (Some(text), "") };
    let fields: BTreeMap<String, Value> = match head.map(str::trim) {
        Some(head) if !head.is_empty() => {
            serde_saphyr::from_str(head).context("its fields are no YAML mapping")?
        }
        _ => BTreeMap::new(),
    };
    let mut agent = Agent::default();
    let (mut role, mut prompt) = (None, None);
    for (name, value) in fields {
        let field = match name.as_str() {
            "id" => &mut agent.id,
            "model" => &mut agent.model,
            "provider" => &mut agent.provider,
            "variant" => &mut agent.variant,
            "output_format" => &mut agent.output_format,
            "role" => &mut role,
            "prompt" => &mut prompt,
            other => {
                if !FOR_PEOPLE.contains(&other) {
                    agent.ignored.push(name);
                }
                continue;
            }
        };
        *field = match value {
            Value::Null => None,
            Value::String(text) => Some(text).filter(|text| !text.trim().is_empty()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                anyhow::bail!("its field {name} is no text")
            }
        };
    }
    let role = role.map(|role| format!("Your role: {}.", role.trim().trim_end_matches('.')));
    let parts = [role, prompt, Some(body.to_owned())];
    let parts: Vec<String> = parts
        .into_iter()
        .flatten()
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect();
    agent.base_prompt = (!parts.is_empty()).then(|| parts.join("\n\n"));
    Ok(agent)
}

/// The front matter between two lines of `---`, if there is one, and what follows.
fn split(text: &str) -> (Option<&str>, &str) {
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|line| line.trim_end() == "---") else {
        return (None, text);
    };
    let mut at = first.len();
    for line in lines {
        if matches!(line.trim_end(), "---" | "...") {
            return (text.get(first.len()..at), text.get(at + line.len()..).unwrap_or_default());
        }
        at += line.len();
    }
    // A rule at the top of a text and no front matter.
    (None, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_has_fields_and_a_body() {
        let text = "---\ndescription: Looks at changes\nmodel: sonnet\noutput_format: json\ntools: [a]\n---\n\
                    Be strict.\n---\nAnd kind.\n";
        let agent = parse(text, true).unwrap();
        assert_eq!(agent.model.as_deref(), Some("sonnet"));
        assert_eq!(agent.output_format.as_deref(), Some("json"));
        assert_eq!(agent.base_prompt.as_deref(), Some("Be strict.\n---\nAnd kind."));
        assert_eq!(agent.ignored, ["tools"]);
    }

    #[test]
    fn markdown_without_fields_is_all_body() {
        for (text, body) in [
            ("Be kind.", Some("Be kind.")),
            ("---\nnot closed", Some("---\nnot closed")),
            ("---\n---\nx", Some("x")),
            ("---\r\nmodel: a\r\n---\r\nx\r\n", Some("x")),
            ("", None),
        ] {
            let agent = parse(text, true).unwrap();
            assert_eq!(agent.base_prompt.as_deref(), body, "{text:?}");
        }
    }

    #[test]
    fn yaml_is_fields_alone() {
        let text = "id: 7\nname: The reviewer\nrole: reviewer\nmodel: gpt-5\nprovider: codex\nvariant: high\n";
        let agent = parse(text, false).unwrap();
        assert_eq!(agent.id.as_deref(), Some("7"));
        assert_eq!(agent.provider.as_deref(), Some("codex"));
        assert_eq!(agent.base_prompt.as_deref(), Some("Your role: reviewer."));
        for wrong in ["- a\n- b\n", "model: [a]\n", "a: b: c\n", "model: &a [*a]\n"] {
            assert!(parse(wrong, false).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_agent_is_found_by_its_file_and_then_by_its_id() {
        let home = tempfile::tempdir().unwrap();
        let (project, config) = (home.path().join("project"), home.path().join("config"));
        let (near, far) = (project.join(".autopilot/agents"), config.join("ozma/agents"));
        for (folder, file, text) in [
            (&near, "a.md", "near"),
            (&far, "a.md", "far"),
            (&far, "b.yaml", "id: reviewer\nrole: x\n"),
            (&far, "broken.yaml", "- x\n"),
        ] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(file), text).unwrap();
        }
        let folders = folders(None, &project, Some(&config));
        assert_eq!(find("a", &folders).unwrap().unwrap().base_prompt.as_deref(), Some("near"));
        assert_eq!(find("reviewer", &folders).unwrap().unwrap().path, far.join("b.yaml"));
        assert!(find("nobody", &folders).unwrap().is_none());
        assert!(find("../a", &folders).unwrap().is_none());
        assert!(find("broken", &folders).is_err());
    }
}
