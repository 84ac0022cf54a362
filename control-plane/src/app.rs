//! The composition root: from a configuration to a plane that listens. Nothing else decides who gets what.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use secrecy::ExposeSecret;
use service::{clock::Clock, lifecycle::Lifecycle};
use tokio::net::TcpListener;

use crate::{
    alone,
    config::Config,
    core::Core,
    entry::Auth,
    environments, http, keys, loops,
    metrics::Metrics,
    sealing::Sealer,
    state::{App, AppState},
    store::Store,
    streams::Streams,
};

/// A running control plane. It stops with the life it was started on.
#[derive(Debug)]
pub struct Plane {
    local_addr: SocketAddr,
    admin_key_path: Option<PathBuf>,
    core: Arc<Core>,
}

impl Plane {
    /// Opens the store and brings its schema up to date, makes missing keys, listens, and starts the loops.
    ///
    /// # Errors
    /// A setting cannot be, the address is taken, the database is away, or the encryption key is not the one
    /// its values were sealed with.
    pub async fn start(config: Config, clock: Clock, life: Lifecycle) -> anyhow::Result<Self> {
        config.validate().context("check the configuration")?;
        let keys = keys::prepare(&config)?;
        let sealer = Sealer::from_text(keys.encryption.expose_secret())?;
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("listen on {}", config.listen))?;
        let local_addr = listener.local_addr()?;
        let alone = alone::hold(config.database().expose_secret())?;
        let store =
            Store::open(config.database().expose_secret()).await.context("open the database")?;
        let core = Core::new(store, sealer, clock, life.clone(), config.settings());
        core.hold(alone);
        environments::check_key(&core)
            .await
            .context("check that the encryption key is the one this database was begun with")?;

        let (router, openapi) = http::build();
        let app = AppState(Arc::new(App {
            core: Arc::clone(&core),
            auth: Auth::new(&keys.admin, config.tenancy, keys.metrics.as_ref()),
            streams: Streams::new(config.max_streams),
            metrics: Metrics::default(),
            openapi: openapi.into(),
            max_body_bytes: config.max_body_bytes,
            public_url: config.public_url.clone(),
        }));
        loops::start(&core);
        let router = http::finish(router, app, &config);
        life.spawn_essential("the API", http::server::serve(listener, router, life.clone()));
        tracing::info!(listen = %local_addr, tenancy = ?config.tenancy, "listening on http://{local_addr}");
        Ok(Self { local_addr, admin_key_path: keys.admin_path, core })
    }

    /// Where it listens; the port that was chosen when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The file of the admin key, when the plane keeps it itself.
    pub fn admin_key_path(&self) -> Option<&Path> {
        self.admin_key_path.as_deref()
    }

    /// The shared parts, for tests and for whoever embeds a plane.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }
}
