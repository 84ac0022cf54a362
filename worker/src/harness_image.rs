//! Images with the command line of a provider and nothing else, made on this machine from its npm packages: what a
//! worker mounts into containers whose own image lacks it. npm fetches, under the user's own configuration, and checks
//! what it fetched; the engine never runs any of it.

mod layer;
mod npm;
mod recipe;

use std::{collections::HashMap, path::Path, time::Duration};

use anyhow::Context;
use bollard::{
    body_try_stream,
    query_parameters::{
        CreateImageOptionsBuilder, ListImagesOptionsBuilder, TagImageOptionsBuilder,
    },
};
use futures_util::StreamExt;
use protocol::spec::ProviderKind;

use self::recipe::Recipe;

/// Says which provider's command line an image holds.
pub const LABEL: &str = "ozma.harness";

const LABEL_VERSION: &str = "ozma.harness.version";
/// The packages it was made of, each with its version: the same ones are not fetched again.
const LABEL_PACKAGES: &str = "ozma.harness.packages";

/// How long the engine may take for one image, of half a gigabyte, on a busy machine.
const IMPORT_WITHIN: Duration = Duration::from_mins(15);

/// A harness image of this machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HarnessImage {
    pub provider: ProviderKind,
    /// Of the provider's command line.
    pub version: String,
    /// With a tag that names the version; `ozma-harness-<provider>:latest` is the one made last.
    pub image: String,
    pub id: String,
    pub size_bytes: u64,
    /// The packages, each with its version.
    pub packages: Vec<String>,
    /// It was there already and is the same.
    pub present: bool,
    /// What npm vouches for, one line a package; empty when nothing was fetched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub integrity: Vec<String>,
}

/// What to make, and where.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    pub provider: ProviderKind,
    /// Another version than the one this build was tried with.
    pub version: Option<&'a str>,
    /// Make it although it is there.
    pub again: bool,
    /// Leave `latest` where it is.
    pub beside: bool,
    /// An empty folder that the caller removes; holds the packages for a while, up to half a gigabyte.
    pub scratch: &'a Path,
}

/// The providers whose command lines come as packages.
pub const PROVIDERS: [ProviderKind; 4] =
    [ProviderKind::Claude, ProviderKind::Codex, ProviderKind::Opencode, ProviderKind::Gemini];

/// The name of a provider's harness image, without a tag.
pub fn repository(provider: ProviderKind) -> String {
    format!("ozma-harness-{}", provider.as_str())
}

/// Makes the image, unless one of the same packages is there. `progress` is told what happens, in a few words.
///
/// # Errors
/// The provider has no packages, npm is not there or fails, a package is not what it should be, or the engine
/// refuses. Nothing is tagged then.
pub async fn build(
    host: Option<&str>,
    order: Order<'_>,
    progress: &mut (dyn FnMut(&str) + Send),
) -> anyhow::Result<HarnessImage> {
    let client = crate::backend::connect(host).await?.with_timeout(IMPORT_WITHIN);
    let info = client.info().await.context("ask the container engine about itself")?;
    let recipe = Recipe::of(
        order.provider,
        order.version,
        info.architecture.as_deref().unwrap_or_default(),
    )?;
    let repository = repository(order.provider);
    let image = format!("{repository}:{}", recipe.version);
    let packages: Vec<String> =
        recipe.packages.iter().map(|package| package.spec.clone()).collect();

    if !order.again
        && let Some(found) = inspect(&client, &image).await?
        && found.provider == order.provider
        && found.packages == packages
    {
        tag_latest(&client, order, &image).await?;
        return Ok(found);
    }

    let mut sources = Vec::new();
    let mut integrity = Vec::new();
    for (index, package) in recipe.packages.iter().enumerate() {
        progress(&format!("fetching {}", package.spec));
        let folder = order.scratch.join(index.to_string());
        let fetched = npm::pack(&package.spec, &folder).await?;
        integrity.push(format!("{} {}", package.spec, fetched.integrity));
        sources.push(fetched.file);
    }
    progress(&format!("making {image}"));
    let labels = format!(
        "LABEL {LABEL}={} {LABEL_VERSION}={} {LABEL_PACKAGES}={}",
        order.provider.as_str(),
        recipe.version,
        packages.join(",")
    );
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(&repository)
        .tag(&recipe.version)
        .changes(vec![labels])
        .build();
    let body = body_try_stream(layer::stream(recipe, sources));
    let mut import = std::pin::pin!(client.create_image(Some(options), Some(body), None));
    while let Some(said) = import.next().await {
        said.with_context(|| format!("make image {image}"))?;
    }
    tag_latest(&client, order, &image).await?;
    let made = inspect(&client, &image).await?;
    let made = made.with_context(|| format!("image {image} was made and is not there"))?;
    Ok(HarnessImage { present: false, integrity, ..made })
}

async fn tag_latest(client: &bollard::Docker, order: Order<'_>, image: &str) -> anyhow::Result<()> {
    if order.beside {
        return Ok(());
    }
    let repository = repository(order.provider);
    let options = TagImageOptionsBuilder::new().repo(&repository).tag("latest").build();
    client.tag_image(image, Some(options)).await.with_context(|| format!("tag image {image}"))
}

/// The harness images that are here, by name.
///
/// # Errors
/// No engine answers.
pub async fn list(host: Option<&str>) -> anyhow::Result<Vec<HarnessImage>> {
    let client = crate::backend::connect(host).await?;
    let filters = HashMap::from([("label".to_owned(), vec![LABEL.to_owned()])]);
    let options = ListImagesOptionsBuilder::new().filters(&filters).build();
    let found = client.list_images(Some(options)).await.context("list the images")?;
    let mut images = Vec::new();
    for name in found.iter().flat_map(|found| &found.repo_tags) {
        if !name.starts_with("ozma-harness-") || name.ends_with(":latest") {
            continue;
        }
        images.extend(inspect(&client, name).await?);
    }
    images.sort_by(|a, b| a.image.cmp(&b.image));
    Ok(images)
}

/// The harness image of that name; `None` where there is none.
async fn inspect(client: &bollard::Docker, image: &str) -> anyhow::Result<Option<HarnessImage>> {
    let found = match client.inspect_image(image).await {
        Ok(found) => found,
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("look for image {image}")),
    };
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    let provider = PROVIDERS
        .into_iter()
        .find(|provider| labels.get(LABEL).is_some_and(|label| label == provider.as_str()));
    let Some(provider) = provider else { return Ok(None) };
    let packages = labels.get(LABEL_PACKAGES).map(String::as_str).unwrap_or_default();
    Ok(Some(HarnessImage {
        provider,
        version: labels.get(LABEL_VERSION).cloned().unwrap_or_default(),
        image: image.to_owned(),
        id: found.id.unwrap_or_default(),
        size_bytes: found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        packages: packages.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        present: true,
        integrity: Vec::new(),
    }))
}
