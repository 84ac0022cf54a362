//! `ozma exec`: the harness of a task container, here and now: no plane, no container, no isolation.

mod agent;
mod drive;
pub(crate) mod model;
mod state;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use protocol::{
    secret::Secret,
    sidecar::Launch,
    spec::{HarnessSpec, ProviderKind},
};

use self::{
    agent::Agent,
    drive::{Drive, Outcome},
    model::{PromptMode, Who, Wish},
    state::State,
};
use crate::{
    failure::{Failure, code},
    interrupts::Interrupts,
    mcp,
    prompt::prompt,
    surroundings::Surroundings,
    term::Term,
};

const USAGE: &str = "ozma exec [OPTIONS] [AGENT] [PROMPT]...";

const AFTER_HELP: &str = "\
The prompt comes from --file, else the arguments, else standard input. The first argument is an agent's
name if there is an agent of that name, and else part of the prompt.

Agents are Markdown with a front matter (description, model, output_format) or YAML (id, name, role,
model, provider, variant), in .autopilot/agents of the project and ~/.config/ozma/agents.
MODEL is the name of a TOML file in ~/.config/ozma/models (command, args, prompt_mode = \"stdin\" or \"arg\";
or several [[providers]], of which the first that is installed is taken), or claude, codex, opencode,
gemini or agent, or one of them with a model (codex/gpt-5.5), or a model of the agent's provider, which is
claude where nobody says.

Keys come from the environment, under the provider's own names. The provider works with your own rights
on your own files, unattended: nothing isolates it. Its evidence is in .workbench/runs/RUN_ID/ of the
project. Ctrl-C interrupts it; the second one leaves it.

Ends with 0 succeeded, 1 failed, 2 wrong usage, 3 could not be run here, 130 cancelled.";

#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = AFTER_HELP)]
pub(crate) struct ExecArgs {
    /// An agent's name, then the prompt; `-` reads standard input
    #[arg(value_name = "AGENT|PROMPT")]
    words: Vec<String>,
    /// Who answers: a model file, a provider, provider/model, or a model
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// The agent, by its file or name; every argument is the prompt then
    #[arg(long, short, value_name = "AGENT")]
    agent: Option<String>,
    /// Read the prompt from a file; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where the provider works [default: here]
    #[arg(long, short, value_name = "FOLDER")]
    project: Option<PathBuf>,
    /// Where model files are [default: ~/.config/ozma/models]
    #[arg(long, value_name = "FOLDER")]
    models_dir: Option<PathBuf>,
    /// Where agents are [default: .autopilot/agents of the project, ~/.config/ozma/agents]
    #[arg(long, value_name = "FOLDER")]
    agents_dir: Option<PathBuf>,
    /// A JSON file of MCP servers: {"mcpServers": {NAME: {"command", "args", "env"} or {"url", "headers"}}}
    #[arg(long, value_name = "FILE")]
    mcp: Option<PathBuf>,
    /// Start the MCP servers that an earlier scan wrote to .workbench/registry/mcp.json of the project
    #[arg(long)]
    registry: bool,
    /// What is printed [default: what the agent's file says, else text]
    #[arg(long, short, value_enum, value_name = "FORMAT", conflicts_with = "json")]
    output: Option<Format>,
    /// The same as --output json
    #[arg(long)]
    json: bool,
}

/// What goes to standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Everything that happens, for people
    #[default]
    Text,
    /// One JSON object a line: every event, then the outcome
    Json,
    /// The final answer and nothing else
    Answer,
}

pub(crate) async fn run(
    args: ExecArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    let project = folder(args.project.as_deref())?;
    for (option, named) in [("--models-dir", &args.models_dir), ("--agents-dir", &args.agents_dir)]
    {
        if let Some(named) = named.as_deref().filter(|named| !named.is_dir()) {
            let wrong = format!("{option}: there is no folder {}", named.display());
            return Err(Failure::usage(wrong));
        }
    }
    let config_home = around.config_home.as_deref();
    let folders = agent::folders(args.agents_dir.as_deref(), &project, config_home);
    let (agent, words) = who(&args, &folders)?;
    let agent = agent.unwrap_or_default();
    let format = format(&args, &agent)?;
    if args.file.is_some() && !words.is_empty() {
        if args.agent.is_none() && agent.path.as_os_str().is_empty() {
            return Err(no_agent(&words[0], &folders));
        }
        term.note("the prompt is that of --file; the arguments after the agent are not used");
    }
    let words = words.join(" ");
    let words = Some(words.as_str()).filter(|words| !words.is_empty());
    let prompt = prompt(args.file.as_deref(), words.filter(|_| args.file.is_none()))?;
    let models =
        args.models_dir.clone().or_else(|| config_home.map(|home| home.join("ozma/models")));
    let path = around.var("PATH").unwrap_or_default();
    let who = model::choose(Wish {
        model: args.model.as_deref().or(agent.model.as_deref()),
        // Who asks for a model by hand has chosen its provider as well.
        provider: agent.provider.as_deref().filter(|_| args.model.is_none()),
        variant: agent.variant.as_deref(),
        folder: models.as_deref(),
        path,
    })?;
    who.is_installed(path)?;
    let servers = args.mcp.as_deref().map(mcp::servers).transpose()?.unwrap_or_default();
    for note in notes(&agent, &who, servers.is_empty()) {
        term.note(&note);
    }
    let name = name(&who);
    let harness = harness_of(who, &agent, &prompt)?;
    let harness = HarnessSpec { mcp_servers: servers, ..harness };
    let interrupts = Interrupts::with_hangup()?;
    let state = State::begin(around.state_home.as_deref())?;
    let launch = Launch {
        prompt: launched(&harness, &prompt),
        directory: project.display().to_string(),
        state_directory: state.folder().display().to_string(),
        registry: args.registry,
        session_directory: String::new(),
        env: variables(around),
        harness,
    };
    let drive = Drive { launch, name, prompt, project, format };
    let Outcome { exit_code } = drive.run(interrupts, term).await?;
    if exit_code == code::SUCCESS { Ok(()) } else { Err(Failure::quiet(exit_code)) }
}

fn folder(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let named = named.unwrap_or(Path::new("."));
    let folder = std::fs::canonicalize(named)
        .map_err(|error| Failure::usage(format!("cannot work in {}: {error}", named.display())))?;
    if folder.is_dir() && folder.to_str().is_some() {
        Ok(folder)
    } else {
        Err(Failure::usage(format!("cannot work in {}: no folder", named.display())))
    }
}

/// The agent, if there is one, and the words that are the prompt.
fn who<'a>(
    args: &'a ExecArgs,
    folders: &[PathBuf],
) -> Result<(Option<Agent>, &'a [String]), Failure> {
    if let Some(named) = &args.agent {
        let file = Path::new(named);
        let agent = if file.is_file() {
            agent::read(file)?
        } else {
            agent::find(named, folders)?.ok_or_else(|| no_agent(named, folders))?
        };
        return Ok((Some(agent), &args.words));
    }
    match args.words.split_first() {
        Some((first, rest)) => Ok(match agent::find(first, folders)? {
            Some(agent) => (Some(agent), rest),
            None => (None, &args.words),
        }),
        None => Ok((None, &[])),
    }
}

fn no_agent(name: &str, folders: &[PathBuf]) -> Failure {
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Failure::usage(format!("there is no agent {name:?}"))
        .hint(format!("agents are looked for in {}", folders.join(" and ")))
}

fn format(args: &ExecArgs, agent: &Agent) -> Result<Format, Failure> {
    if args.json {
        return Ok(Format::Json);
    }
    match (args.output, agent.output_format.as_deref()) {
        (Some(format), _) => Ok(format),
        (None, None) => Ok(Format::default()),
        (None, Some(named)) => Format::from_str(named, true).map_err(|_| {
            let file = agent.path.display();
            Failure::usage(format!("the agent {file} has the output_format {named:?}"))
                .hint("there are text, json and answer")
        }),
    }
}

/// What a person should know before it starts.
fn notes(agent: &Agent, who: &Who, no_servers: bool) -> Vec<String> {
    let program = matches!(who, Who::Program { .. });
    let file = agent.path.display();
    let mut notes = Vec::new();
    if !agent.ignored.is_empty() {
        let fields = agent.ignored.join(", ");
        notes.push(format!("note: these fields of {file} mean nothing here: {fields}"));
    }
    if agent.variant.is_some() && !program {
        notes.push(format!("note: the variant of {file} is for model files: providers have none"));
    }
    if program && !no_servers {
        notes.push("note: a program of a model file gets no MCP servers".to_owned());
    }
    notes
}

/// How it is called, for people.
fn name(who: &Who) -> String {
    match who {
        Who::Provider { kind, model: Some(model) } => format!("{} with {model}", kind.as_str()),
        Who::Provider { kind, model: None } => kind.as_str().to_owned(),
        Who::Program { name, command, .. } => format!("{name} ({command})"),
    }
}

fn harness_of(who: Who, agent: &Agent, prompt: &str) -> Result<HarnessSpec, Failure> {
    Ok(match who {
        Who::Provider { kind, model } => HarnessSpec {
            provider: kind,
            model,
            base_prompt: agent.base_prompt.clone(),
            ..HarnessSpec::default()
        },
        Who::Program { command, args, prompt: mode, .. } => {
            let base = agent.base_prompt.as_ref().map_or(0, String::len);
            let length = prompt.len() + base;
            if mode == PromptMode::Arg
                && (length > model::MAX_ARGUMENT_BYTES || prompt.contains('\0'))
            {
                return Err(Failure::usage(format!(
                    "{command} takes its prompt as an argument, and this one is longer than {} bytes or has a NUL",
                    model::MAX_ARGUMENT_BYTES
                ))
                .hint("prompt_mode = \"stdin\" in its model file has no such limit"));
            }
            HarnessSpec {
                provider: ProviderKind::Command,
                command: Some(model::command_line(&command, &args, mode)),
                base_prompt: agent.base_prompt.clone(),
                ..HarnessSpec::default()
            }
        }
    })
}

/// The prompt as it is handed over: a program knows no word of the system's, so that it stands before the user's.
fn launched(harness: &HarnessSpec, prompt: &str) -> String {
    match &harness.base_prompt {
        Some(base) if harness.provider == ProviderKind::Command => format!("{base}\n\n{prompt}"),
        _ => prompt.to_owned(),
    }
}

/// The user's environment takes the place of a run's.
fn variables(around: &Surroundings) -> BTreeMap<String, Secret> {
    around.vars.iter().map(|(name, value)| (name.clone(), Secret::new(value.as_str()))).collect()
}
