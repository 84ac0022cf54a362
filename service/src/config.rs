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
        .map_err(|error| anyhow::anyhow!(without_what_was_found(&error, &text)))
        .with_context(|| format!("understand the configuration file {}", path.display()))
}

/// The error without the line it is about, and without the value: both may be a key.
fn without_what_was_found(error: &toml::de::Error, text: &str) -> String {
    let message = error.message();
    let wanted = message.split_once(", expected").filter(|_| message.starts_with("invalid"));
    let message = wanted.map_or_else(
        || message.to_owned(),
        |(_, wanted)| format!("a value of the wrong kind, expected{wanted}"),
    );
    let Some(span) = error.span() else { return message };
    let line = 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
    format!("line {line}: {message}")
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
        assert!(error.contains("line 1: unknown field `prot`"), "{error}");
        assert!(error.contains("ozma.toml"), "{error}");
        for secret in ["port = \"hunter2\"", "port = \"hunter2\" x", "\nport = 8\nkey = hunter2"] {
            std::fs::write(&path, secret).unwrap();
            let error = format!("{:#}", read_toml::<Settings>(&path).unwrap_err());
            assert!(error.contains("line ") && !error.contains("hunter2"), "{error}");
        }
    }
}
