//! What a worker needs here: the engine, the images, the sidecar, a model.

use std::path::Path;

use worker::{Config, probe};

use super::Check;
use crate::{
    commands::demo,
    stack::{
        backend::{self, BASE_IMAGE, MAKE},
        model::{self, Model},
    },
};

pub(crate) async fn checks(config: &Config, data_dir: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    let host = config.docker_host.as_deref();
    match probe::engine(host).await {
        Ok(engine) => {
            let cgroup = &engine.cgroup_version;
            let found = format!("{}, cgroup v{cgroup}", backend::named(&engine));
            checks.push(if engine.limits_missing.is_empty() {
                Check::pass("engine", found)
            } else {
                let lacking = engine.limits_missing.join(", ");
                let found = format!("{found}; it cannot limit: {lacking}");
                Check::warn("engine", found, "enable these cgroup controllers in the kernel")
            });
            checks.push(image(host, "sidecar", &config.sidecar_image, true).await);
            checks.push(image(host, "image", BASE_IMAGE, false).await);
            checks.push(image(host, "demo", demo::IMAGE, false).await);
        }
        Err(error) => checks.extend(without_engine(config, &error)),
    }
    checks.push(match model::named(&config.providers.agent) {
        Model::BuiltIn => Check::warn(
            "model",
            "none is configured: the built-in agent gets scripted turns",
            format!("set {}", model::HOW),
        ),
        named => Check::pass("model", named.to_string()),
    });
    let state_dir = data_dir.join("worker");
    let fits = Config { state_dir, ..Config::default() }.validate();
    checks.extend(fits.err().map(|error| {
        Check::fail("worker", format!("{error:#}"), "name a shorter folder with --data-dir")
    }));
    checks
}

/// Without an engine the direct backend is left, if its sidecar is there.
fn without_engine(config: &Config, error: &anyhow::Error) -> Vec<Check> {
    let fix = backend::engine_hint(
        error,
        "start an engine (scripts/quickstart.sh installs one), or set DOCKER_HOST",
    );
    let sidecar = backend::sidecar_binary(config).filter(|path| path.is_file());
    match sidecar {
        Some(path) => vec![
            Check::warn(
                "engine",
                format!("none answers: {error:#}; runs would not be isolated"),
                fix,
            ),
            Check::pass("sidecar", format!("{} (direct backend)", path.display())),
        ],
        None => vec![
            Check::fail("engine", format!("none answers: {error:#}"), fix),
            Check::fail("sidecar", "neither an image nor a binary", MAKE),
        ],
    }
}

async fn image(host: Option<&str>, name: &'static str, image: &str, needed: bool) -> Check {
    match probe::image(host, image).await {
        Ok(Some(id)) => {
            let id: String = id.trim_start_matches("sha256:").chars().take(12).collect();
            Check::pass(name, format!("{image} is here ({id})"))
        }
        Ok(None) if needed => Check::fail(name, format!("{image} is not here"), MAKE),
        Ok(None) => Check::warn(name, format!("{image} is not here"), MAKE),
        Err(error) => Check::fail(name, format!("{error:#}"), "look at the engine first"),
    }
}
