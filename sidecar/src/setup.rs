//! The environment's set-up commands: as root, one after the other, each with nothing on its standard input.

use std::{path::Path, process::Command, time::Instant};

use harness::{failure::Failure, process::exit_code};
use protocol::{
    event::{Event, Phase},
    failure::FailureReason,
};

use crate::{
    context::Context,
    environment::for_setup,
    exit::{not_started, stopped},
    process::Broken,
};

pub(crate) async fn run(context: &Context, directory: &Path) -> Result<(), Failure> {
    let base = context.base();
    for (index, line) in (0..).zip(&context.spec.setup_commands) {
        context.recorder.note(&Event::SetupStarted { index, command: line.clone() });
        let started = Instant::now();
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(line)
            .env_clear()
            .envs(&base)
            .env("CI", "true")
            .envs(for_setup(&context.spec.env))
            .current_dir(directory);
        let ended =
            context.command(&mut command, Phase::Setup).await.map_err(|broken| match broken {
                Broken::Stopped(order) => stopped(&order),
                Broken::NotStarted(error) => {
                    not_started(FailureReason::SetupCommand, "/bin/sh of the image", &error)
                }
            })?;
        let code = exit_code(ended.status);
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        context.recorder.note(&Event::SetupFinished { index, exit_code: code, duration_ms });
        if code != 0 {
            let number = index + 1;
            let tail =
                if ended.tail.is_empty() { String::new() } else { format!(": {}", ended.tail) };
            return Err(Failure::new(
                FailureReason::SetupCommand,
                format!("set-up command {number} ended with code {code}{tail}"),
            ));
        }
    }
    Ok(())
}
