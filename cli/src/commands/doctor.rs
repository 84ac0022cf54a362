//! `ozma doctor`: looks at everything Ozma needs; each check passes, warns or fails, and says the fix.

mod machine;
mod plane;
mod runtimes;

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use protocol::spec::ProviderKind;
use serde::Serialize;
use worker::Config as WorkerConfig;

use self::runtimes::Runtime;

use crate::{
    commands::up::data_dir,
    failure::{Failure, code},
    surroundings::Surroundings,
    term::{Style, Term},
};

const AFTER_HELP: &str = "\
Ends with 1 when a check fails. A warning is something that works, but perhaps not as you want it.

With --runtimes it looks for the providers' command lines as `ozma exec` would use them; --require-runtime
makes one that is missing a failure (without --runtimes: if none of them is there). --offline looks at this
machine's programs and files only, and asks neither an engine nor a plane.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct DoctorArgs {
    /// Where `ozma up` keeps everything [default: ~/.local/share/ozma]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Where `ozma up` is to listen [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Ask neither an engine nor a plane: look at providers' command lines only
    #[arg(long)]
    offline: bool,
    /// Providers' command lines to look for: claude-code, codex, opencode, gemini, agent
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = runtimes::known())]
    runtimes: Vec<ProviderKind>,
    /// Fail when one of --runtimes is missing, or all of them without it
    #[arg(long)]
    require_runtime: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Pass,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    name: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do about it; absent for a pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    pub(crate) fn pass(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Pass, found: found.into(), fix: None }
    }

    pub(crate) fn warn(
        name: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { name, verdict: Verdict::Warn, found: found.into(), fix: Some(fix.into()) }
    }

    pub(crate) fn fail(
        name: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { name, verdict: Verdict::Fail, found: found.into(), fix: Some(fix.into()) }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    checks: &'a [Check],
    #[serde(skip_serializing_if = "Option::is_none")]
    runtimes: Option<&'a [Runtime]>,
}

pub(crate) async fn run(
    args: DoctorArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    let wanted = runtimes::Wanted::of(&args.runtimes, args.require_runtime, args.offline);
    term.status("looking");
    let mut checks = Vec::new();
    if !args.offline {
        let mut worker = WorkerConfig::default();
        worker
            .overlay_env(|name| around.var(name).map(str::to_owned))
            .map_err(|error| Failure::usage(format!("{error:#}")))?;
        let data_dir = data_dir(args.data_dir.as_deref(), around)?;
        let listen = args.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080)));
        checks.extend(machine::checks(&worker, &data_dir).await);
        checks.extend(plane::checks(around, &data_dir, listen).await);
    }
    let runtimes = match &wanted {
        Some(wanted) => Some(runtimes::look(wanted, around).await),
        None => None,
    };
    checks.extend(runtimes.iter().flatten().map(Runtime::check));
    if let (Some(wanted), Some(runtimes)) = (&wanted, &runtimes) {
        checks.extend(wanted.any(runtimes));
    }
    term.end_status();

    let ok = checks.iter().all(|check| check.verdict != Verdict::Fail);
    if args.json {
        term.json(&Report { ok, checks: &checks, runtimes: runtimes.as_deref() })?;
    } else {
        for check in &checks {
            show(check, term)?;
        }
        for runtime in runtimes.iter().flatten() {
            runtime.show(term)?;
        }
    }
    if ok { Ok(()) } else { Err(Failure::quiet(code::FAILED)) }
}

fn show(check: &Check, term: &mut Term) -> Result<(), Failure> {
    let (word, style) = match check.verdict {
        Verdict::Pass => ("pass", Style::Good),
        Verdict::Warn => ("warn", Style::Warn),
        Verdict::Fail => ("FAIL", Style::Bad),
    };
    let word = term.paint(style, word);
    term.line(&format!("{word}  {:<11} {}", check.name, check.found))?;
    if let Some(fix) = &check.fix {
        term.line(&format!("      {:<11} {} {fix}", "", term.paint(Style::Dim, "fix:")))?;
    }
    Ok(())
}
