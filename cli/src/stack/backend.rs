//! What runs will run in on this machine: containers where an engine answers, else child processes, said aloud.

use std::path::PathBuf;

use worker::{
    Config,
    config::Backend,
    probe::{self, Engine},
};

use crate::{
    commands::worker::BackendArg,
    failure::Failure,
    term::{Style, Term},
};

/// The image `scripts/quickstart.sh` makes, without any registry.
pub(crate) const BASE_IMAGE: &str = "ozma-base:bookworm";

/// What a machine that never saw the script can pull.
const PUBLIC_IMAGE: &str = "debian:bookworm-slim";

/// What makes the images that are missing.
pub(crate) const MAKE: &str = "scripts/quickstart.sh makes it";

/// Settles on a backend and says which; what was asked for is never changed.
///
/// # Errors
/// What was asked for cannot be had, or nothing can.
pub(crate) async fn choose(
    config: &mut Config,
    wanted: Option<BackendArg>,
    term: &mut Term,
) -> Result<String, Failure> {
    let given = wanted.map(Backend::from);
    if given == Some(Backend::Direct) || (given.is_none() && config.backend == Backend::Direct) {
        return direct(config, None, term);
    }
    match probe::engine(config.docker_host.as_deref()).await {
        Ok(engine) => {
            config.backend = Backend::Docker;
            need_image(config, &config.sidecar_image).await?;
            Ok(format!("containers, {}", named(&engine)))
        }
        Err(error) if given.is_some() => Err(no_engine(&error)),
        Err(error) => direct(config, Some(&error), term),
    }
}

fn direct(
    config: &mut Config,
    why: Option<&anyhow::Error>,
    term: &mut Term,
) -> Result<String, Failure> {
    let sidecar = sidecar_binary(config);
    if !sidecar.as_ref().is_some_and(|path| path.is_file()) {
        let place = sidecar.map(|path| path.display().to_string()).unwrap_or_default();
        let failure = match why {
            Some(error) => no_engine(error),
            None => Failure::platform("the direct backend needs the sidecar's binary"),
        };
        return Err(failure.hint(format!(
            "start an engine, or, to run without containers, put the sidecar at {place}: scripts/quickstart.sh does either"
        )));
    }
    if let Some(error) = why {
        term.note(&format!("no container engine answers: {error:#}"));
        term.note(&format!("hint: {}", engine_hint(error, "start one, or set DOCKER_HOST")));
    }
    let warning = "warning: runs are not isolated: each can do what your user can. Run only what you would run \
         in your own shell";
    let warning = term.paint(Style::Warn, warning);
    term.note(&warning);
    config.backend = Backend::Direct;
    Ok("folders of this machine, NOT isolated".to_owned())
}

/// Where the direct backend looks for the sidecar.
pub(crate) fn sidecar_binary(config: &Config) -> Option<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("ozma-sidecar"));
    config.sidecar_binary.clone().or_else(beside)
}

/// # Errors
/// The engine does not have the image; the hint says where it comes from.
pub(crate) async fn need_image(config: &Config, image: &str) -> Result<(), Failure> {
    match probe::image(config.docker_host.as_deref(), image).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Failure::platform(format!("the engine has no image {image}")).hint(MAKE)),
        Err(error) => Err(no_engine(&error)),
    }
}

/// The image of runs that name none: the one made here, else one that can be pulled.
pub(crate) async fn default_image(config: &Config) -> String {
    if config.backend == Backend::Direct {
        return BASE_IMAGE.to_owned();
    }
    match probe::image(config.docker_host.as_deref(), BASE_IMAGE).await {
        Ok(Some(_)) => BASE_IMAGE.to_owned(),
        _ => PUBLIC_IMAGE.to_owned(),
    }
}

/// An engine in a few words.
pub(crate) fn named(engine: &Engine) -> String {
    format!("engine {} on {}", engine.version, engine.platform)
}

fn no_engine(error: &anyhow::Error) -> Failure {
    Failure::platform(format!("no container engine answers: {error:#}")).hint(engine_hint(
        error,
        "start one (scripts/quickstart.sh installs it), set DOCKER_HOST, or use --backend direct",
    ))
}

/// An engine that is there but not for this user needs no other engine; `otherwise` is for the rest.
pub(crate) fn engine_hint(error: &anyhow::Error, otherwise: &'static str) -> &'static str {
    if format!("{error:#}").contains("Permission denied") {
        "your user may not use the engine: join the group that owns its socket (`sudo usermod -aG docker $USER`, then log in again)"
    } else {
        otherwise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_is_kept_from_this_user_is_no_missing_one() {
        let denied = anyhow::anyhow!("Permission denied (os error 13)").context("talk to it");
        assert!(no_engine(&denied).hint.unwrap().contains("usermod"));
        let absent = anyhow::anyhow!("Connection refused (os error 111)");
        assert!(no_engine(&absent).hint.unwrap().contains("DOCKER_HOST"));
    }
}
