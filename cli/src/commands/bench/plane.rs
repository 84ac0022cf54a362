//! The plane that is measured: `ozma serve` as a process of its own with its default settings, so that its
//! processor time and memory can be told from the generator's.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ChildStdout, Stdio},
    time::Duration,
};

use protocol::secret::Secret;
use service::lifecycle::Lifecycle;
use tempfile::TempDir;

use super::{
    database::{Database, Fresh},
    http::Http,
    link::Link,
    process::{Running, processor_time},
};
use crate::{
    client::Client, connection::Target, failure::Failure, stack::issue_token,
    surroundings::Surroundings,
};

/// Where and with what everything is started.
pub(crate) struct Ground<'a> {
    pub(crate) around: &'a Surroundings,
    /// This program, or the one whose plane is to be measured.
    pub(crate) program: PathBuf,
    /// On the disk that is measured; removed at the end.
    pub(crate) folder: &'a Path,
    /// Less of everything: a look, not a measurement.
    pub(crate) quick: bool,
}

/// A running plane. Fields are dropped in order: the process, then what it stores in.
pub(crate) struct Plane {
    process: Running,
    /// Held open: a plane that cannot write to it would say so.
    _stdout: BufReader<ChildStdout>,
    pub(crate) addr: SocketAddr,
    pub(crate) key: Secret,
    /// Of the generator's tasks; they end with the plane.
    pub(crate) life: Lifecycle,
    pub(crate) database: Database,
    _fresh: Fresh,
    _folder: TempDir,
}

/// Processor time spent by everybody between two looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) plane: Duration,
    pub(crate) generator: Duration,
    /// A PostgreSQL server of ours.
    pub(crate) database: Option<Duration>,
}

impl Plane {
    /// Starts one on an empty database.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn start(ground: &Ground<'_>, database: &Database) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("plane-").tempdir_in(ground.folder)?;
        let fresh = database.fresh()?;
        let mut variables = vec![("OZ_DEFAULT_IMAGE", "none")];
        variables.extend(fresh.url.as_deref().map(|url| ("DATABASE_URL", url)));
        let args = ["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"];
        let mut process = Running::ozma(
            &ground.program,
            &args,
            folder.path(),
            ground.around,
            &variables,
            Stdio::piped(),
        )?;
        let failed = || {
            Failure::platform("the plane to be measured does not start")
                .hint("`ozma serve` in an empty folder says why")
        };
        let stdout = process.child().stdout.take().ok_or_else(failed)?;
        let mut stdout = BufReader::new(stdout);
        let mut said = |prefix: &str| -> Result<String, Failure> {
            let mut line = String::new();
            stdout.read_line(&mut line)?;
            line.trim().strip_prefix(prefix).map(str::to_owned).ok_or_else(failed)
        };
        let addr = said("listening on http://")?.parse().map_err(|_| failed())?;
        let key = folder.path().join(said("admin key in ")?);
        let key = Secret::new(std::fs::read_to_string(key)?.trim());
        let (life, database) = (Lifecycle::new(), database.clone());
        Ok(Self {
            process,
            _stdout: stdout,
            addr,
            key,
            life,
            database,
            _fresh: fresh,
            _folder: folder,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A token for a tenant of its own.
    ///
    /// # Errors
    /// The plane does not issue it.
    pub(crate) async fn tenant(&self, label: &str) -> Result<Secret, Failure> {
        let target = Target { url: format!("http://{}", self.addr), token: self.key.clone() };
        issue_token(&Client::new(&target)?, label).await
    }

    /// # Errors
    /// The plane does not take the connection.
    pub(crate) async fn http(&self, token: &Secret) -> Result<Http, Failure> {
        Ok(Http::connect(self.addr, token).await?)
    }

    /// # Errors
    /// The plane does not take the worker.
    pub(crate) async fn worker(&self, id: &str, capacity: u32) -> Result<Link, Failure> {
        Link::dial(self.addr, &self.key, id, capacity).await
    }

    /// Processor time so far; two of them make a [`Spent`].
    pub(crate) fn spent(&self) -> Spent {
        Spent {
            plane: processor_time(self.pid()),
            generator: processor_time(std::process::id()),
            database: self.database.processor_time(),
        }
    }

    /// Ends the plane; the generator's tasks end when their sockets do.
    pub(crate) async fn stop(mut self) {
        self.process.kill();
        self.life.stop(Duration::from_secs(5), std::future::pending()).await;
    }
}

impl Spent {
    pub(crate) fn since(self, before: Self) -> Self {
        let database = self.database.zip(before.database);
        Self {
            plane: self.plane.saturating_sub(before.plane),
            generator: self.generator.saturating_sub(before.generator),
            database: database.map(|(now, before)| now.saturating_sub(before)),
        }
    }
}
