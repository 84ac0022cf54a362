//! What this process finds around it: folders, terminal, the model named by the environment. With clap's
//! `env`, the only place that reads the environment.

use std::{collections::BTreeMap, io::IsTerminal, path::PathBuf};

/// Read once in `main`, passed down as a value.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `$XDG_CONFIG_HOME`, else `$HOME/.config`.
    pub config_home: Option<PathBuf>,
    /// `$XDG_DATA_HOME`, else `$HOME/.local/share`.
    pub data_home: Option<PathBuf>,
    /// `$XDG_STATE_HOME`, else `$HOME/.local/state`.
    pub state_home: Option<PathBuf>,
    /// Colours on standard output.
    pub colour: bool,
    /// Standard output is a terminal.
    pub stdout_tty: bool,
    /// Standard error is a terminal: a status line may move there.
    pub stderr_tty: bool,
    /// Columns of the terminal, where there is one.
    pub width: Option<usize>,
    /// Everything else, for settings whose names are a contract (oz-api.md 1.14). Never printed.
    pub vars: BTreeMap<String, String>,
}

impl Surroundings {
    pub fn of_this_process() -> Self {
        let vars: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let home = vars.get("HOME").map(PathBuf::from);
        let folder = |name: &str, below: &str| {
            // The base directory specification: a relative path is to be ignored.
            let named = vars.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
            named.or_else(|| home.as_ref().map(|home| home.join(below)))
        };
        let stdout_tty = std::io::stdout().is_terminal();
        let dumb = vars.get("TERM").is_none_or(|term| term == "dumb");
        Self {
            config_home: folder("XDG_CONFIG_HOME", ".config"),
            data_home: folder("XDG_DATA_HOME", ".local/share"),
            state_home: folder("XDG_STATE_HOME", ".local/state"),
            colour: stdout_tty && !dumb && !vars.contains_key("NO_COLOR"),
            stdout_tty,
            stderr_tty: std::io::stderr().is_terminal() && !dumb,
            width: stdout_tty.then(width).flatten(),
            vars,
        }
    }

    /// A variable of the environment that is set and not empty.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str)
    }
}

fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}
