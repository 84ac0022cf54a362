//! `ozma env`: environments, from flags or from a file.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use protocol::{
    api::environments::{EnvironmentBody, EnvironmentScope, EnvironmentView, InstanceShape},
    secret::Secret,
    spec::Network,
};

use crate::{
    client::Client,
    connection::Connection,
    context,
    environments::{self, Ingredients},
    failure::Failure,
    policies::Policies,
    surroundings::Surroundings,
    table::Table,
    term::{Style, Term},
    text::printable,
};

#[derive(Debug, Args)]
pub(crate) struct EnvArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: EnvCommand,
}

#[derive(Debug, Subcommand)]
enum EnvCommand {
    /// Make an environment, from flags or from --file
    Create(Box<CreateArgs>),
    /// Yours, and the global ones
    List {
        /// One JSON array
        #[arg(long)]
        json: bool,
    },
    /// One environment, by name or id; the names of its values, never the values
    Show {
        env: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Delete an environment; runs that began with it are not touched
    Delete { env: String },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// The name; not with --file
    #[arg(required_unless_present_any = ["file", "named"], conflicts_with = "named")]
    name: Option<String>,
    /// The same as an option
    #[arg(long = "name", value_name = "NAME", hide = true)]
    named: Option<String>,
    /// A TOML or JSON file with the fields of the API's environment
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["name", "named", "image", "repo", "command", "setup", "artifact", "var", "vcpus", "memory_gb", "timeout", "setup_timeout", "image_timeout", "queue_timeout", "retry", "retry_on", "tag", "no_network", "global"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    ingredients: Ingredients,
    /// A value for set-up and agent: NAME takes it from this shell's environment, NAME=VALUE from the command line,
    /// where other users can see it (repeatable)
    #[arg(long, value_name = "NAME[=VALUE]")]
    var: Vec<String>,
    /// Processors
    #[arg(long, value_name = "N")]
    vcpus: Option<f64>,
    /// Memory
    #[arg(long, value_name = "GB")]
    memory_gb: Option<f64>,
    #[command(flatten)]
    policies: Policies,
    /// Without any network
    #[arg(long)]
    no_network: bool,
    /// For every tenant (needs the admin key as --token)
    #[arg(long)]
    global: bool,
    /// Print the environment as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(
    args: EnvArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    let client = Client::new(&args.connection.target(around)?)?;
    match args.command {
        EnvCommand::Create(create) => {
            let (json, global) = (create.json, create.global);
            let made: EnvironmentView =
                client.post(environments::PATH, &body(*create, around)?).await?;
            if global && made.scope != EnvironmentScope::Global {
                term.note(
                    "warning: it is this token's alone: --global needs the admin key as --token",
                );
            }
            if json {
                return Ok(term.json(&without_values(made))?);
            }
            term.line(made.environment_id.as_str())?;
            term.note(&format!(
                "run something in it: ozma run --env {} \"…\"",
                made.environment_id
            ));
        }
        EnvCommand::List { json } => {
            let all = environments::list(&client).await?;
            if json {
                let all: Vec<_> = all.into_iter().map(without_values).collect();
                return Ok(term.json(&all)?);
            }
            if all.is_empty() {
                term.note("no environments; `ozma env create NAME --image IMAGE` makes one");
                return Ok(());
            }
            let mut table = Table::new(&["ENVIRONMENT", "SCOPE", "NAME", "IMAGE", "REPOSITORIES"]);
            for env in all {
                let repos = env.repos.0.iter().map(|repo| repo.url.as_str()).collect::<Vec<_>>();
                let repos = if repos.is_empty() { "-".to_owned() } else { repos.join(" ") };
                let (id, scope) = (env.environment_id.to_string(), scope(env.scope).to_owned());
                table.row(&[id, scope, env.name, env.docker_image, repos]);
            }
            term.table(&table)?;
        }
        EnvCommand::Show { env, json } => {
            let env = without_values(environments::find(&client, &env).await?);
            if json { term.json(&env)? } else { show(&env, term)? }
        }
        EnvCommand::Delete { env } => {
            let env = environments::find(&client, &env).await?;
            client.delete(&format!("{}/{}", environments::PATH, env.environment_id)).await?;
            let (id, name) = (env.environment_id, printable(&env.name));
            term.line(&format!("deleted {id} ({name})"))?;
        }
    }
    Ok(())
}

fn scope(scope: EnvironmentScope) -> &'static str {
    match scope {
        EnvironmentScope::Owner => "owner",
        EnvironmentScope::Global => "global",
    }
}

/// A value on a screen or in a pipe is a value in a scrollback or a log.
fn without_values(mut env: EnvironmentView) -> EnvironmentView {
    let hidden = || Secret::new(protocol::api::environments::REDACTED);
    env.env_vars.values_mut().for_each(|value| *value = hidden());
    env
}

fn show(env: &EnvironmentView, term: &mut Term) -> Result<(), Failure> {
    let mut facts = vec![
        ("id", env.environment_id.to_string()),
        ("name", env.name.clone()),
        ("scope", scope(env.scope).to_owned()),
        ("image", env.docker_image.clone()),
    ];
    for repo in &env.repos.0 {
        let at = repo.reference.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
        facts.push(("repository", format!("{}{at}", repo.url)));
    }
    facts.extend(env.setup_commands.0.iter().map(|command| ("setup", command.clone())));
    if let Some(harness) = &env.harness {
        facts.extend(harness.kind.map(|kind| ("harness", kind.as_str().to_owned())));
        facts.extend(harness.command.iter().map(|command| ("command", command.clone())));
        facts.extend(harness.model_id.iter().map(|model| ("model", model.clone())));
    }
    if env.network == Network::None {
        facts.push(("network", "none".to_owned()));
    }
    for (name, secs) in [
        ("timeout", env.timeout_secs),
        ("set-up", env.setup_timeout_secs),
        ("image", env.image_timeout_secs),
        ("queue", env.queue_timeout_secs),
    ] {
        facts.extend(secs.map(|secs| (name, format!("at most {secs} s"))));
    }
    if let Some(retry) = &env.retry {
        let attempts = retry.max_attempts.map(|n| format!("{n} attempts"));
        let on = retry.on.as_ref().map(|on| on.iter().map(|class| class.as_str()).collect());
        let on = on.map(|on: Vec<_>| format!("after {}", on.join(", ")));
        let text = attempts.into_iter().chain(on).collect::<Vec<_>>().join(" ");
        facts.push(("retry", text));
    }
    facts.extend(env.worker_tags.iter().map(|tag| ("worker tag", tag.clone())));
    facts.extend(env.artifacts.iter().map(|path| ("artifact", path.clone())));
    facts.extend(env.env_vars.keys().map(|name| ("value", format!("{name} (set)"))));
    facts.push(("updated", env.updated_at.to_string()));
    for (name, value) in facts {
        let name = term.paint(Style::Dim, &format!("{name:<12}"));
        term.line(&format!("{name}{}", printable(&value)))?;
    }
    Ok(())
}

fn body(args: CreateArgs, around: &Surroundings) -> Result<EnvironmentBody, Failure> {
    if let Some(file) = &args.file {
        return from_file(file);
    }
    let default = context::read(around)?.and_then(|context| context.default_image);
    let mut body = args
        .ingredients
        .body(args.name.or(args.named).as_deref().unwrap_or_default(), default.as_deref())?;
    body.env_vars = values(&args.var, around)?;
    if args.vcpus.is_some() || args.memory_gb.is_some() {
        body.instance_shape = Some(InstanceShape { vcpus: args.vcpus, memory_gb: args.memory_gb });
    }
    args.policies.put_into_environment(&mut body);
    body.global = args.global.then_some(true);
    if args.no_network {
        body.network = Network::None;
    }
    Ok(body)
}

fn from_file(file: &PathBuf) -> Result<EnvironmentBody, Failure> {
    let read = || -> anyhow::Result<EnvironmentBody> {
        if file.extension().is_some_and(|kind| kind == "json") {
            let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
            return serde_json::from_slice(&text)
                .with_context(|| format!("understand {}", file.display()));
        }
        service::config::read_toml(file)
    };
    read().map_err(|error| Failure::usage(format!("{error:#}")))
}

fn values(vars: &[String], around: &Surroundings) -> Result<BTreeMap<String, Secret>, Failure> {
    vars.iter()
        .map(|var| match var.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), Secret::new(value))),
            None => {
                around.var(var).map(|value| (var.clone(), Secret::new(value))).ok_or_else(|| {
                    Failure::usage(format!("{var} is not set in this shell's environment"))
                        .hint(format!("export it, or write --var {var}=VALUE"))
                })
            }
        })
        .collect()
}
