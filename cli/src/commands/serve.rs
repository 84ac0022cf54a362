//! `ozma serve`: a control plane.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use control_plane::{Config, Plane, Tenancy};
use service::{clock::Clock, lifecycle::Lifecycle};

use crate::{failure::Failure, stack::start_failure, surroundings::Surroundings, term::Term};

const AFTER_HELP: &str = "\
Prints `listening on http://…` once it does. The first SIGTERM or Ctrl-C ends what is begun, the
second ends at once.

Settings come from --config (TOML), then the environment (OZ_LISTEN, OZ_DATA_DIR, DATABASE_URL,
OZ_ADMIN_API_KEY, OZ_ENCRYPTION_KEY, OZ_TENANCY, OZ_DEFAULT_IMAGE, …), then these flags. Secrets have no
flags: other users of the machine could see them.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ServeArgs {
    /// A TOML file of settings
    #[arg(long, value_name = "FILE", env = "OZ_CONFIG")]
    config: Option<PathBuf>,
    /// Say whether the settings are right, and start nothing
    #[arg(long)]
    check_config: bool,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where database and keys are kept
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// A file that holds the admin key; without it one is made in the data folder
    #[arg(long, value_name = "FILE")]
    admin_key_file: Option<PathBuf>,
    /// Who is a tenant: whoever brings a token (open), or whom an admin gave one (registered)
    #[arg(long, value_enum)]
    tenancy: Option<TenancyArg>,
    /// Let open tenancy listen beyond loopback
    #[arg(long)]
    allow_open: bool,
    /// The image of runs without an environment
    #[arg(long, value_name = "IMAGE")]
    default_image: Option<String>,
    /// A level (error, warn, info, debug) or a filter
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Seconds that requests may take to end at a stop
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    grace_secs: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TenancyArg {
    Open,
    Registered,
}

pub(crate) async fn run(
    args: ServeArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    let (check, grace) = (args.check_config, Duration::from_secs(args.grace_secs));
    let config = config(args, around)?;
    if check {
        return Ok(term.line("the configuration is valid")?);
    }
    service::logging::start(&config.log_level)?;
    let (listen, life) = (config.listen, Lifecycle::new());
    let plane = Plane::start(config, Clock::system(), life.clone())
        .await
        .map_err(|error| start_failure(&error, listen))?;
    term.line(&format!("listening on http://{}", plane.local_addr()))?;
    if let Some(path) = plane.admin_key_path() {
        term.line(&format!("admin key in {}", path.display()))?;
    }
    life.run_until_stopped(grace).await?;
    Ok(())
}

fn config(args: ServeArgs, around: &Surroundings) -> Result<Config, Failure> {
    let wrong = |error: anyhow::Error| {
        Failure::usage(format!("{error:#}")).hint("`ozma serve --help` lists the settings")
    };
    let variables = around.vars.clone();
    let mut config = Config::load(args.config.as_deref(), variables).map_err(wrong)?;
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if let Some(data_dir) = args.data_dir {
        config.data_dir = data_dir;
    }
    if let Some(file) = args.admin_key_file {
        // The flag is nearer than a value from elsewhere.
        (config.admin_key, config.admin_key_file) = (None, Some(file));
    }
    if let Some(tenancy) = args.tenancy {
        config.tenancy = match tenancy {
            TenancyArg::Open => Tenancy::Open,
            TenancyArg::Registered => Tenancy::Registered,
        };
    }
    config.allow_open |= args.allow_open;
    config.default_image = args.default_image.or(config.default_image);
    if let Some(log) = args.log {
        config.log_level = log;
    }
    config.validate().map_err(|error| wrong(error.into()))?;
    Ok(config)
}
