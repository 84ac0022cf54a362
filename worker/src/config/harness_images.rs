//! Which images hold the command lines of providers, for task images that do not have them.

use protocol::spec::ProviderKind;
use serde::Deserialize;

/// Images by provider. One without a name is `ozma-harness-<provider>:latest`, used if it is there; an empty name
/// is no image; any other has to be had, by the policy for pulling.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HarnessImages {
    pub claude: Option<String>,
    pub codex: Option<String>,
    pub opencode: Option<String>,
    pub gemini: Option<String>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HarnessImage {
    pub(crate) name: String,
    /// An operator asked for it.
    pub(crate) is_named: bool,
}

impl HarnessImages {
    pub(crate) fn of(&self, provider: ProviderKind) -> Option<HarnessImage> {
        let named = match provider {
            ProviderKind::Claude => &self.claude,
            ProviderKind::Codex => &self.codex,
            ProviderKind::Opencode => &self.opencode,
            ProviderKind::Gemini => &self.gemini,
            ProviderKind::Agent | ProviderKind::Command => return None,
        };
        match named.as_deref().map(str::trim) {
            Some("") => None,
            Some(name) => Some(HarnessImage { name: name.to_owned(), is_named: true }),
            None => {
                let name = format!("ozma-harness-{}:latest", provider.as_str());
                Some(HarnessImage { name, is_named: false })
            }
        }
    }

    pub(crate) fn all(&self) -> Vec<(ProviderKind, HarnessImage)> {
        let kinds = [
            ProviderKind::Claude,
            ProviderKind::Codex,
            ProviderKind::Opencode,
            ProviderKind::Gemini,
        ];
        kinds.into_iter().filter_map(|kind| Some((kind, self.of(kind)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_usual_or_none() {
        let images: HarnessImages =
            toml::from_str("codex = \"registry.example/codex:1\"\ngemini = \"\"").unwrap();
        let of = |kind| images.of(kind).map(|image| (image.name, image.is_named));
        assert_eq!(
            of(ProviderKind::Claude),
            Some(("ozma-harness-claude:latest".to_owned(), false))
        );
        assert_eq!(of(ProviderKind::Codex), Some(("registry.example/codex:1".to_owned(), true)));
        assert_eq!(of(ProviderKind::Gemini), None);
        assert_eq!(of(ProviderKind::Agent), None);
        assert_eq!(images.all().len(), 3);
    }
}
