//! `ozma login`: keeps a plane's address and a token in the context file, after trying them.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use protocol::{api::runs::RunList, secret::Secret};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::{
    client::Client,
    connection::{Target, root, secret},
    context::{self, Context},
    failure::Failure,
    surroundings::Surroundings,
    term::Term,
};

const AFTER_HELP: &str = "\
Without --token, the token is read from standard input, or asked for on a terminal.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct LoginArgs {
    #[arg(
        help = "The plane's address, such as https://ozma.example.org",
        long,
        env = "OZMA_URL",
        value_name = "URL"
    )]
    url: String,
    /// The token; other users of this machine can see it while the command runs
    #[arg(long, env = "OZMA_TOKEN", hide_env_values = true, value_name = "TOKEN", value_parser = secret())]
    token: Option<Secret>,
}

pub(crate) async fn run(
    args: LoginArgs,
    around: &Surroundings,
    term: &mut Term,
) -> Result<(), Failure> {
    let url = root(&args.url)?;
    if url.starts_with("http://") && !crate::client::loopback(&url) {
        term.note("warning: this address is not encrypted; others on the way can read the token");
    }
    let token = match args.token {
        Some(token) => token,
        None => ask()?,
    };
    if token.expose().is_empty() {
        return Err(Failure::usage("the token is empty"));
    }
    let target = Target { url, token };
    // Nothing is kept that does not work.
    let client = Client::new(&target)?;
    let _: RunList = client.get("/api/v1/agent/runs", &[("limit", "1".to_owned())]).await?;
    // What `ozma up` noted of the same plane stays true.
    let noted = context::read(around).ok().flatten().filter(|noted| noted.url == target.url);
    let context = match noted {
        Some(noted) => Context { token: target.token, ..noted },
        None => Context::of(target.url.clone(), target.token),
    };
    let path = context::write(around, &context)?;
    term.line(&format!("logged in to {}; kept in {}", target.url, path.display()))?;
    Ok(())
}

fn ask() -> Result<Secret, Failure> {
    let stdin = std::io::stdin();
    let mut line = String::new();
    if stdin.is_terminal() {
        // No screen is worth a token: the echo is off while it is typed.
        let before = tcgetattr(&stdin).map_err(std::io::Error::from)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        let mut err = std::io::stderr();
        write!(err, "token: ")?;
        err.flush()?;
        tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(std::io::Error::from)?;
        let read = stdin.lock().read_line(&mut line);
        tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(std::io::Error::from)?;
        writeln!(err)?;
        read?;
    } else {
        stdin.lock().read_line(&mut line)?;
    }
    Ok(Secret::new(line.trim()))
}
