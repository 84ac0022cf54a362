//! Naming environments on the command line: by name or id, or by what they are made of.

use clap::Args;
use protocol::{
    api::{
        environments::{EnvironmentBody, EnvironmentHarness, EnvironmentList, EnvironmentView},
        texts::{Lines, Repos},
    },
    spec::{ProviderKind, Repo},
};
use sha2::{Digest, Sha256};

use crate::{client::Client, failure::Failure};

/// The environments of the caller, and the global ones.
pub(crate) const PATH: &str = "/api/v1/environments";

/// What an environment is made of, on the command line.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Ingredients {
    /// The container's image
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// A repository to clone: https://…, git@…, owner/name on GitHub, or a path inside the image; add #REF for
    /// a branch, tag or commit (repeatable)
    #[arg(long, value_name = "URL[#REF]", value_parser = repo)]
    pub repo: Vec<Repo>,
    /// A shell command line that answers the prompt (on its standard input) instead of a provider
    #[arg(long, value_name = "COMMAND")]
    pub command: Option<String>,
    /// A command to run as root after cloning (repeatable)
    #[arg(long, value_name = "COMMAND")]
    pub setup: Vec<String>,
    /// A file to keep when a run ends, `*` and `**` allowed (repeatable)
    #[arg(long, value_name = "PATH")]
    pub artifact: Vec<String>,
}

impl Ingredients {
    pub(crate) fn is_empty(&self) -> bool {
        self.image.is_none()
            && self.repo.is_empty()
            && self.command.is_none()
            && self.setup.is_empty()
            && self.artifact.is_empty()
    }

    /// # Errors
    /// No image is given and none is the default.
    pub(crate) fn body(
        self,
        name: &str,
        default_image: Option<&str>,
    ) -> Result<EnvironmentBody, Failure> {
        let image = self.image.or_else(|| default_image.map(str::to_owned)).ok_or_else(|| {
            Failure::usage("no image is given")
                .hint("name one with --image, such as debian:bookworm-slim")
        })?;
        let harness = self.command.map(|command| EnvironmentHarness {
            kind: Some(ProviderKind::Command),
            command: Some(command),
            ..EnvironmentHarness::default()
        });
        Ok(EnvironmentBody {
            name: name.to_owned(),
            docker_image: image,
            repos: Repos(self.repo),
            setup_commands: Lines(self.setup),
            artifacts: self.artifact,
            harness,
            ..EnvironmentBody::default()
        })
    }
}

/// `URL` or `URL#REF`, for clap.
///
/// # Errors
/// The address is empty.
pub(crate) fn repo(text: &str) -> Result<Repo, String> {
    let (url, reference) = match text.split_once('#') {
        Some((url, reference)) => (url, Some(reference).filter(|r| !r.is_empty())),
        None => (text, None),
    };
    if url.trim().is_empty() {
        return Err("a repository needs an address".to_owned());
    }
    let mut repo = Repo::new(url);
    repo.reference = reference.map(str::to_owned);
    Ok(repo)
}

/// All the caller may use.
///
/// # Errors
/// As [`Client::get`].
pub(crate) async fn list(client: &Client) -> Result<Vec<EnvironmentView>, Failure> {
    Ok(client.get::<EnvironmentList>(PATH, &[]).await?.items)
}

/// The environment with that id, else the only one with that name.
///
/// # Errors
/// None or several have it.
pub(crate) async fn find(client: &Client, wanted: &str) -> Result<EnvironmentView, Failure> {
    let all = list(client).await?;
    if let Some(found) = all.iter().find(|env| env.environment_id.as_str() == wanted) {
        return Ok(found.clone());
    }
    let mut named = all.into_iter().filter(|env| env.name == wanted);
    match (named.next(), named.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err(Failure::usage(format!("there is no environment {wanted:?}"))
            .hint("`ozma env list` shows them, `ozma env create` makes one")),
        (Some(one), Some(two)) => {
            let (one, two) = (one.environment_id, two.environment_id);
            Err(Failure::usage(format!("several environments are named {wanted:?}"))
                .hint(format!("name it by its id: {one}, {two}, …")))
        }
    }
}

/// The environment made of `ingredients`: one of the same content is used again, so that repeating a command
/// does not leave an environment each time.
///
/// # Errors
/// No image is known, or the plane refuses.
pub(crate) async fn ensure(
    client: &Client,
    ingredients: Ingredients,
    default_image: Option<&str>,
) -> Result<EnvironmentView, Failure> {
    let mut body = ingredients.body("", default_image)?;
    body.name = inline_name(&body);
    let same = list(client).await?.into_iter().find(|env| env.name == body.name);
    match same {
        Some(env) => Ok(env),
        None => client.post(PATH, &body).await,
    }
}

/// `cli-` and a digest of everything else in the body.
fn inline_name(body: &EnvironmentBody) -> String {
    let text = serde_json::to_string(body).expect("an environment is plain data");
    format!("cli-{}", &hex::encode(Sha256::digest(text))[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_may_name_its_ref() {
        assert_eq!(repo("acme/shop"), Ok(Repo::new("acme/shop")));
        let at = repo("https://x/y.git#v1.2").unwrap();
        assert_eq!((at.url.as_str(), at.reference.as_deref()), ("https://x/y.git", Some("v1.2")));
        assert!(repo("#main").is_err());
    }

    #[test]
    fn the_same_ingredients_have_the_same_name() {
        let body = |image: &str| {
            let ingredients = Ingredients { image: Some(image.into()), ..Ingredients::default() };
            inline_name(&ingredients.body("", None).unwrap())
        };
        assert_eq!(body("a"), body("a"));
        assert_ne!(body("a"), body("b"));
        assert_eq!(body("a").len(), 16);
        assert_eq!(Ingredients::default().body("x", None).unwrap_err().exit_code, 2);
    }
}
