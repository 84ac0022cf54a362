//! Cloning without a git binary: over http and https by gix, from this machine by copying.
//! Runs in a child of its own. Submodules and ssh need the image's git (or its ssh).

use std::{
    num::NonZeroU32,
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use gix::{
    clone::PrepareFetch, progress::Discard, protocol::transport::client::blocking_io::http,
    remote::fetch::Shallow,
};
use reqwest::header::{AUTHORIZATION, HeaderValue};

use super::{
    gitless_local,
    gitless_tree::chain,
    job::Job,
    source::{Login, Reference},
};

/// Clones and checks out; the commit, empty for a repository without one.
pub(crate) fn clone(job: &Job) -> Result<String, String> {
    let source = &job.source;
    if source.submodules {
        return Err("submodules need a git in the image".to_owned());
    }
    match source.local() {
        Some(path) => gitless_local::clone(Path::new(path), source, &job.path),
        None => remote(job).map_err(|error| chain(&*error)),
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn remote(job: &Job) -> Result<String, Failure> {
    let source = &job.source;
    // Nothing of the image's configuration counts: no helpers, no rewritten addresses.
    let options = gix::open::Options::isolated();
    let kind = gix::create::Kind::WithWorktree;
    let create = gix::create::Options::default();
    let mut clone = PrepareFetch::new(source.url.as_str(), &job.path, kind, create, options)?;
    if let Some(depth) = source.depth.and_then(NonZeroU32::new) {
        clone = clone.with_shallow(Shallow::DepthAtRemote(depth));
    }
    clone = match &source.reference {
        None => clone,
        Some(Reference::Name(name)) => clone.with_ref_name(Some(name.as_str()))?,
        Some(Reference::Commit(commit)) => clone.with_revision(Some(commit.as_str()))?,
    };
    let tls = harness::tls::client_config(job.extra_ca.as_deref())?;
    let login = source.login.as_ref().map(authorization).transpose()?;
    clone = clone.configure_connection(move |connection| {
        let (tls, login) = (tls.clone(), login.clone());
        let backend = http::reqwest::Options {
            configure_client: Some(Box::new(move |client| {
                Ok(client.tls_backend_preconfigured(tls.clone()))
            })),
            configure_request: login.map(|(host, value)| {
                let add = move |request: &mut reqwest::blocking::Request| {
                    // The transport may have been sent elsewhere; the token goes to its own host only.
                    if authority(request.url()) == host {
                        request.headers_mut().insert(AUTHORIZATION, value.clone());
                    }
                    Ok(())
                };
                Box::new(add) as Box<http::reqwest::ConfigureRequestFn>
            }),
        };
        let options = http::Options {
            backend: Some(Arc::new(Mutex::new(backend))),
            ssl_verify: true,
            user_agent: Some(concat!("git/ozma-", env!("CARGO_PKG_VERSION")).to_owned()),
            ..http::Options::default()
        };
        connection.set_transport_options(Box::new(options));
        // Without a token nobody is to be asked for one.
        connection.set_credentials(|_| Ok(None));
        Ok(())
    });
    let never = AtomicBool::new(false);
    let (mut checkout, _) = clone.fetch_then_checkout(Discard, &never)?;
    let (repository, _) = checkout.main_worktree(Discard, &never)?;
    Ok(repository.head_id().map(|id| id.to_string()).unwrap_or_default())
}

/// The host a login is for, and what it is sent as.
fn authorization(login: &Login) -> Result<(String, HeaderValue), Failure> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let pair = format!("{}:{}", login.user, login.password.expose());
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair)))?;
    value.set_sensitive(true);
    Ok((login.host.clone(), value))
}

fn authority(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
