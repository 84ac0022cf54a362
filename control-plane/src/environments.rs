//! Environments: what a run starts from. Their values are sealed before they reach the store and opened
//! only for their owner and for an execution's assignment.

use std::collections::BTreeMap;

use protocol::{
    api::environments::REDACTED,
    ids::{EnvironmentId, TenantId},
    retry::RetryPolicy,
    secret::Secret,
    spec::{HarnessSpec, McpServer, Network, Repo, Shape},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    core::Core,
    scope::Scope,
    sealing::Sealer,
    store::{EnvironmentRow, StoreError, from_json, json},
    timeouts::TimeoutWishes,
};

/// The most one listing shows, and no more than about 32 MiB of them; others are reached by id only.
pub const MAX_LISTED: u32 = 1_000;

/// What every kept seal is bound to that belongs to no environment.
const MARK: &str = "mark";

/// Everything of an environment but its name, values and MCP servers; a run keeps a copy of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvironmentSpec {
    pub description: Option<String>,
    pub docker_image: String,
    pub repos: Vec<Repo>,
    pub setup_commands: Vec<String>,
    /// Without MCP servers: those are sealed beside it.
    pub harness: HarnessSpec,
    /// Nobody chose the provider in `harness`: the plane's holds. Not so in what an older plane wrote.
    pub open_harness: bool,
    pub shape: Shape,
    pub network: Network,
    /// What its author chose; the plane's defaults hold for the rest, and in a run's copy there is no rest.
    pub timeouts: TimeoutWishes,
    /// Paths below the workspace that are kept as artifacts.
    pub artifacts: Vec<String>,
    /// When its runs are tried again; the plane's policy for what is left open.
    pub retry: RetryPolicy,
    /// Only workers with all of these take its runs; sorted, each once.
    pub worker_tags: Vec<String>,
    /// Whether workers keep what its runs leave; the plane's choice for `None`.
    pub keep_sessions: Option<bool>,
}

#[derive(Debug, Clone)]
pub struct Environment {
    pub id: EnvironmentId,
    pub owner: TenantId,
    pub global: bool,
    pub name: String,
    pub spec: EnvironmentSpec,
    pub env: BTreeMap<String, Secret>,
    pub mcp: Servers,
    pub created_at: i64,
    pub updated_at: i64,
}

/// An environment as its author describes it, already checked for form.
#[derive(Debug, Clone)]
pub struct NewEnvironment {
    pub name: String,
    /// Asked to be visible to every tenant; a tenant's wish is ignored, and it gets one of its own.
    pub global: bool,
    pub spec: EnvironmentSpec,
    pub env: BTreeMap<String, Secret>,
    /// A value of [`REDACTED`] is the one the environment has already, for the same server.
    pub mcp: Servers,
}

/// MCP servers by name.
pub type Servers = BTreeMap<String, McpServer>;

#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// Not there, or not the caller's to see.
    #[error("no such environment")]
    NotFound,
    /// A global one is changed by an administrator only.
    #[error("a global environment is changed by an administrator only")]
    ReadOnly,
    /// Every tenant could read its values.
    #[error("a global environment cannot hold env_vars")]
    GlobalWithValues,
    /// A value is what stands for a hidden one, and there is no hidden one.
    #[error("{0} is hidden here and not known; send the value itself")]
    Hidden(String),
    /// There is one, and it was meant for another place.
    #[error("{0} is hidden, and its server is another one now; send the value itself")]
    Elsewhere(String),
    #[error("there may be at most {0} environments")]
    TooMany(u32),
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for EnvironmentError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::NotFound,
            other => Self::Store(other),
        }
    }
}

/// Checks that this key is the one the database's values were sealed with; the first start decides.
///
/// # Errors
/// Another key, or no database.
pub async fn check_key(core: &Core) -> anyhow::Result<()> {
    let mark = core.store.seal_mark(&core.sealer.seal(MARK, MARK.as_bytes())).await?;
    core.sealer.open(MARK, &mark)?;
    Ok(())
}

pub async fn create(
    core: &Core,
    scope: &Scope,
    new: NewEnvironment,
) -> Result<Environment, EnvironmentError> {
    let limit = core.settings.max_environments;
    if core.store.count_environments(scope.owner()).await? >= i64::from(limit) {
        return Err(EnvironmentError::TooMany(limit));
    }
    let now = core.now();
    let id = EnvironmentId::from_uuid(uuid::Uuid::now_v7());
    let new = NewEnvironment { mcp: reveal(new.mcp, &Servers::new())?, ..new };
    let environment = describe(scope, id, scope.owner().clone(), new, now, now)?;
    core.store.insert_environment(&to_row(&core.sealer, &environment)).await?;
    Ok(environment)
}

pub async fn get(
    core: &Core,
    scope: &Scope,
    id: &EnvironmentId,
) -> Result<Environment, EnvironmentError> {
    Ok(from_row(&core.sealer, core.store.environment(scope, id).await?)?)
}

/// What the caller may see, the newest change first, at most [`MAX_LISTED`].
pub async fn list(core: &Core, scope: &Scope) -> Result<Vec<Environment>, EnvironmentError> {
    let rows = core.store.environments(scope, MAX_LISTED).await?;
    Ok(rows.into_iter().map(|row| from_row(&core.sealer, row)).collect::<Result<_, _>>()?)
}

/// Replaces one as a whole. Runs already submitted keep what they were submitted with.
pub async fn update(
    core: &Core,
    scope: &Scope,
    id: &EnvironmentId,
    new: NewEnvironment,
) -> Result<Environment, EnvironmentError> {
    let old = changeable(core, scope, id).await?;
    let known = open_sealed(&core.sealer, old.id.as_str(), old.mcp_sealed.as_deref())?;
    let new = NewEnvironment { mcp: reveal(new.mcp, &known)?, ..new };
    let environment = describe(scope, old.id, old.owner, new, old.created_at, core.now())?;
    core.store.update_environment(scope, &to_row(&core.sealer, &environment)).await?;
    Ok(environment)
}

/// Removes one. Runs already submitted keep what they were submitted with.
pub async fn delete(
    core: &Core,
    scope: &Scope,
    id: &EnvironmentId,
) -> Result<(), EnvironmentError> {
    changeable(core, scope, id).await?;
    Ok(core.store.delete_environment(scope, id).await?)
}

async fn changeable(
    core: &Core,
    scope: &Scope,
    id: &EnvironmentId,
) -> Result<EnvironmentRow, EnvironmentError> {
    let row = core.store.environment(scope, id).await?;
    if row.global && !scope.is_admin() { Err(EnvironmentError::ReadOnly) } else { Ok(row) }
}

fn describe(
    scope: &Scope,
    id: EnvironmentId,
    owner: TenantId,
    new: NewEnvironment,
    created_at: i64,
    updated_at: i64,
) -> Result<Environment, EnvironmentError> {
    let global = new.global && scope.is_admin();
    let secret = |server: &McpServer| !secrets(server).is_empty();
    if global && (!new.env.is_empty() || new.mcp.values().any(secret)) {
        return Err(EnvironmentError::GlobalWithValues);
    }
    let NewEnvironment { name, spec, env, mcp, .. } = new;
    Ok(Environment { id, owner, global, name, spec, env, mcp, created_at, updated_at })
}

fn to_row(sealer: &Sealer, environment: &Environment) -> EnvironmentRow {
    EnvironmentRow {
        id: environment.id.clone(),
        owner: environment.owner.clone(),
        global: environment.global,
        name: environment.name.clone(),
        spec: json(&environment.spec),
        env_sealed: (!environment.env.is_empty())
            .then(|| sealer.seal(environment.id.as_str(), json(&environment.env).as_bytes())),
        mcp_sealed: (!environment.mcp.is_empty())
            .then(|| sealer.seal(environment.id.as_str(), json(&environment.mcp).as_bytes())),
        created_at: environment.created_at,
        updated_at: environment.updated_at,
    }
}

fn from_row(sealer: &Sealer, row: EnvironmentRow) -> Result<Environment, StoreError> {
    Ok(Environment {
        spec: from_json(&row.spec, "environment specification")?,
        env: open_sealed(sealer, row.id.as_str(), row.env_sealed.as_deref())?,
        mcp: open_sealed(sealer, row.id.as_str(), row.mcp_sealed.as_deref())?,
        id: row.id,
        owner: row.owner,
        global: row.global,
        name: row.name,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

/// What a server is given that nobody else may see.
pub(crate) fn secrets(server: &McpServer) -> &BTreeMap<String, Secret> {
    match server {
        McpServer::Stdio { env, .. } => env,
        McpServer::Http { headers, .. } => headers,
    }
}

pub(crate) fn secrets_mut(server: &mut McpServer) -> &mut BTreeMap<String, Secret> {
    match server {
        McpServer::Stdio { env, .. } => env,
        McpServer::Http { headers, .. } => headers,
    }
}

/// Puts what is known in the place of what was sent back hidden.
fn reveal(mut servers: Servers, known: &Servers) -> Result<Servers, EnvironmentError> {
    for (name, server) in &mut servers {
        let known = known.get(name);
        let same = known.is_some_and(|known| same_target(known, server));
        for (key, value) in secrets_mut(server) {
            if value.expose() == REDACTED {
                let place = || format!("harness.mcp_servers.{name}.{key}");
                let found = known.and_then(|known| secrets(known).get(key));
                let found = found.ok_or_else(|| EnvironmentError::Hidden(place()))?;
                if !same {
                    return Err(EnvironmentError::Elsewhere(place()));
                }
                *value = found.clone();
            }
        }
    }
    Ok(servers)
}

/// Whether both are given their values in the same place: who cannot read one must not send it elsewhere.
fn same_target(one: &McpServer, other: &McpServer) -> bool {
    match (one, other) {
        (
            McpServer::Stdio { command, args, .. },
            McpServer::Stdio { command: other, args: others, .. },
        ) => command == other && args == others,
        (McpServer::Http { url, .. }, McpServer::Http { url: other, .. }) => url == other,
        _ => false,
    }
}

/// What was sealed for the row `id`; nothing where there is none.
pub(crate) fn open_sealed<T: Default + DeserializeOwned>(
    sealer: &Sealer,
    id: &str,
    kept: Option<&[u8]>,
) -> Result<T, StoreError> {
    let Some(kept) = kept else { return Ok(T::default()) };
    let unreadable = "sealed values (is the encryption key the one they were sealed with?)";
    let text = sealer.open(id, kept).map_err(|_| StoreError::Corrupt(unreadable))?;
    serde_json::from_slice(&text).map_err(|_| StoreError::Corrupt(unreadable))
}
