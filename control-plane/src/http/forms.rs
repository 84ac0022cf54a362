//! Forms that several bodies share. Every refusal names the field it was given.

use protocol::retry::{MAX_ATTEMPTS, RetryPolicy};

use super::error::ApiError;
use crate::timeouts::{Ceilings, MAX_TIMEOUT_SECS, TimeoutWishes};

/// Longest name, title or label, in bytes.
pub(crate) const MAX_LABEL_BYTES: usize = 200;

const MAX_IMAGE_BYTES: usize = 512;

const MAX_IDLE_MINUTES: u64 = 24 * 60;

const MAX_TAGS: usize = 16;
const MAX_TAG_BYTES: usize = 64;

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

/// Seconds a phase may take: at least one, and no more than this plane allows.
pub(crate) fn timeout(
    field: &str,
    value: Option<u64>,
    ceiling: u64,
    setting: &str,
) -> Result<Option<u64>, ApiError> {
    let Some(secs) = value else { return Ok(None) };
    within(field, secs, 1, MAX_TIMEOUT_SECS)?;
    if secs > ceiling {
        let rule = format!("must be at most {ceiling}, this plane's {setting}");
        return Err(ApiError::unsupported(field, rule));
    }
    Ok(value)
}

/// The four of them, their names behind `prefix`.
pub(crate) fn timeouts(
    prefix: &str,
    wishes: TimeoutWishes,
    ceilings: Ceilings,
) -> Result<TimeoutWishes, ApiError> {
    let one = |name: &str, value, ceiling, setting| {
        timeout(&format!("{prefix}{name}"), value, ceiling, setting)
    };
    let queue = ("queue_timeout_secs", wishes.queue_secs, ceilings.queue_secs, "max_queue_secs");
    let image = ("image_timeout_secs", wishes.image_secs, ceilings.image_secs, "max_image_secs");
    let setup = ("setup_timeout_secs", wishes.setup_secs, ceilings.setup_secs, "max_setup_secs");
    let run = ("timeout_secs", wishes.run_secs, ceilings.run_secs, "max_run_secs");
    Ok(TimeoutWishes {
        queue_secs: one(queue.0, queue.1, queue.2, queue.3)?,
        image_secs: one(image.0, image.1, image.2, image.3)?,
        setup_secs: one(setup.0, setup.1, setup.2, setup.3)?,
        run_secs: one(run.0, run.1, run.2, run.3)?,
    })
}

/// A retry policy; an absent one leaves everything open.
pub(crate) fn retry(field: &str, given: Option<RetryPolicy>) -> Result<RetryPolicy, ApiError> {
    let mut policy = given.unwrap_or_default();
    if let Some(n) = policy.max_attempts {
        within(&format!("{field}.max_attempts"), u64::from(n), 1, u64::from(MAX_ATTEMPTS))?;
    }
    if let Some(on) = &mut policy.on {
        on.sort_unstable();
        on.dedup();
    }
    Ok(policy)
}

/// Tags a worker must have: few, short and plain. They come back sorted, each once.
pub(crate) fn tags(field: &str, mut tags: Vec<String>) -> Result<Vec<String>, ApiError> {
    if tags.len() > MAX_TAGS {
        return Err(ApiError::invalid(field, format!("at most {MAX_TAGS} tags")));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    for (at, tag) in tags.iter().enumerate() {
        if tag.is_empty() || tag.len() > MAX_TAG_BYTES || !tag.bytes().all(plain) {
            let rule = format!("must be 1 to {MAX_TAG_BYTES} of A-Z, a-z, 0-9, '.', '_' and '-'");
            return Err(ApiError::invalid(format!("{field}[{at}]"), rule));
        }
    }
    tags.sort_unstable();
    tags.dedup();
    Ok(tags)
}

/// The name of an environment variable: `[A-Za-z_][A-Za-z0-9_]*`.
pub(crate) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Minutes without a word, as seconds.
pub(crate) fn idle(field: &str, minutes: Option<u32>) -> Result<Option<u64>, ApiError> {
    let Some(minutes) = minutes.map(u64::from) else { return Ok(None) };
    within(field, minutes, 1, MAX_IDLE_MINUTES)?;
    Ok(Some(60 * minutes))
}
