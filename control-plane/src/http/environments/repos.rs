//! What a repository's address may look like. Credentials have no place in it: an address is shown and logged.

use std::collections::HashSet;

use protocol::spec::Repo;

use crate::http::{error::ApiError, forms};

const MAX_REPOS: usize = 50;
const MAX_URL_BYTES: usize = 2_048;
const MAX_REF_BYTES: usize = 255;
const MAX_DEPTH: u32 = 1_000_000;

pub(super) fn repos(repos: Vec<Repo>) -> Result<Vec<Repo>, ApiError> {
    if repos.len() > MAX_REPOS {
        return Err(ApiError::invalid("repos", format!("at most {MAX_REPOS} repositories")));
    }
    let mut folders = HashSet::new();
    for (at, repo) in repos.iter().enumerate() {
        check(at, repo)?;
        if !folders.insert(repo.folder()) {
            let rule = format!("would be cloned into {:?}, as another one", repo.folder());
            return Err(ApiError::invalid(format!("repos[{at}].url"), rule));
        }
    }
    Ok(repos)
}

fn check(at: usize, repo: &Repo) -> Result<(), ApiError> {
    address(&repo.url).map_err(|rule| ApiError::invalid(format!("repos[{at}].url"), rule))?;
    if let Some(reference) = &repo.reference
        && !is_reference(reference)
    {
        let rule = "must be a branch, a tag or a full commit id";
        return Err(ApiError::invalid(format!("repos[{at}].ref"), rule));
    }
    if repo.depth.is_some_and(|depth| depth > MAX_DEPTH) {
        let rule = format!("must be 0 to {MAX_DEPTH}");
        return Err(ApiError::invalid(format!("repos[{at}].depth"), rule));
    }
    match &repo.token_env {
        Some(name) if !forms::is_variable(name) => {
            let rule = "must be the name of a value in env_vars";
            Err(ApiError::invalid(format!("repos[{at}].token_env"), rule))
        }
        _ => Ok(()),
    }
}

/// One of the known forms, and none that a git program reads as an option or a helper to run.
fn address(url: &str) -> Result<(), String> {
    if url.is_empty() || url.len() > MAX_URL_BYTES {
        return Err(format!("must be 1 to {MAX_URL_BYTES} bytes"));
    }
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("must not contain blanks".to_owned());
    }
    let folder = Repo::new(url);
    if matches!(folder.folder(), "" | "." | "..") {
        return Err("must end with the repository's name".to_owned());
    }
    if let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) {
        let host = rest.split('/').next().unwrap_or_default();
        if host.contains('@') {
            return Err(
                "must not hold credentials: put the token into env_vars and name it in token_env"
                    .to_owned(),
            );
        }
        return if host.is_empty() { Err(forms_of_addresses()) } else { Ok(()) };
    }
    if let Some(rest) = url.strip_prefix("ssh://") {
        let user =
            rest.split('/').next().unwrap_or_default().rsplit_once('@').map(|(user, _)| user);
        if user.is_some_and(|user| user.contains(':')) {
            return Err("must not hold a password".to_owned());
        }
        return Ok(());
    }
    let known =
        url.starts_with("file:///") || url.starts_with('/') || is_scp(url) || is_github(url);
    if known { Ok(()) } else { Err(forms_of_addresses()) }
}

fn forms_of_addresses() -> String {
    "must be https://…, ssh://…, git@host:…, file:///…, an absolute path, or owner/name for GitHub"
        .to_owned()
}

/// `git@host:path`
fn is_scp(url: &str) -> bool {
    let Some((place, path)) = url.split_once(':') else { return false };
    let Some((user, host)) = place.split_once('@') else { return false };
    let plain = |text: &str| {
        !text.is_empty()
            && !text.starts_with('-')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    plain(user) && plain(host) && !path.is_empty() && !path.starts_with([':', '-'])
}

/// `owner/name`
pub(super) fn is_github(url: &str) -> bool {
    let plain = |text: &str| {
        !text.is_empty()
            && !text.starts_with(['-', '.'])
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    url.split_once('/').is_some_and(|(owner, name)| plain(owner) && plain(name))
}

fn is_reference(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_REF_BYTES
        && !text.starts_with('-')
        && !text.contains("..")
        && !text.chars().any(|c| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_forms_pass_and_helpers_options_and_credentials_do_not() {
        for good in [
            "https://github.com/acme/shop.git",
            "http://git.internal:3000/a/b",
            "ssh://git@host:22/a/b.git",
            "git@github.com:acme/shop.git",
            "file:///srv/x.git",
            "/srv/x.git",
            "acme/shop",
        ] {
            assert_eq!(address(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "ext::sh -c touch% /tmp/x",
            "ext::sh",
            "--upload-pack=x",
            "-oProxyCommand=x",
            "git@host:-x",
            "https://user:secret@github.com/a/b",
            "https://token@github.com/a/b",
            "ssh://u:p@host/a",
            "a/b/c",
            "../x",
            "/",
            "https://",
        ] {
            assert!(address(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn two_repositories_do_not_share_a_folder() {
        let twice = vec![Repo::new("acme/shop"), Repo::new("other/shop")];
        assert!(repos(twice).is_err());
    }
}
