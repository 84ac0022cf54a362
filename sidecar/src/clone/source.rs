//! What a repository of an environment stands for: an address without secrets, a folder, a ref, a token.

use std::collections::BTreeMap;

use protocol::{secret::Secret, spec::Repo};
use serde::{Deserialize, Serialize};

/// Values tried for GitHub when the repository names none.
const GITHUB_TOKENS: [&str; 2] = ["GITHUB_ACCESS_TOKEN", "GITHUB_TOKEN"];

/// The user name that goes with a token where none is given: GitHub's and GitLab's hosts take any.
const TOKEN_USER: &str = "x-access-token";

/// Longest ref.
const MAX_REF_BYTES: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    /// Without credentials; local paths as `file://`.
    pub(crate) url: String,
    pub(crate) folder: String,
    pub(crate) reference: Option<Reference>,
    /// Commits of history; `None` for all.
    pub(crate) depth: Option<u32>,
    pub(crate) login: Option<Login>,
    pub(crate) submodules: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reference {
    /// A branch or a tag.
    Name(String),
    /// A full commit id.
    Commit(String),
}

/// For one host only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Login {
    /// With its port, if the address has one.
    pub(crate) host: String,
    pub(crate) user: String,
    pub(crate) password: Secret,
}

impl Source {
    /// # Errors
    /// What of the repository cannot be used, in a few words without secrets.
    pub(crate) fn of(repo: &Repo, env: &BTreeMap<String, Secret>) -> Result<Self, String> {
        let folder = repo.folder().to_owned();
        if matches!(folder.as_str(), "" | "." | ".." | ".git") || folder.starts_with('-') {
            return Err(format!("{folder:?} is no name for a folder"));
        }
        let (url, inline) = address(repo.url.trim())?;
        let login = login(repo, env, &url, inline)?;
        let reference = repo.reference.as_deref().map(reference).transpose()?;
        let depth = match repo.depth {
            None => Some(1),
            Some(0) => None,
            depth => depth,
        };
        Ok(Self { url, folder, reference, depth, login, submodules: repo.submodules })
    }

    /// The path of a repository on this machine.
    pub(crate) fn local(&self) -> Option<&str> {
        self.url.strip_prefix("file://")
    }
}

/// The address git is given, and credentials that stood in it.
fn address(url: &str) -> Result<(String, Option<(String, String)>), String> {
    if url.starts_with('-') || url.chars().any(char::is_control) {
        return Err("that is no address".to_owned());
    }
    if url.starts_with('/') {
        return Ok((format!("file://{url}"), None));
    }
    if let Some((scheme, rest)) = url.split_once("://") {
        return match scheme {
            "file" if rest.starts_with('/') => Ok((url.to_owned(), None)),
            // The part before the colon may be shown; a password behind it may not, and ssh takes none.
            "ssh" | "git" if password_in(rest) => Err("its address holds a password".to_owned()),
            "ssh" | "git" => Ok((url.to_owned(), None)),
            "http" | "https" => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                let (inline, host) = match authority.rsplit_once('@') {
                    Some((inline, host)) => (Some(inline), host),
                    None => (None, authority),
                };
                if host.is_empty() {
                    return Err("the address names no host".to_owned());
                }
                // `https://TOKEN@host` is as usual as `https://user:TOKEN@host`.
                let inline = inline.map(|inline| match inline.split_once(':') {
                    Some((user, password)) => (user.to_owned(), password.to_owned()),
                    None => (TOKEN_USER.to_owned(), inline.to_owned()),
                });
                Ok((format!("{scheme}://{host}/{path}"), inline))
            }
            _ => Err(format!("addresses with {scheme}:// are not cloned")),
        };
    }
    // git@host:path, as scp has it; a transport helper (`ext::`) has a second colon.
    if let Some((host, path)) = url.split_once(':') {
        return if host.contains('@') && !path.starts_with(':') {
            Ok((url.to_owned(), None))
        } else {
            Err("that is no address git@host:path".to_owned())
        };
    }
    match url.split('/').collect::<Vec<_>>()[..] {
        [owner, name] if !owner.is_empty() && !name.is_empty() => {
            let name = name.strip_suffix(".git").unwrap_or(name);
            Ok((format!("https://github.com/{owner}/{name}.git"), None))
        }
        _ => Err("that is neither an address, an absolute path, nor owner/name".to_owned()),
    }
}

/// Whether an address, behind its scheme, holds a password.
fn password_in(rest: &str) -> bool {
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

fn login(
    repo: &Repo,
    env: &BTreeMap<String, Secret>,
    url: &str,
    inline: Option<(String, String)>,
) -> Result<Option<Login>, String> {
    let http = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(host) = http.and_then(|rest| rest.split('/').next()) else { return Ok(None) };
    let login = |user: String, password: Secret| Login { host: host.to_owned(), user, password };
    if let Some(name) = &repo.token_env {
        let token = env.get(name).filter(|token| !token.expose().is_empty());
        let token =
            token.ok_or(format!("its token_env {name} is none of the environment's values"))?;
        return Ok(Some(login(TOKEN_USER.to_owned(), token.clone())));
    }
    if let Some((user, password)) = inline {
        return Ok(Some(login(user, Secret::new(password))));
    }
    if host != "github.com" {
        return Ok(None);
    }
    let token = GITHUB_TOKENS.iter().find_map(|name| env.get(*name));
    let token = token.filter(|token| !token.expose().is_empty());
    Ok(token.map(|token| login(TOKEN_USER.to_owned(), token.clone())))
}

fn reference(text: &str) -> Result<Reference, String> {
    let hex = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex {
        return Ok(Reference::Commit(text.to_ascii_lowercase()));
    }
    let bad = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    if text.is_empty()
        || text.len() > MAX_REF_BYTES
        || text.starts_with('-')
        || text.contains("..")
        || text.contains("@{")
        || text.chars().any(bad)
    {
        return Err(format!("{text:?} is neither a branch, a tag, nor a full commit id"));
    }
    Ok(Reference::Name(text.to_owned()))
}

/// An address as it may be shown.
pub(super) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(url: &str, env: &[(&str, &str)]) -> Result<Source, String> {
        let env = env.iter().map(|(name, text)| ((*name).to_owned(), Secret::new(*text))).collect();
        Source::of(&Repo::new(url), &env)
    }

    #[test]
    fn every_form_has_its_address() {
        for (form, url) in [
            ("acme/shop", "https://github.com/acme/shop.git"),
            ("/srv/shop.git", "file:///srv/shop.git"),
            ("file:///srv/shop", "file:///srv/shop"),
            ("git@host.example:acme/shop.git", "git@host.example:acme/shop.git"),
            ("ssh://git@host.example/acme/shop", "ssh://git@host.example/acme/shop"),
            ("https://host.example:8443/a/shop", "https://host.example:8443/a/shop"),
        ] {
            let source = source(form, &[]).unwrap();
            assert_eq!((source.url.as_str(), source.folder.as_str()), (url, "shop"), "{form}");
        }
    }

    #[test]
    fn what_git_might_take_for_something_else_is_refused() {
        for form in [
            "--upload-pack=x/y",
            "ext::sh -c x/y",
            "a",
            "a/b/c",
            "ftp://h/x",
            "/srv/..",
            "https:///x",
            "ssh://me:s3cret@host.example/a/b",
        ] {
            assert!(source(form, &[]).is_err(), "{form}");
        }
        for text in ["-x", "a b", "a..b", "", "HEAD@{1}"] {
            assert!(reference(text).is_err(), "{text}");
        }
        let commit = "A".repeat(40);
        assert_eq!(reference(&commit), Ok(Reference::Commit("a".repeat(40))));
    }

    #[test]
    fn a_token_goes_to_its_own_host_only() {
        let env = [("GITHUB_TOKEN", "t")];
        assert_eq!(source("acme/shop", &env).unwrap().login.unwrap().host, "github.com");
        assert_eq!(source("https://github.com.evil.example/a/b", &env).unwrap().login, None);
        let inline = source("https://me:s3cret@host.example/a/b", &[]).unwrap();
        assert_eq!(inline.url, "https://host.example/a/b");
        assert_eq!(inline.login.unwrap().user, "me");
        assert_eq!(without_credentials("https://me:s@h/a"), "https://h/a");
    }
}
