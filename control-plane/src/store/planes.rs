//! Wake-ups between planes over `PostgreSQL`'s LISTEN and NOTIFY. `SQLite` has one plane and needs none.

use std::collections::HashSet;

use sqlx::postgres::PgListener;

use super::{Db, Store, StoreError};

/// The most a notification holds is 8000 bytes.
const MAX_PAYLOAD: usize = 7_900;

impl Store {
    /// Tells the other planes the names of what changed; the first line is who speaks.
    pub(crate) async fn tell_planes(
        &self,
        channel: &str,
        plane: &str,
        names: &HashSet<String>,
    ) -> Result<(), StoreError> {
        let Db::Postgres(pool) = self.db() else { return Ok(()) };
        let mut payload = plane.to_owned();
        for name in names {
            if payload.len() + 1 + name.len() > MAX_PAYLOAD {
                notify(pool, channel, &payload).await?;
                plane.clone_into(&mut payload);
            }
            payload.push('\n');
            payload.push_str(name);
        }
        notify(pool, channel, &payload).await
    }

    /// Hands every notification to `heard`; returns only when the connection is lost. On `SQLite`, never.
    pub(crate) async fn hear_planes(
        &self,
        channel: &str,
        heard: impl Fn(&str),
    ) -> Result<std::convert::Infallible, StoreError> {
        let Db::Postgres(pool) = self.db() else { return std::future::pending().await };
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(channel).await?;
        loop {
            heard(listener.recv().await?.payload());
        }
    }
}

async fn notify(pool: &sqlx::PgPool, channel: &str, payload: &str) -> Result<(), StoreError> {
    sqlx::query("select pg_notify($1, $2)").bind(channel).bind(payload).execute(pool).await?;
    Ok(())
}
