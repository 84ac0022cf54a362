//! Looking into JSON that may have changed its shape: what is not there or of another type is absent.

use serde_json::Value;

/// The text at a JSON pointer.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}

/// The whole number at a JSON pointer; one with a fraction is cut.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a number saturates, and a count of tokens is far from the bounds"
)]
pub(super) fn number(value: &Value, pointer: &str) -> Option<u64> {
    let number = value.pointer(pointer)?;
    number.as_u64().or_else(|| number.as_f64().map(|float| float as u64))
}

/// The number at a JSON pointer, or none.
pub(super) fn count(value: &Value, pointer: &str) -> u64 {
    number(value, pointer).unwrap_or_default()
}

/// An HTTP status at a JSON pointer.
pub(super) fn status(value: &Value, pointer: &str) -> Option<u16> {
    number(value, pointer).and_then(|n| u16::try_from(n).ok()).filter(|n| (100..600).contains(n))
}

/// The items of the list at a JSON pointer.
pub(super) fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// What a tool gave back: a text, the texts of a list of parts, or JSON as it stands.
pub(super) fn content(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts: Vec<_> = parts
                .iter()
                .map(|part| match text(part, "/text") {
                    Some(text) => text.to_owned(),
                    None => part.to_string(),
                })
                .collect();
            texts.join("\n")
        }
        Some(other) => other.to_string(),
    }
}
