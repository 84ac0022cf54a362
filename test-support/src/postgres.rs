//! A real PostgreSQL: one server for each test process, one database for each test.
//!
//! The server is the one `OZMA_TEST_POSTGRES_URL` names, or a private cluster on a free port of loopback. The
//! private one ends with the test process whatever way that ends.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

mod cluster;

/// The variable that names a running server: `postgres://user@host:port`, with the right to create databases.
pub const URL_VARIABLE: &str = "OZMA_TEST_POSTGRES_URL";

/// The server of this process.
#[derive(Debug)]
pub struct Server {
    /// `postgres://user@host:port`, without a database.
    pub url: String,
    /// Held for the process's life; the cluster stops when it closes.
    _cluster: Option<cluster::Cluster>,
}

/// The server of this process, started by the first caller; the others wait for it.
///
/// # Panics
/// There is no server: the text says what to install.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "tests have no main to read configuration in")]
    SERVER.get_or_init(|| {
        if let Ok(url) = std::env::var(URL_VARIABLE) {
            return Server { url: url.trim_end_matches('/').to_owned(), _cluster: None };
        }
        let cluster = cluster::Cluster::start(false);
        Server { url: cluster.url(), _cluster: Some(cluster) }
    })
}

/// A server of one test's own, which may be killed. What was committed outlives that.
#[derive(Debug)]
pub struct Private(cluster::Cluster);

impl Private {
    /// # Panics
    /// There is no server to start: the text says what to install.
    pub fn start() -> Self {
        Self(cluster::Cluster::start(true))
    }

    /// Where it listens now; another port after each start.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.0.port()).into()
    }

    /// SIGKILL for the server and all its processes.
    pub fn kill(&mut self) {
        self.0.kill();
    }

    /// Starts it again after a kill, and waits until it takes connections.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_again(&mut self) {
        self.0.start_again();
    }
}

/// A database of one test's own, dropped with this value.
#[derive(Debug)]
pub struct Database {
    /// `postgres://user@host:port/name`.
    pub url: String,
    name: String,
}

/// An empty database.
///
/// # Panics
/// The server does not answer or does not let us create one.
pub async fn database() -> Database {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let server = server();
    let name = format!(
        "ozma_test_{}_{}_{:08x}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed),
        getrandom::u32().expect("the system gives random numbers"),
    );
    execute(&server.url, format!("create database {name}")).await;
    Database { url: format!("{}/{name}", server.url), name }
}

async fn execute(server: &str, statement: String) {
    let mut connection = PgConnection::connect(&format!("{server}/postgres"))
        .await
        .expect("the test's PostgreSQL answers");
    connection
        .execute(sqlx::query(AssertSqlSafe(statement)))
        .await
        .expect("the test's PostgreSQL lets us create and drop databases");
    connection.close().await.expect("the connection closes");
}

impl Drop for Database {
    /// On a thread and runtime of its own: a drop cannot wait on the test's.
    fn drop(&mut self) {
        let statement = format!("drop database if exists {} with (force)", self.name);
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime starts");
            runtime.block_on(execute(&server().url, statement));
        })
        .join();
        assert!(dropped.is_ok() || std::thread::panicking(), "a test database stayed behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_tests_have_two_databases() {
        let (one, other) = (database().await, database().await);
        assert_ne!(one.url, other.url);
        for database in [&one, &other] {
            let mut connection = PgConnection::connect(&database.url).await.unwrap();
            connection.execute("create table mine (id bigint)").await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_a_killed_server_had_committed_is_there_again() {
        let mut server = Private::start();
        let url = |server: &Private| format!("postgres://ozma@{}/postgres", server.addr());
        let mut connection = PgConnection::connect(&url(&server)).await.unwrap();
        connection.execute("create table mine (id bigint)").await.unwrap();
        connection.execute("insert into mine values (7)").await.unwrap();
        server.kill();
        assert!(connection.execute("insert into mine values (8)").await.is_err());
        server.start_again();
        let mut connection = PgConnection::connect(&url(&server)).await.unwrap();
        let ids: Vec<i64> =
            sqlx::query_scalar("select id from mine").fetch_all(&mut connection).await.unwrap();
        assert_eq!(ids, [7]);
    }

    #[tokio::test]
    async fn a_database_goes_with_its_test_even_when_somebody_is_connected() {
        let database = database().await;
        let url = database.url.clone();
        let _open = PgConnection::connect(&url).await.unwrap();
        drop(database);
        assert!(PgConnection::connect(&url).await.is_err());
    }
}
