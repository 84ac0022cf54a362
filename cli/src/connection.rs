//! Which plane, as whom: `--url`/`--token`, then `OZMA_URL`/`OZMA_TOKEN`, then the context file.

use clap::{
    Args,
    builder::{StringValueParser, TypedValueParser},
};
use protocol::secret::Secret;

use crate::{
    context::{self, Context},
    failure::Failure,
    surroundings::Surroundings,
};

/// Where `ozma up` listens when nothing else is said.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Which plane.
#[derive(Debug, Clone, Default, Args)]
struct Address {
    #[arg(
        help = "The plane's address, such as http://127.0.0.1:8080",
        long,
        global = true,
        env = "OZMA_URL",
        value_name = "URL"
    )]
    pub url: Option<String>,
}

/// The options of every command that talks to a plane.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Connection {
    #[command(flatten)]
    plane: Address,
    /// The tenant's token; better in `OZMA_TOKEN` or the context file, where other users cannot see it
    #[arg(long, global = true, env = "OZMA_TOKEN", hide_env_values = true, value_name = "TOKEN", value_parser = secret())]
    pub token: Option<Secret>,
}

/// The options of the commands that need the admin key.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AdminConnection {
    #[command(flatten)]
    plane: Address,
    /// The admin key; without it, the file that `ozma up` noted in the context
    #[arg(long, global = true, env = "OZ_ADMIN_API_KEY", hide_env_values = true, value_name = "KEY", value_parser = secret())]
    pub token: Option<Secret>,
}

/// A plane and a token for it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Without a slash at the end and without `/api/v1`.
    pub url: String,
    pub token: Secret,
}

impl Connection {
    /// # Errors
    /// Nothing names a plane or a token, or the context file cannot be read.
    pub(crate) fn target(&self, around: &Surroundings) -> Result<Target, Failure> {
        let context = context::read(around)?;
        let (url, known) = place(self.plane.url.as_deref(), context.as_ref())?;
        // A token is for one plane: the context's is never sent to another.
        let token = given(self.token.as_ref()).or_else(|| known.map(|c| c.token.clone()));
        match token {
            Some(token) => Ok(Target { url, token }),
            None if self.plane.url.is_none() => Err(Failure::usage("no plane is known").hint(
                "start one with `ozma up`, or say where it is with --url and --token, or `ozma login`",
            )),
            None => Err(Failure::usage(format!("no token for {url}"))
                .hint("give one with --token or OZMA_TOKEN, or keep it with `ozma login`")),
        }
    }
}

impl AdminConnection {
    /// # Errors
    /// As [`Connection::target`]; also when the noted key file cannot be read.
    pub(crate) fn target(&self, around: &Surroundings) -> Result<Target, Failure> {
        let context = context::read(around)?;
        let (url, known) = place(self.plane.url.as_deref(), context.as_ref())?;
        if let Some(token) = given(self.token.as_ref()) {
            return Ok(Target { url, token });
        }
        let Some(file) = known.and_then(|context| context.admin_key_file.as_ref()) else {
            return Err(Failure::usage(format!("no admin key for {url}")).hint(
                "give it with --token or OZ_ADMIN_API_KEY; `ozma serve` prints where its file is",
            ));
        };
        let key = std::fs::read_to_string(file).map_err(|error| {
            Failure::platform(format!("cannot read the admin key {}: {error}", file.display()))
                .hint(
                    "run this as the user who ran `ozma up`, or give the key with OZ_ADMIN_API_KEY",
                )
        })?;
        Ok(Target { url, token: Secret::new(key.trim()) })
    }
}

/// A secret on the command line or in the environment, for clap.
pub(crate) fn secret() -> impl TypedValueParser<Value = Secret> {
    StringValueParser::new().map(Secret::new)
}

fn given(token: Option<&Secret>) -> Option<Secret> {
    token.filter(|token| !token.expose().trim().is_empty()).map(|t| Secret::new(t.expose().trim()))
}

/// The plane's address, and the context if it speaks of that plane.
fn place<'a>(
    url: Option<&str>,
    context: Option<&'a Context>,
) -> Result<(String, Option<&'a Context>), Failure> {
    match (url.filter(|url| !url.is_empty()), context) {
        (Some(url), context) => {
            let url = root(url)?;
            let known = context.filter(|context| context.url == url);
            Ok((url, known))
        }
        (None, Some(context)) => Ok((root(&context.url)?, Some(context))),
        (None, None) => Ok((DEFAULT_URL.to_owned(), None)),
    }
}

/// The plane's root of an address that may end in slashes or `/api/v1`.
///
/// # Errors
/// It is no http or https address, or carries a password.
pub(crate) fn root(url: &str) -> Result<String, Failure> {
    let parsed = reqwest::Url::parse(url).ok().filter(|parsed| {
        matches!(parsed.scheme(), "http" | "https")
            && parsed.has_host()
            && parsed.username().is_empty()
            && parsed.password().is_none()
    });
    if parsed.is_none() {
        return Err(Failure::usage("the plane's address is not understood")
            .hint(format!("write it like {DEFAULT_URL} or https://ozma.example.org")));
    }
    let trimmed = url.trim_end_matches('/');
    Ok(trimmed.strip_suffix("/api/v1").unwrap_or(trimmed).trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(folder: &std::path::Path) -> Surroundings {
        let around =
            Surroundings { config_home: Some(folder.to_owned()), ..Surroundings::default() };
        let context = Context::of("http://127.0.0.1:9".to_owned(), Secret::new("from the context"));
        context::write(&around, &context).unwrap();
        around
    }

    #[test]
    fn the_contexts_token_goes_to_the_contexts_plane_only() {
        let folder = tempfile::tempdir().unwrap();
        let around = around(folder.path());
        let with = |url: Option<&str>, token: Option<&str>| {
            let connection = Connection {
                plane: Address { url: url.map(str::to_owned) },
                token: token.map(Secret::new),
            };
            connection.target(&around)
        };
        let from_context = with(None, None).unwrap();
        assert_eq!(from_context.url, "http://127.0.0.1:9");
        assert_eq!(from_context.token.expose(), "from the context");
        assert_eq!(
            with(Some("http://127.0.0.1:9/api/v1/"), None).unwrap().token.expose(),
            "from the context"
        );
        assert_eq!(with(Some("http://other"), None).unwrap_err().exit_code, 2);
        assert_eq!(with(Some("http://other"), Some(" t\n")).unwrap().token.expose(), "t");
    }

    #[test]
    fn an_address_is_http_and_has_no_password() {
        for bad in ["", "localhost:8080", "ftp://x", "http://u:p@x"] {
            assert!(root(bad).is_err(), "{bad} was taken");
        }
        assert_eq!(root("https://x/oz/api/v1/").unwrap(), "https://x/oz");
    }
}
