//! Configuration files: TOML, a misspelt key is an error that names it.

use std::path::Path;

use anyhow::Context;
use serde::de::DeserializeOwned;

/// Reads a TOML file into `T`, which should deny unknown fields.
///
/// # Errors
/// The file cannot be read, or does not have the form of `T`; the text names the file, line and key.
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the configuration file {}", path.display()))?;
    toml::from_str(&text)
        .with_context(|| format!("understand the configuration file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        #[expect(dead_code, reason = "only its presence matters")]
        port: u16,
    }

    #[test]
    fn a_misspelt_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ozma.toml");
        std::fs::write(&path, "prot = 8080\n").unwrap();
        let error = format!("{:#}", read_toml::<Settings>(&path).unwrap_err());
        assert!(error.contains("prot") && error.contains("ozma.toml"), "{error}");
    }
}
