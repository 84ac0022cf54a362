//! The providers' command lines of this machine: are they here, of which version, with a key, and what the harness
//! would give them. Nothing is asked of the network, and no value of a variable is shown.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use clap::builder::{StringValueParser, TypedValueParser};
use protocol::{
    secret::Secret,
    sidecar::Launch,
    spec::{HarnessSpec, ProviderKind},
};
use serde::Serialize;

use super::Check;
use crate::{
    commands::exec::model::{install, on_path, provider},
    failure::Failure,
    surroundings::Surroundings,
    term::{Style, Term},
    text::{printable, shorten},
};

/// How long a program may take to say its version; one that takes longer is here all the same.
const VERSION_WITHIN: Duration = Duration::from_secs(15);

/// Longest version that is shown, in characters.
const MAX_VERSION_CHARS: usize = 100;

/// In place of the folder that a run makes for its own files.
const OWN_FOLDER: &str = "RUN_FOLDER";

/// All of them, when nobody says which.
const ALL: [ProviderKind; 4] =
    [ProviderKind::Claude, ProviderKind::Codex, ProviderKind::Opencode, ProviderKind::Gemini];

/// Which are looked for.
#[derive(Debug)]
pub(super) struct Wanted {
    providers: Vec<ProviderKind>,
    /// Every one of them has to be there.
    each: bool,
    /// One of them has to be there.
    one: bool,
}

impl Wanted {
    /// `None` where nobody asked for any.
    pub(super) fn of(named: &[ProviderKind], require: bool, offline: bool) -> Option<Self> {
        if named.is_empty() {
            return (require || offline).then(|| Self {
                providers: ALL.to_vec(),
                each: false,
                one: require,
            });
        }
        let mut providers: Vec<ProviderKind> = Vec::new();
        for provider in named {
            if !providers.contains(provider) {
                providers.push(*provider);
            }
        }
        Some(Self { providers, each: require, one: false })
    }

    /// The check of all together, where there is one.
    pub(super) fn any(&self, found: &[Runtime]) -> Option<Check> {
        let runs = |runtime: &Runtime| runtime.path.is_some() && runtime.broken.is_none();
        let none = self.one && !found.iter().any(runs);
        none.then(|| Check::fail("runtime", "no provider's command line is here", INSTALL))
    }
}

const INSTALL: &str = "install one, such as `npm install -g @anthropic-ai/claude-code`";

/// One provider's command line.
#[derive(Debug, Serialize)]
pub(super) struct Runtime {
    name: &'static str,
    required: bool,
    /// Where it is; the built-in agent is in this program.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    /// What it says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Why it cannot be started: its loader or interpreter is not here, for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
    /// A key that `ozma exec` would use is there.
    authenticated: bool,
    /// The variable that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'static str>,
    /// Its own log-in, which `ozma exec` does not use.
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<PathBuf>,
    injected: Injected,
}

/// What the harness would start it with, besides the prompt on its standard input.
#[derive(Debug, Default, Serialize)]
struct Injected {
    arguments: Vec<String>,
    /// Names only.
    variables: Vec<String>,
    files: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A provider's name, for clap.
pub(super) fn known() -> impl TypedValueParser<Value = ProviderKind> {
    StringValueParser::new().try_map(|name| {
        provider(name.trim())
            .ok_or("there are claude-code, codex, opencode, gemini and agent (the built-in one)")
    })
}

/// Looks for them, all at once.
pub(super) async fn look(wanted: &Wanted, around: &Surroundings) -> Vec<Runtime> {
    let mut found: Vec<Runtime> = wanted
        .providers
        .iter()
        .map(|provider| Runtime::find(*provider, wanted.each, around))
        .collect();
    let versions = found.iter().map(|runtime| async {
        match runtime.path.as_deref().filter(|_| runtime.name != AGENT) {
            Some(path) => version(path).await,
            None => Ok(runtime.version.clone()),
        }
    });
    let versions = futures_util::future::join_all(versions).await;
    for (runtime, version) in found.iter_mut().zip(versions) {
        match version {
            Ok(version) => runtime.version = version,
            Err(error) => runtime.broken = Some(error.to_string()),
        }
    }
    found
}

/// What the built-in agent is called here.
const AGENT: &str = "agent";

/// What other programs call them.
fn name(provider: ProviderKind) -> &'static str {
    match provider {
        ProviderKind::Claude => "claude-code",
        other => other.as_str(),
    }
}

/// Where a provider's own log-in is kept.
fn login(provider: ProviderKind, around: &Surroundings) -> Option<PathBuf> {
    let home = around.var("HOME").map(PathBuf::from);
    let below = |variable: &str, default: &str| {
        let named = around.var(variable).map(PathBuf::from);
        named.or_else(|| home.as_ref().map(|home| home.join(default)))
    };
    let file = match provider {
        ProviderKind::Claude => below("CLAUDE_CONFIG_DIR", ".claude")?.join(".credentials.json"),
        ProviderKind::Codex => below("CODEX_HOME", ".codex")?.join("auth.json"),
        ProviderKind::Opencode => around.data_home.as_ref()?.join("opencode/auth.json"),
        ProviderKind::Gemini => below("GEMINI_CLI_HOME", "")?.join(".gemini/oauth_creds.json"),
        ProviderKind::Agent | ProviderKind::Command => return None,
    };
    file.is_file().then_some(file)
}

impl Runtime {
    fn find(provider: ProviderKind, required: bool, around: &Surroundings) -> Self {
        let built_in = provider == ProviderKind::Agent;
        let path = if built_in {
            Some(PathBuf::from("ozma"))
        } else {
            on_path(provider.as_str(), around.var("PATH").unwrap_or_default())
        };
        let key = harness::preview::keys(provider)
            .into_iter()
            .find(|name| around.var(name).is_some_and(|value| !value.trim().is_empty()));
        Self {
            name: name(provider),
            required,
            path,
            version: built_in.then(|| env!("CARGO_PKG_VERSION").to_owned()),
            broken: None,
            authenticated: key.is_some(),
            key,
            login: login(provider, around),
            injected: injected(provider, around),
        }
    }

    pub(super) fn check(&self) -> Check {
        let missing = |found: String| {
            let check = if self.required { Check::fail } else { Check::warn };
            check(self.name, found, provider(self.name).map(install).unwrap_or_default())
        };
        let Some(path) = &self.path else {
            return missing(format!("{} is not on the PATH", self.program()));
        };
        if let Some(why) = &self.broken {
            return missing(format!("{} cannot be started: {why}", path.display()));
        }
        let version = self.version.as_deref().unwrap_or("of an unknown version");
        let found = format!("{version} ({})", path.display());
        match (&self.key, &self.login) {
            (Some(key), _) => Check::pass(self.name, format!("{found}, key in {key}")),
            (None, Some(login)) => Check::warn(
                self.name,
                format!("{found}, its own log-in is in {}", login.display()),
                format!("`ozma exec` uses keys of the environment only: set {}", self.keys()),
            ),
            (None, None) => {
                let fix = format!("set {} (or the address of a model without one)", self.keys());
                Check::warn(self.name, format!("{found}, no key"), fix)
            }
        }
    }

    /// What it would be started with.
    pub(super) fn show(&self, term: &mut Term) -> Result<(), Failure> {
        let Injected { arguments, variables, files, error } = &self.injected;
        if let Some(error) = error {
            return Ok(term.line(&format!("{}: {}", self.name, printable(error)))?);
        }
        if arguments.is_empty() {
            return Ok(());
        }
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        for (what, with) in [
            ("arguments", arguments.join(" ")),
            ("variables", variables.join(" ")),
            ("files", files.join(" ")),
        ] {
            if !with.is_empty() {
                let line = format!("      {} {what}: {}", self.name, printable(&with));
                term.line(&term.paint(Style::Dim, &line))?;
            }
        }
        Ok(())
    }

    fn program(&self) -> &str {
        provider(self.name).map_or(self.name, ProviderKind::as_str)
    }

    fn keys(&self) -> String {
        provider(self.name).map(harness::preview::keys).unwrap_or_default().join(" or ")
    }
}

fn injected(provider: ProviderKind, around: &Surroundings) -> Injected {
    let env: BTreeMap<String, Secret> = around
        .vars
        .iter()
        .map(|(name, value)| (name.clone(), Secret::new(value.as_str())))
        .collect();
    let preview = harness::preview::of(Launch {
        prompt: String::new(),
        directory: ".".to_owned(),
        state_directory: OWN_FOLDER.to_owned(),
        registry: false,
        session_directory: String::new(),
        env,
        harness: HarnessSpec { provider, ..HarnessSpec::default() },
    });
    match preview {
        Ok(preview) => Injected {
            arguments: preview.arguments,
            variables: preview.variables,
            files: preview.files,
            error: None,
        },
        Err(failure) => Injected { error: Some(failure.message), ..Injected::default() },
    }
}

/// The first line of `program --version`; `None` when it says none in time.
///
/// # Errors
/// It cannot be started.
async fn version(program: &Path) -> io::Result<Option<String>> {
    let run = tokio::process::Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let Ok(done) = tokio::time::timeout(VERSION_WITHIN, run).await else { return Ok(None) };
    let done = done?;
    let said = String::from_utf8_lossy(&done.stdout);
    let first = said.lines().find(|line| !line.trim().is_empty()).filter(|_| done.status.success());
    Ok(first.map(|first| shorten(&printable(first.trim()), MAX_VERSION_CHARS)))
}
