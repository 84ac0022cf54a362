//! Forms that several bodies share. Every refusal names the field it was given.

use protocol::spec::ProviderKind;

use super::error::ApiError;

/// Longest name, title or label, in bytes.
pub(crate) const MAX_LABEL_BYTES: usize = 200;

const MAX_IMAGE_BYTES: usize = 512;

/// At most `most` bytes, without NUL, which neither database, environment nor argv can hold.
pub(crate) fn text(field: &str, text: &str, most: usize) -> Result<(), ApiError> {
    if text.len() > most {
        return Err(ApiError::invalid(field, format!("must be at most {most} bytes")));
    }
    if text.contains('\0') {
        return Err(ApiError::invalid(field, "must not contain NUL"));
    }
    Ok(())
}

/// A text that says something.
pub(crate) fn filled(field: &str, given: &str, most: usize) -> Result<(), ApiError> {
    if given.trim().is_empty() {
        return Err(ApiError::invalid(field, "must not be empty"));
    }
    text(field, given, most)
}

/// A text that may be missing; an empty one counts as missing.
pub(crate) fn optional(
    field: &str,
    given: Option<String>,
    most: usize,
) -> Result<Option<String>, ApiError> {
    let Some(given) = given.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    text(field, &given, most)?;
    Ok(Some(given))
}

/// One line for people, without the blanks around it.
pub(crate) fn label(field: &str, given: &str) -> Result<String, ApiError> {
    let trimmed = given.trim();
    filled(field, trimmed, MAX_LABEL_BYTES)?;
    if trimmed.chars().any(char::is_control) {
        return Err(ApiError::invalid(field, "must be one line without control characters"));
    }
    Ok(trimmed.to_owned())
}

pub(crate) fn image(field: &str, given: &str) -> Result<String, ApiError> {
    let trimmed = given.trim();
    filled(field, trimmed, MAX_IMAGE_BYTES)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if trimmed.starts_with('-') || !trimmed.chars().all(plain) {
        return Err(ApiError::invalid(field, "must be an image like debian:bookworm-slim"));
    }
    Ok(trimmed.to_owned())
}

pub(crate) fn within(field: &str, value: u64, least: u64, most: u64) -> Result<(), ApiError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ApiError::invalid(field, format!("must be {least} to {most}")))
}

/// The name of an environment variable: `[A-Za-z_][A-Za-z0-9_]*`.
pub(crate) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A provider this version drives.
pub(crate) fn provider(field: &str, kind: ProviderKind) -> Result<(), ApiError> {
    match kind {
        ProviderKind::Agent | ProviderKind::Command => Ok(()),
        ProviderKind::Claude
        | ProviderKind::Codex
        | ProviderKind::Opencode
        | ProviderKind::Gemini => {
            let rule = format!("{} is not available in this version", kind.as_str());
            Err(ApiError::unsupported(field, rule))
        }
    }
}
