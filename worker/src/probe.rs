//! What `ozma doctor` asks before a worker starts: is there an engine, and what can it do. It changes nothing
//! and prints nothing.

use anyhow::Context;

/// A container engine, as it describes itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Engine {
    pub version: String,
    pub api_version: String,
    /// `linux/x86_64`
    pub platform: String,
    /// `1` or `2`
    pub cgroup_version: String,
    pub storage_driver: String,
    pub runtimes: Vec<String>,
    pub default_runtime: String,
    pub cpus: u64,
    pub memory_bytes: u64,
    /// Limits it cannot enforce, of `memory`, `swap`, `cpu` and `pids`: it would ignore them silently.
    pub limits_missing: Vec<&'static str>,
    /// `seccomp`, `apparmor`, `userns`, `rootless`, …
    pub security: Vec<String>,
    /// What the engine warns of itself.
    pub warnings: Vec<String>,
}

/// Asks the engine at `host`, or at the usual socket.
///
/// # Errors
/// No engine answers there; the text says where it was looked for.
pub async fn engine(host: Option<&str>) -> anyhow::Result<Engine> {
    let client = crate::backend::connect(host).await?;
    let info = client.info().await.context("ask the container engine about itself")?;
    let positive = |number: Option<i64>| number.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
    runtimes.sort();
    Ok(Engine {
        version: info.server_version.unwrap_or_default(),
        api_version: client.client_version().to_string(),
        platform: format!(
            "{}/{}",
            info.os_type.unwrap_or_default(),
            info.architecture.unwrap_or_default()
        ),
        cgroup_version: info.cgroup_version.map(|version| version.to_string()).unwrap_or_default(),
        storage_driver: info.driver.unwrap_or_default(),
        runtimes,
        default_runtime: info.default_runtime.unwrap_or_default(),
        cpus: positive(info.ncpu),
        memory_bytes: positive(info.mem_total),
        limits_missing: [
            ("memory", info.memory_limit),
            ("swap", info.swap_limit),
            ("cpu", info.cpu_cfs_quota),
            ("pids", info.pids_limit),
        ]
        .into_iter()
        .filter_map(|(limit, enforced)| (enforced != Some(true)).then_some(limit))
        .collect(),
        security: info.security_options.unwrap_or_default(),
        warnings: info.warnings.unwrap_or_default(),
    })
}

/// The id of an image the engine has; `None` when it would have to be pulled.
///
/// # Errors
/// No engine answers.
pub async fn image(host: Option<&str>, image: &str) -> anyhow::Result<Option<String>> {
    let client = crate::backend::connect(host).await?;
    match client.inspect_image(image).await {
        Ok(found) => Ok(found.id),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("look for image {image}")),
    }
}
