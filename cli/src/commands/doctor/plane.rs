//! What a plane needs here: the port, the database, the tokens; and the plane of the context, if it runs.

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use protocol::{api::runs::RunList, secret::Secret};

use super::Check;
use crate::{
    client::Client,
    connection::Target,
    context::{self, Context},
    surroundings::Surroundings,
};

/// How long a plane may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) async fn checks(
    around: &Surroundings,
    data_dir: &Path,
    listen: SocketAddr,
) -> Vec<Check> {
    let context = context::read(around);
    let noted = context.as_ref().ok().and_then(Option::as_ref);
    let mut checks = vec![port(listen).await, database(data_dir)];
    checks.push(match &context {
        Err(error) => Check::fail(
            "context",
            format!("{error:#}"),
            "remove the file; `ozma up` and `ozma login` write it anew",
        ),
        Ok(None) => Check::warn(
            "context",
            "no plane is known",
            "`ozma up` starts one and notes it, `ozma login` notes another",
        ),
        Ok(Some(noted)) => reachable(noted).await,
    });
    if let Some(noted) = noted {
        checks.push(token(noted).await);
    }
    checks.extend(private(around, data_dir, noted));
    checks
}

async fn port(listen: SocketAddr) -> Check {
    let Err(error) = TcpListener::bind(listen) else {
        return Check::pass("port", format!("{listen} is free"));
    };
    let target = Target { url: format!("http://{listen}"), token: Secret::default() };
    let ours = match Client::new(&target) {
        Ok(client) => client.healthy(PATIENCE).await,
        Err(_) => false,
    };
    if ours {
        return Check::pass("port", format!("a plane answers on {listen}"));
    }
    Check::fail(
        "port",
        format!("{listen}: {error}"),
        "stop what listens there, or give `ozma up` another address with --listen",
    )
}

fn database(data_dir: &Path) -> Check {
    let file = data_dir.join("ozma.db");
    // The nearest folder that is there has to let us make the rest.
    let there = data_dir.ancestors().find(|folder| folder.exists()).unwrap_or(data_dir);
    let writable = tempfile::Builder::new().prefix(".ozma-doctor-").tempfile_in(there);
    if let Err(error) = writable {
        return Check::fail(
            "database",
            format!("{} cannot be written: {error}", there.display()),
            "name another folder with --data-dir, or make this one writable",
        );
    }
    match std::fs::metadata(&file) {
        Ok(meta) => {
            let size = crate::text::size(meta.len());
            Check::pass("database", format!("SQLite, {} ({size})", file.display()))
        }
        Err(_) => Check::pass("database", format!("SQLite, to be made in {}", data_dir.display())),
    }
}

async fn reachable(noted: &Context) -> Check {
    let target = Target { url: noted.url.clone(), token: noted.token.clone() };
    let there = match Client::new(&target) {
        Ok(client) => client.healthy(PATIENCE).await,
        Err(_) => false,
    };
    if there {
        Check::pass("context", format!("the plane at {} answers, its database too", noted.url))
    } else {
        Check::warn(
            "context",
            format!("the plane at {} does not answer", noted.url),
            "start it (`ozma up`), or note another with `ozma login`",
        )
    }
}

async fn token(noted: &Context) -> Check {
    let target = Target { url: noted.url.clone(), token: noted.token.clone() };
    let client = match Client::new(&target) {
        Ok(client) => client,
        Err(failure) => return Check::fail("token", failure.message, "`ozma login`"),
    };
    let asked = client.get::<RunList>("/api/v1/agent/runs", &[("limit", "1".to_owned())]).await;
    match asked {
        Ok(_) => Check::pass("token", "the plane takes the token of the context"),
        Err(failure) if failure.status.is_none() => Check::warn(
            "token",
            "not tried, since the plane does not answer",
            "look again when it runs",
        ),
        Err(failure) => {
            Check::fail("token", failure.message, "keep the right one with `ozma login`")
        }
    }
}

/// Files with secrets in them are their owner's alone.
fn private(around: &Surroundings, data_dir: &Path, noted: Option<&Context>) -> Option<Check> {
    let mut files = vec![data_dir.join("encryption.key"), data_dir.join("tenant.token")];
    files.push(data_dir.join("admin.key"));
    files.extend(noted.and_then(|noted| noted.admin_key_file.clone()));
    files.extend(context::path(around));
    files.sort();
    files.dedup();
    let there: Vec<_> = files
        .iter()
        .filter_map(|file| Some((file, std::fs::metadata(file).ok()?.permissions().mode())))
        .collect();
    if there.is_empty() {
        return None;
    }
    let open: Vec<String> = there
        .iter()
        .filter(|(_, mode)| mode & 0o077 != 0)
        .map(|(file, _)| file.display().to_string())
        .collect();
    Some(if open.is_empty() {
        Check::pass("secrets", format!("{} files, readable by their owner only", there.len()))
    } else {
        let files = open.join(" ");
        Check::fail("secrets", format!("others can read {files}"), format!("chmod 600 {files}"))
    })
}
