//! PID 1 inside a task container. It clones, sets up, drops privileges, has the prompt run by an unprivileged
//! child of the same binary, numbers everything that happens, and collects what is left behind.
//! It needs nothing from the task image but a kernel, and treats all that its children say as hostile.

mod args;
mod clone;
mod collect;
mod context;
mod environment;
mod execution;
mod exit;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod journal;
mod link;
mod memory;
mod modes;
mod places;
mod privileges;
mod process;
mod provider;
mod reaper;
mod record;
mod say;
mod setup;
mod stop;
mod supervise;

use std::{ffi::OsString, process::ExitCode};

use crate::{
    args::Mode,
    environment::Variables,
    say::{print, say},
};

/// Exit code of a mode this version does not have, or of arguments that make no sense (sysexits: configuration).
const EX_CONFIG: u8 = 78;

/// Runs the mode the arguments ask for. `vars` is this process's environment, read once.
pub fn main(
    args: impl Iterator<Item = OsString>,
    vars: impl Iterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let vars = Variables::new(vars);
    let args: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let mode = match args::parse(&args, &vars) {
        Ok(mode) => mode,
        Err(why) => {
            say(&why);
            return ExitCode::from(EX_CONFIG);
        }
    };
    let ended = match mode {
        Mode::Version => {
            print(env!("CARGO_PKG_VERSION"));
            Ok(0)
        }
        Mode::Askpass { prompt } => {
            print(&clone::askpass::answer(&prompt, &vars));
            Ok(0)
        }
        Mode::Supervise(options) => supervise::run(options, vars),
        Mode::Harness { drop } => modes::harness(drop),
        Mode::Collect { drop } => modes::collect(drop),
        Mode::Clone => modes::clone(),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            say(&why);
            ExitCode::FAILURE
        }
    }
}
