//! Who answers: one of the providers, or a program that a model file names.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use protocol::spec::ProviderKind;
use serde::Deserialize;

use super::agent::is_name;
use crate::{failure::Failure, files};

/// A larger file is refused.
const MAX_BYTES: u64 = 1 << 20;

/// Longest prompt that goes to a program as an argument, in bytes: the kernel takes no longer one.
pub(super) const MAX_ARGUMENT_BYTES: usize = 120 << 10;

const PROVIDERS: &str =
    "there are claude, codex, opencode, gemini and agent, and what a model file names";

/// The answer to "who".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    Provider { kind: ProviderKind, model: Option<String> },
    Program { name: String, command: String, args: Vec<String>, prompt: PromptMode },
}

/// How a program is given its prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PromptMode {
    /// On its standard input.
    #[default]
    Stdin,
    /// As its last argument.
    Arg,
}

/// A model file: one program or provider, or several of which the first that is here is taken.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelFile {
    /// For people.
    #[serde(default)]
    #[expect(dead_code, reason = "for people")]
    description: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    prompt_mode: PromptMode,
    #[serde(default)]
    provider: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    providers: Vec<Entry>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// What an agent's `provider` chooses it by.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    command: Option<String>,
    /// `{model}` and `{variant}` stand for those of the entry and the agent.
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    prompt_mode: PromptMode,
    /// One of Ozma's providers in place of a program.
    #[serde(default)]
    provider: Option<String>,
    #[serde(default)]
    model: Option<String>,
}

/// What is asked for, and where it is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    /// A model file's name, a provider, `provider/model`, or a model of the provider's.
    pub model: Option<&'a str>,
    /// The agent's.
    pub provider: Option<&'a str>,
    pub variant: Option<&'a str>,
    pub folder: Option<&'a Path>,
    /// The search path for programs.
    pub path: &'a str,
}

/// The provider of that name, as people and other programs write it.
pub(crate) fn provider(name: &str) -> Option<ProviderKind> {
    match name {
        "claude" | "claude-code" => Some(ProviderKind::Claude),
        "codex" | "codex-cli" => Some(ProviderKind::Codex),
        "opencode" => Some(ProviderKind::Opencode),
        "gemini" | "gemini-cli" => Some(ProviderKind::Gemini),
        "agent" | "ozma" => Some(ProviderKind::Agent),
        _ => None,
    }
}

/// How a provider's command line is had.
pub(crate) fn install(provider: ProviderKind) -> String {
    let package = match provider {
        ProviderKind::Claude => "@anthropic-ai/claude-code",
        ProviderKind::Codex => "@openai/codex",
        ProviderKind::Opencode => "opencode-ai",
        _ => "@google/gemini-cli",
    };
    format!("`npm install -g {package}`, or put it on the PATH")
}

/// The built-in agent always is.
fn is_here(provider: ProviderKind, path: &str) -> bool {
    provider == ProviderKind::Agent || on_path(provider.as_str(), path).is_some()
}

impl Who {
    /// # Errors
    /// It is a provider whose command line is not on the search path.
    pub(super) fn is_installed(&self, path: &str) -> Result<(), Failure> {
        match self {
            Self::Provider { kind, .. } if !is_here(*kind, path) => {
                Err(Failure::platform(format!("{} is not on the PATH", kind.as_str()))
                    .hint(format!("{}, or choose who answers with --model", install(*kind))))
            }
            _ => Ok(()),
        }
    }
}

/// The first file of that name on a search path.
pub(crate) fn on_path(program: &str, path: &str) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        fs::metadata(file)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(runs);
    }
    std::env::split_paths(path).map(|folder| folder.join(program)).find(runs)
}

/// # Errors
/// The model file is wrong or none of its programs is here; the agent's provider is unknown.
pub(super) fn choose(wish: Wish<'_>) -> Result<Who, Failure> {
    if wish.model.is_some_and(|model| model.trim().is_empty()) {
        return Err(Failure::usage("the model has no name").hint(PROVIDERS));
    }
    let named = wish.model.filter(|name| is_name(name));
    if let (Some(name), Some(folder)) = (named, wish.folder) {
        let file = folder.join(format!("{name}.toml"));
        if file.is_file() {
            return of_file(name, &file, wish);
        }
    }
    let is_file = |model: &&str| Path::new(model).extension().is_some_and(|end| end == "toml");
    if let Some(named) = wish.model.filter(is_file) {
        let folder =
            wish.folder.map(|folder| format!(", and is looked for in {}", folder.display()));
        return Err(Failure::usage(format!("there is no model {named:?}")).hint(format!(
            "a model file is named without its folder and its ending{}",
            folder.unwrap_or_default()
        )));
    }
    let model = wish.model.map(str::to_owned);
    if let Some(name) = wish.provider {
        let kind = provider(name).ok_or_else(|| {
            Failure::usage(format!("the agent's provider is {name:?}, which there is not"))
                .hint(PROVIDERS)
        })?;
        let own = wish.model.and_then(|model| model.split_once('/'));
        let own = own.filter(|(before, _)| provider(before) == Some(kind));
        return Ok(Who::Provider { kind, model: own.map(|(_, model)| model.to_owned()).or(model) });
    }
    let Some(wished) = wish.model else {
        return Ok(Who::Provider { kind: ProviderKind::Claude, model: None });
    };
    let (before, after) = wished.split_once('/').map_or((wished, None), |(b, a)| (b, Some(a)));
    Ok(match provider(before) {
        Some(kind) => Who::Provider {
            kind,
            model: after.filter(|model| !model.is_empty()).map(str::to_owned),
        },
        None => Who::Provider { kind: ProviderKind::Claude, model },
    })
}

fn of_file(name: &str, file: &Path, wish: Wish<'_>) -> Result<Who, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot read the model {}: {why}", file.display()))
    };
    let text = files::text(file, MAX_BYTES).map_err(|error| wrong(&error))?;
    let parsed: ModelFile = toml::from_str(&text).map_err(|error| wrong(&error))?;
    let single = Entry {
        name: parsed.name,
        command: parsed.command,
        args: parsed.args,
        prompt_mode: parsed.prompt_mode,
        provider: parsed.provider,
        model: parsed.model,
    };
    let has_single = single.command.is_some() || single.provider.is_some();
    let entries = match (has_single, parsed.providers) {
        (true, several) if several.is_empty() => vec![single],
        (false, several) if !several.is_empty() => several,
        _ => return Err(wrong(&"it must have either a command or [[providers]]")),
    };
    let asked =
        wish.provider.filter(|asked| entries.iter().any(|e| e.name.as_deref() == Some(asked)));
    let mut absent = Vec::new();
    for entry in entries {
        if asked.is_some() && entry.name.as_deref() != asked {
            continue;
        }
        let program = match (&entry.command, &entry.provider) {
            (Some(command), None) => command.clone(),
            (None, Some(name)) => {
                let kind = provider(name).ok_or_else(|| {
                    wrong(&format!("there is no provider {name:?}")).hint(PROVIDERS)
                })?;
                if is_here(kind, wish.path) {
                    return Ok(Who::Provider { kind, model: entry.model });
                }
                kind.as_str().to_owned()
            }
            _ => return Err(wrong(&"each provider must have either a command or a provider")),
        };
        if entry.command.is_some() && on_path(&program, wish.path).is_some() {
            let filled = |text: &String| {
                text.replace("{model}", entry.model.as_deref().unwrap_or_default())
                    .replace("{variant}", wish.variant.unwrap_or_default())
            };
            return Ok(Who::Program {
                name: entry.name.clone().unwrap_or_else(|| name.to_owned()),
                command: program,
                args: entry.args.iter().map(filled).collect(),
                prompt: entry.prompt_mode,
            });
        }
        absent.push(program);
    }
    Err(Failure::platform(format!(
        "none of what {name} may use is on the PATH: {}",
        absent.join(", ")
    ))
    .hint(format!("install one, or change {}", file.display())))
}

/// A program as a command line for the shell that gives it the prompt of `$OZMA_PROMPT_FILE`.
pub(super) fn command_line(command: &str, args: &[String], prompt: PromptMode) -> String {
    let words: Vec<String> =
        std::iter::once(command).chain(args.iter().map(String::as_str)).map(quoted).collect();
    let words = words.join(" ");
    match prompt {
        PromptMode::Stdin => format!("exec {words}"),
        // A substitution drops newlines at its end, so that there must be something after them.
        PromptMode::Arg => format!(
            "prompt=$(cat \"$OZMA_PROMPT_FILE\"; printf .); exec {words} \"${{prompt%.}}\" </dev/null"
        ),
    }
}

/// One word for the shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(model: Option<&'static str>) -> Wish<'static> {
        Wish { model, provider: None, variant: None, folder: None, path: "" }
    }

    fn of(kind: ProviderKind, model: Option<&str>) -> Who {
        Who::Provider { kind, model: model.map(str::to_owned) }
    }

    #[test]
    fn a_model_says_its_provider_or_is_claudes() {
        use ProviderKind as P;
        for (asked, who) in [
            (None, of(P::Claude, None)),
            (Some("sonnet"), of(P::Claude, Some("sonnet"))),
            (Some("codex"), of(P::Codex, None)),
            (Some("codex/gpt-5.5"), of(P::Codex, Some("gpt-5.5"))),
            (Some("opencode/anthropic/x"), of(P::Opencode, Some("anthropic/x"))),
            (Some("vendor/x"), of(P::Claude, Some("vendor/x"))),
        ] {
            assert_eq!(choose(wish(asked)).unwrap(), who, "{asked:?}");
        }
        let agents = Wish { provider: Some("codex"), ..wish(Some("codex/gpt-5.5")) };
        assert_eq!(choose(agents).unwrap(), of(P::Codex, Some("gpt-5.5")));
        let agents = Wish { provider: Some("opencode"), ..wish(Some("vendor/x")) };
        assert_eq!(choose(agents).unwrap(), of(P::Opencode, Some("vendor/x")));
        let nobodys = Wish { provider: Some("nobody"), ..wish(None) };
        assert_eq!(choose(nobodys).unwrap_err().exit_code, 2);
    }

    #[test]
    fn a_model_file_names_programs_and_the_first_that_is_here_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("here"), "").unwrap();
        fs::set_permissions(bin.join("here"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(bin.join("not-here"), "no program").unwrap();
        let path = bin.to_str().unwrap().to_owned();
        let of = |text: &str, provider: Option<&str>| {
            fs::write(folder.path().join("m.toml"), text).unwrap();
            choose(Wish {
                model: Some("m"),
                provider,
                variant: Some("high"),
                folder: Some(folder.path()),
                path: &path,
            })
        };
        let program = |name: &str, args: &[&str], prompt| Who::Program {
            name: name.to_owned(),
            command: "here".to_owned(),
            args: args.iter().map(ToString::to_string).collect(),
            prompt,
        };
        let one = "command = \"here\"\nargs = [\"-m\", \"{model}:{variant}\"]\nmodel = \"x\"\nprompt_mode = \"arg\"\n";
        assert_eq!(of(one, None).unwrap(), program("m", &["-m", "x:high"], PromptMode::Arg));
        let several = "[[providers]]\ncommand = \"not-here\"\n[[providers]]\nname = \"b\"\ncommand = \"here\"\n\
                       [[providers]]\nprovider = \"agent\"\nname = \"c\"\nmodel = \"y\"\n";
        assert_eq!(of(several, None).unwrap(), program("b", &[], PromptMode::Stdin));
        let agents = Who::Provider { kind: ProviderKind::Agent, model: Some("y".to_owned()) };
        assert_eq!(of(several, Some("c")).unwrap(), agents);
        let absent = of("command = \"not-here\"\n", None).unwrap_err();
        assert!(absent.exit_code == 3 && absent.message.contains("not-here"), "{absent:?}");
        for wrong in ["", "comand = \"x\"\n", "command = \"a\"\n[[providers]]\ncommand = \"b\"\n"] {
            assert_eq!(of(wrong, None).unwrap_err().exit_code, 2, "{wrong:?}");
        }
    }

    #[test]
    fn a_word_stays_one_word_for_the_shell() {
        let args = ["it's $HOME; `x`".to_owned(), String::new()];
        assert_eq!(
            command_line("p", &args, PromptMode::Stdin),
            r"exec 'p' 'it'\''s $HOME; `x`' ''"
        );
    }
}
