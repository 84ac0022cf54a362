//! Which packages a provider's command line is made of, and where their files go. Pure.

use protocol::{sidecar::HARNESS_MOUNT, spec::ProviderKind};

/// A package and which of its files are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// Name and version, as npm takes it.
    pub spec: String,
    /// The rules, the first that fits counts; a file that fits none is left out.
    pub rules: Vec<Rule>,
}

/// A file, or a folder with everything below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// Below the package's root, without a slash at the end.
    pub from: &'static str,
    /// Below the image's folder; `None` leaves it out.
    pub to: Option<&'static str>,
}

/// A script of ours beside the package's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Script {
    pub path: &'static str,
    pub text: &'static str,
}

/// One provider's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe {
    pub version: String,
    pub packages: Vec<Package>,
    pub script: Option<Script>,
    /// Where in the image everything is, without a slash at either end: a volume that is mounted there is filled by
    /// the engine.
    pub folder: String,
    /// What must be there in the end, below the folder.
    pub program: &'static str,
}

/// Finds itself by the name it was started by, which the kernel makes a path; knows no other `node`.
const GEMINI: &str = "\
#!/bin/sh
here=${0%/*}
exec \"$here/../lib/node/bin/node\" \"$here/../lib/gemini/bundle/gemini.js\" \"$@\"
";

/// What this build was tried with.
const CLAUDE_VERSION: &str = "2.1.329";
const CODEX_VERSION: &str = "0.169.0";
const OPENCODE_VERSION: &str = "1.18.33";
const GEMINI_VERSION: &str = "0.61.0";
const NODE_VERSION: &str = "22.23.3";

fn take(from: &'static str, to: &'static str) -> Rule {
    Rule { from, to: Some(to) }
}

fn leave(from: &'static str) -> Rule {
    Rule { from, to: None }
}

impl Recipe {
    /// # Errors
    /// The provider has no packages, none for this architecture, or the version is no version.
    pub(super) fn of(
        provider: ProviderKind,
        version: Option<&str>,
        architecture: &str,
    ) -> anyhow::Result<Self> {
        let (cpu, triple) = match architecture {
            "x86_64" | "amd64" => ("x64", "vendor/x86_64-unknown-linux-musl"),
            "aarch64" | "arm64" => ("arm64", "vendor/aarch64-unknown-linux-musl"),
            other => anyhow::bail!("there is no command line for {other:?} machines"),
        };
        let version = |default: &str| -> anyhow::Result<String> {
            let version = version.unwrap_or(default);
            anyhow::ensure!(
                is_version(version),
                "{version:?} is no exact version, as in {default}"
            );
            Ok(version.to_owned())
        };
        let (version, packages, script, program) = match provider {
            ProviderKind::Claude => {
                let version = version(CLAUDE_VERSION)?;
                let spec = format!("@anthropic-ai/claude-code-linux-{cpu}@{version}");
                let rules = vec![take("claude", "bin/claude"), take("LICENSE.md", "LICENSE.md")];
                (version, vec![Package { spec, rules }], None, "bin/claude")
            }
            ProviderKind::Codex => {
                let version = version(CODEX_VERSION)?;
                let spec = format!("@openai/codex@{version}-linux-{cpu}");
                let rules = vec![leave(voice(triple)), take(triple, "")];
                (version, vec![Package { spec, rules }], None, "bin/codex")
            }
            ProviderKind::Opencode => {
                let version = version(OPENCODE_VERSION)?;
                let spec = format!("opencode-linux-{cpu}@{version}");
                let rules = vec![take("bin/opencode", "bin/opencode")];
                (version, vec![Package { spec, rules }], None, "bin/opencode")
            }
            ProviderKind::Gemini => {
                let version = version(GEMINI_VERSION)?;
                let cli = Package {
                    spec: format!("@google/gemini-cli@{version}"),
                    rules: vec![take("", "lib/gemini")],
                };
                let node = Package {
                    spec: format!("node-linux-{cpu}@{NODE_VERSION}"),
                    rules: vec![
                        take("bin/node", "lib/node/bin/node"),
                        take("LICENSE", "lib/node/LICENSE"),
                    ],
                };
                let script = Script { path: "bin/gemini", text: GEMINI };
                (version, vec![cli, node], Some(script), "lib/gemini/bundle/gemini.js")
            }
            ProviderKind::Agent | ProviderKind::Command => {
                anyhow::bail!("{} has no command line to fetch", provider.as_str())
            }
        };
        let folder = format!("{}/{}", HARNESS_MOUNT.trim_start_matches('/'), provider.as_str());
        Ok(Self { version, packages, script, folder, program })
    }
}

/// Libraries for speech, of no use in a container.
fn voice(triple: &str) -> &'static str {
    if triple.contains("aarch64") {
        "vendor/aarch64-unknown-linux-musl/codex-resources/voice"
    } else {
        "vendor/x86_64-unknown-linux-musl/codex-resources/voice"
    }
}

/// An exact version, and nothing npm would take for an address, a path or a tag.
fn is_version(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_digit())
        && text.contains('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

impl Package {
    /// Where a file of the package goes below the image's folder; `None` for one that is left out.
    pub(super) fn target(&self, path: &str) -> Option<String> {
        for rule in &self.rules {
            let rest = if rule.from.is_empty() {
                Some(path)
            } else {
                match path.strip_prefix(rule.from) {
                    Some("") => Some(""),
                    Some(below) => below.strip_prefix('/'),
                    None => None,
                }
            };
            let Some(rest) = rest else { continue };
            let to = rule.to?;
            return Some(match (to, rest) {
                ("", rest) => rest.to_owned(),
                (to, "") => to.to_owned(),
                (to, rest) => format!("{to}/{rest}"),
            });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_with_packages_has_a_recipe_on_both_architectures() {
        for provider in super::super::PROVIDERS {
            for (architecture, cpu) in [("x86_64", "linux-x64"), ("aarch64", "linux-arm64")] {
                let recipe = Recipe::of(provider, None, architecture).unwrap();
                assert!(recipe.packages.iter().any(|package| package.spec.contains(cpu)));
                assert_eq!(recipe.folder, format!("harness/{}", provider.as_str()));
            }
        }
        assert!(Recipe::of(ProviderKind::Agent, None, "x86_64").is_err());
        assert!(Recipe::of(ProviderKind::Claude, None, "riscv64").is_err());
    }

    #[test]
    fn a_version_is_exact_and_nothing_else() {
        let of = |version| Recipe::of(ProviderKind::Codex, Some(version), "x86_64");
        assert_eq!(of("0.170.0").unwrap().packages[0].spec, "@openai/codex@0.170.0-linux-x64");
        for bad in ["latest", "^1.0.0", "1", "file:../x", "1.0.0 -g", "1.0/../../x", "", "--x"] {
            assert!(of(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn files_go_where_the_rules_say() {
        let codex = &Recipe::of(ProviderKind::Codex, None, "x86_64").unwrap().packages[0];
        let target = |path: &str| codex.target(path);
        let root = "vendor/x86_64-unknown-linux-musl";
        assert_eq!(target(&format!("{root}/bin/codex")).as_deref(), Some("bin/codex"));
        assert_eq!(target(&format!("{root}/codex-path/rg")).as_deref(), Some("codex-path/rg"));
        assert_eq!(target(&format!("{root}/codex-resources/voice/lib/x.so")), None);
        assert_eq!(target("README.md"), None);
        assert_eq!(target(&format!("{root}-more/bin/codex")), None);
        let gemini = &Recipe::of(ProviderKind::Gemini, None, "x86_64").unwrap().packages;
        assert_eq!(gemini[0].target("package.json").as_deref(), Some("lib/gemini/package.json"));
        assert_eq!(gemini[1].target("include/node/node.h"), None);
    }
}
