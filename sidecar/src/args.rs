//! The command line. The modes besides `supervise` are for the sidecar itself to call.

use std::path::{Path, PathBuf};

use crate::environment::Variables;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Version,
    Supervise(Options),
    /// Drive the provider, as the unprivileged user if `drop`.
    Harness {
        drop: bool,
    },
    /// Find patches and files, as the unprivileged user if `drop`.
    Collect {
        drop: bool,
    },
    /// Clone one repository without a git binary.
    Clone,
    /// Answer git's question for a user name or a password.
    Askpass {
        prompt: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Everything is below it: `/` in a container.
    pub(crate) root: PathBuf,
    /// Not in a container of its own: other processes are none of its business.
    pub(crate) unisolated: bool,
    /// The workspace, where it is not below the root.
    pub(crate) workspace: Option<PathBuf>,
    /// What is kept of the conversation, where it is not below the root.
    pub(crate) session: Option<PathBuf>,
    pub(crate) link: Link,
}

/// How the worker is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    Socket(PathBuf),
    Stdio,
}

const USAGE: &str = "usage: ozma-sidecar supervise [--unisolated --root DIR [--workspace DIR] [--session DIR]] \
                     [--stdio]";

pub(crate) fn parse(args: &[String], vars: &Variables) -> Result<Mode, String> {
    // Git calls its askpass with the question as the only argument.
    if vars.get("OZMA_ASKPASS").is_some() {
        return Ok(Mode::Askpass { prompt: args.first().cloned().unwrap_or_default() });
    }
    let Some((mode, rest)) = args.split_first() else { return Err(USAGE.to_owned()) };
    let drop = || match rest {
        [] => Ok(false),
        [flag] if flag == "--drop" => Ok(true),
        _ => Err(USAGE.to_owned()),
    };
    match mode.as_str() {
        "--version" | "version" => Ok(Mode::Version),
        "supervise" => supervise(rest, vars).map(Mode::Supervise),
        "harness" => Ok(Mode::Harness { drop: drop()? }),
        "collect" => Ok(Mode::Collect { drop: drop()? }),
        "clone" => Ok(Mode::Clone),
        "stock" => {
            Err("runs of a stock worker are not in this version: use an Ozma worker".to_owned())
        }
        other => Err(format!("no mode {other:?}; {USAGE}")),
    }
}

fn supervise(args: &[String], vars: &Variables) -> Result<Options, String> {
    let (mut root, mut unisolated, mut stdio) = (PathBuf::from("/"), false, false);
    let (mut workspace, mut session) = (None, None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--unisolated" => unisolated = true,
            "--stdio" => stdio = true,
            "--root" => root = args.next().ok_or("--root needs a folder")?.into(),
            "--workspace" => {
                workspace = Some(args.next().ok_or("--workspace needs a folder")?.into());
            }
            "--session" => session = Some(args.next().ok_or("--session needs a folder")?.into()),
            other => return Err(format!("{other:?} is no option; {USAGE}")),
        }
    }
    if unisolated && (!root.is_absolute() || root == Path::new("/")) {
        return Err("--unisolated needs --root and an absolute folder of its own".to_owned());
    }
    let elsewhere = [&workspace, &session];
    if elsewhere.into_iter().flatten().any(|path: &PathBuf| !unisolated || !path.is_absolute()) {
        return Err("--workspace and --session need --unisolated and absolute folders".to_owned());
    }
    // What the worker gave as an argument says more than a variable, which may be the image's own.
    let link = match vars.get("OZMA_SOCKET") {
        _ if stdio => Link::Stdio,
        Some(path) => Link::Socket(path.into()),
        None => return Err("OZMA_SOCKET names no socket, and --stdio is not given".to_owned()),
    };
    Ok(Options { root, unisolated, workspace, session, link })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str], vars: &[(&str, &str)]) -> Result<Mode, String> {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        parse(&args, &Variables::new(vars.iter().map(|(name, value)| (name.into(), value.into()))))
    }

    #[test]
    fn a_supervisor_needs_a_link_and_an_unisolated_one_a_root() {
        assert!(parsed(&["supervise"], &[]).unwrap_err().contains("OZMA_SOCKET"));
        assert!(parsed(&["supervise", "--unisolated", "--stdio"], &[]).is_err());
        assert!(parsed(&["supervise", "--stdio", "--workspace", "/w"], &[]).is_err());
        let socket = [("OZMA_SOCKET", "/s")];
        let Mode::Supervise(options) = parsed(&["supervise"], &socket).unwrap() else { panic!() };
        assert_eq!(options.link, Link::Socket("/s".into()));
        assert_eq!(options.root, PathBuf::from("/"));
        let stdio = parsed(&["supervise", "--stdio"], &socket).unwrap();
        assert!(matches!(stdio, Mode::Supervise(Options { link: Link::Stdio, .. })));
    }

    #[test]
    fn git_asking_is_answered_whatever_it_asks() {
        let mode = parsed(&["supervise"], &[("OZMA_ASKPASS", "1")]).unwrap();
        assert_eq!(mode, Mode::Askpass { prompt: "supervise".to_owned() });
    }

    #[test]
    fn what_is_unknown_is_said() {
        assert!(parsed(&[], &[]).is_err());
        assert!(
            parsed(&["stock", "agent", "run"], &[]).unwrap_err().contains("not in this version")
        );
        assert!(parsed(&["harness", "--what"], &[]).is_err());
    }
}
