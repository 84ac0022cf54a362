//! The databases a plane is measured on: SQLite in the plane's folder, and PostgreSQL, ours or the one that was
//! named. Both keep what they promise: nothing is measured without durable commits.

mod cluster;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use reqwest::Url;

use crate::failure::Failure;

pub(crate) use cluster::binaries;

/// What a part of the benchmark stores in.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    Sqlite,
    Postgres(Arc<Server>),
}

/// A PostgreSQL server on which databases can be made.
#[derive(Debug)]
pub(crate) struct Server {
    /// Without the name of a database.
    url: Url,
    /// Where `psql` and `pgbench` are; nothing: on the search path.
    folder: Option<PathBuf>,
    made: AtomicU32,
    /// Ours, as long as it is.
    cluster: Option<cluster::Cluster>,
}

/// An empty database of one part's own, dropped with this value.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// `DATABASE_URL` of the plane; nothing: its own SQLite file.
    pub(crate) url: Option<String>,
    made: Option<(Arc<Server>, String)>,
}

impl Database {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    /// # Errors
    /// The server does not let us make one.
    pub(crate) fn fresh(&self) -> Result<Fresh, Failure> {
        let Self::Postgres(server) = self else { return Ok(Fresh { url: None, made: None }) };
        let (name, url) = server.create()?;
        Ok(Fresh { url: Some(url), made: Some((Arc::clone(server), name)) })
    }

    /// Processor time of the server, where it is ours.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        let Self::Postgres(server) = self else { return None };
        server.cluster.as_ref()?.pid().map(super::process::family_time)
    }
}

impl Server {
    /// A private one, as `initdb` makes it: `fsync` and `synchronous_commit` are on.
    ///
    /// # Errors
    /// The binaries are missing, or it does not start.
    pub(crate) fn private(folder: &Path) -> Result<Self, Failure> {
        let programs = binaries().ok_or_else(|| {
            Failure::platform("no PostgreSQL server binaries on this machine")
                .hint("apt-get install postgresql, or name a server with --database-url")
        })?;
        let cluster = cluster::Cluster::start(&programs, folder)?;
        let url = Url::parse(&cluster.url()).map_err(|_| bad_url())?;
        Ok(Self { url, folder: Some(programs), made: AtomicU32::new(0), cluster: Some(cluster) })
    }

    /// The one at `url`, with the right to make databases.
    ///
    /// # Errors
    /// The text is no address of a PostgreSQL server.
    pub(crate) fn named(url: &str) -> Result<Self, Failure> {
        let url = Url::parse(url).map_err(|_| bad_url())?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(bad_url());
        }
        Ok(Self { url, folder: binaries(), made: AtomicU32::new(0), cluster: None })
    }

    /// Makes a database; its name and its address.
    pub(crate) fn create(&self) -> Result<(String, String), Failure> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("ozma_bench_{}_{number}", std::process::id());
        self.say("postgres", &format!("create database {name}"))?;
        let mut url = self.url.clone();
        url.set_path(&name);
        Ok((name, url.to_string()))
    }

    pub(crate) fn remove(&self, name: &str) {
        // On our own server it goes with the server; on another it is told to whoever looks there.
        let _ = self.say("postgres", &format!("drop database if exists {name} with (force)"));
    }

    /// Runs SQL through `psql`; what it printed.
    ///
    /// # Errors
    /// `psql` is missing or the server refuses.
    pub(crate) fn say(&self, database: &str, sql: &str) -> Result<String, Failure> {
        let mut command = self.program("psql", database);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        let done = command.output();
        let done = done.map_err(|error| {
            Failure::platform(format!("psql: {error}")).hint("apt-get install postgresql-client")
        })?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&done.stderr);
        Err(Failure::platform(format!("PostgreSQL: {}", said.trim())))
    }

    /// One of PostgreSQL's own programs, told by its environment where to go: a password must not be in argv.
    pub(crate) fn program(&self, name: &str, database: &str) -> Command {
        let path = self.folder.as_ref().map(|folder| folder.join(name));
        let path = path.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from(name));
        let mut command = Command::new(path);
        command.envs(self.variables(database)).stdin(Stdio::null());
        command
    }

    /// What every client of PostgreSQL reads from its environment.
    pub(crate) fn variables(&self, database: &str) -> Vec<(&'static str, String)> {
        let decoded = |text: &str| percent_decoded(text);
        let mut variables = vec![("PGDATABASE", database.to_owned())];
        variables.extend(self.url.host_str().map(|host| ("PGHOST", host.to_owned())));
        variables.extend(self.url.port().map(|port| ("PGPORT", port.to_string())));
        let user = Some(self.url.username()).filter(|user| !user.is_empty());
        variables.extend(user.map(|user| ("PGUSER", decoded(user))));
        variables.extend(self.url.password().map(|password| ("PGPASSWORD", decoded(password))));
        variables
    }

    /// `15.8`, and whether commits are durable, as the server says.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) fn describe(&self) -> Result<String, Failure> {
        let of = |setting: &str| self.say("postgres", &format!("show {setting}"));
        let version = of("server_version")?;
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        Ok(format!(
            "PostgreSQL {version} (fsync {}, synchronous_commit {})",
            of("fsync")?,
            of("synchronous_commit")?
        ))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some((server, name)) = &self.made {
            server.remove(name);
        }
    }
}

fn bad_url() -> Failure {
    Failure::usage("--database-url must be like postgres://user@host:5432")
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code =
            after.get(..2).and_then(|two| u8::from_str_radix(str::from_utf8(two).ok()?, 16).ok());
        if let (b'%', Some(code)) = (first, code) {
            bytes.push(code);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_by_the_environment() {
        let server = Server::named("postgres://me:p%40ss@db.example:5433").unwrap();
        let variables = server.variables("x");
        let expected = [
            ("PGDATABASE", "x"),
            ("PGHOST", "db.example"),
            ("PGPORT", "5433"),
            ("PGUSER", "me"),
            ("PGPASSWORD", "p@ss"),
        ];
        assert_eq!(variables, expected.map(|(name, value)| (name, value.to_owned())));
        let command = server.program("psql", "x");
        assert!(!command.get_args().any(|arg| arg.to_string_lossy().contains("p@ss")));
        for wrong in ["mysql://h", "nonsense", "/tmp/x.db"] {
            assert!(Server::named(wrong).is_err(), "{wrong}");
        }
    }
}
