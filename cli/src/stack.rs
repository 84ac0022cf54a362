//! A plane and a worker in this process, for `up`, `demo` and `bench`. They have a life each: the worker stops
//! first, while the plane is there to take its last words.

pub(crate) mod backend;
pub(crate) mod model;

use std::{path::PathBuf, sync::Arc, time::Duration};

use control_plane::{Config as PlaneConfig, Plane};
use protocol::{
    api::tokens::{CreateToken, TokenCreated, TokenKind},
    secret::Secret,
    spec::ProviderKind,
};
use secrecy::{ExposeSecret, SecretString};
use service::{clock::Clock, lifecycle::Lifecycle};
use worker::Config as WorkerConfig;

use crate::{client::Client, connection::Target, failure::Failure, interrupts::Interrupts};

/// What is logged where a person watches: what goes wrong, but for the warning that [`backend::choose`] gives.
pub(crate) const QUIETLY: &str = "warn,worker::backend::direct=error";

/// How long the plane may take to close its connections once the worker is gone.
const PLANE_GRACE: Duration = Duration::from_secs(5);

/// How long the worker may take to appear at the plane.
const WORKER_PATIENCE: Duration = Duration::from_secs(15);

/// What runs in this process.
pub(crate) struct Stack {
    pub(crate) url: String,
    pub(crate) admin_key: Secret,
    /// Where the key is kept, when nobody gave one.
    pub(crate) admin_key_file: Option<PathBuf>,
    plane_life: Lifecycle,
    worker_life: Lifecycle,
    /// Why the worker ended on its own.
    worker_error: Arc<std::sync::Mutex<Option<anyhow::Error>>>,
}

impl Stack {
    /// Starts a plane and, once it listens, a worker that talks to it.
    ///
    /// # Errors
    /// The plane cannot start: its address is taken, its database away, its configuration wrong.
    pub(crate) async fn start(
        mut plane: PlaneConfig,
        mut worker: WorkerConfig,
    ) -> Result<Self, Failure> {
        // The worker beside it has a model, or a script; the providers' command lines are not to be had everywhere.
        plane.default_harness.get_or_insert(ProviderKind::Agent);
        let (listen, plane_life) = (plane.listen, Lifecycle::new());
        let given = (plane.admin_key.clone(), plane.admin_key_file.clone());
        let plane = Plane::start(plane, Clock::system(), plane_life.clone())
            .await
            .map_err(|error| start_failure(&error, listen))?;
        let url = format!("http://{}", plane.local_addr());
        let admin_key_file = plane.admin_key_path().map(PathBuf::from);
        let admin_key = match given {
            (Some(key), _) => Secret::new(key.expose_secret()),
            (None, given) => {
                let file = given.as_ref().or(admin_key_file.as_ref());
                let file = file.ok_or_else(|| Failure::platform("the plane has no admin key"))?;
                Secret::new(std::fs::read_to_string(file)?.trim())
            }
        };
        worker.plane_url.clone_from(&url);
        worker.token = Some(for_config(&admin_key));
        let worker_life = Lifecycle::new();
        let worker_error = Arc::default();
        let stack = Self { url, admin_key, admin_key_file, plane_life, worker_life, worker_error };
        stack.start_worker(worker);
        Ok(stack)
    }

    fn start_worker(&self, config: WorkerConfig) {
        let (life, slot) = (self.worker_life.clone(), Arc::clone(&self.worker_error));
        self.worker_life.spawn_essential("the worker", async move {
            if let Err(error) = worker::run(config, Clock::system(), life).await {
                *slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
            }
        });
    }

    /// A client of the plane here.
    pub(crate) fn client(&self, token: &Secret) -> Result<Client, Failure> {
        Client::new(&Target { url: self.url.clone(), token: token.clone() })
    }

    /// A token for a tenant of its own.
    ///
    /// # Errors
    /// The plane does not issue it.
    pub(crate) async fn new_tenant(&self, label: &str) -> Result<Secret, Failure> {
        issue_token(&self.client(&self.admin_key)?, label).await
    }

    /// Waits until the worker is connected.
    ///
    /// # Errors
    /// It ended, or does not come.
    pub(crate) async fn worker_connected(&self) -> Result<(), Failure> {
        let client = self.client(&self.admin_key)?;
        let connected = async {
            loop {
                let list: protocol::api::workers::WorkerList =
                    client.get("/api/v1/workers", &[]).await?;
                if !list.workers.is_empty() {
                    return Ok(());
                }
                // The worker says hello over its socket; the plane's list is where that shows.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            connected = tokio::time::timeout(WORKER_PATIENCE, connected) => {
                connected.unwrap_or_else(|_| Err(Failure::platform("the worker does not reach the plane")
                    .hint("`ozma doctor` looks for the usual causes")))
            }
            () = self.ended() => Err(self.failure()),
        }
    }

    /// Completes when a part of it ended on its own.
    pub(crate) async fn ended(&self) {
        tokio::select! {
            () = self.plane_life.draining().cancelled() => {}
            () = self.worker_life.draining().cancelled() => {}
        }
    }

    /// Why it ended on its own.
    pub(crate) fn failure(&self) -> Failure {
        let error =
            self.worker_error.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        match error {
            Some(error) => Failure::platform(format!("the worker ended: {error:#}"))
                .hint("`ozma doctor` looks for the usual causes"),
            None => {
                Failure::platform("a part of the plane or the worker ended; the log says which")
            }
        }
    }

    /// Stops: the worker finishes or, after `grace` or another signal, hands back what runs; then the plane.
    pub(crate) async fn stop(&self, grace: Duration, interrupts: &mut Interrupts) {
        self.worker_life.stop(grace, interrupts.next()).await;
        self.plane_life.stop(PLANE_GRACE, interrupts.next()).await;
    }
}

/// An address that is taken is the failure people meet; it gets its own words.
pub(crate) fn start_failure(error: &anyhow::Error, listen: std::net::SocketAddr) -> Failure {
    let taken = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::AddrInUse)
    });
    if taken {
        return Failure::platform(format!("{listen} is taken by another process")).hint(format!(
            "is `ozma up` running already? otherwise choose another port: --listen {}:0 takes a free one",
            listen.ip()
        ));
    }
    Failure::platform(format!("the plane cannot start: {error:#}"))
}

/// A token for a new tenant, from a client that is the admin.
///
/// # Errors
/// The plane does not issue it.
pub(crate) async fn issue_token(admin: &Client, label: &str) -> Result<Secret, Failure> {
    let body = CreateToken { kind: TokenKind::Tenant, label: label.to_owned(), tenant_id: None };
    let made: TokenCreated = admin.post("/api/v1/tokens", &body).await?;
    Ok(made.token)
}

/// A secret for a part's configuration.
pub(crate) fn for_config(secret: &Secret) -> SecretString {
    SecretString::from(secret.expose().to_owned())
}
